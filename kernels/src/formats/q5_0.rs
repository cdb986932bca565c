//! Q5_0: blocks of 32, `f16 d; u32 qh; u8 qs[16]`; low nibbles are values 0..16, high nibbles 16..32, bit i of `qh` is
//! the fifth bit of value i; value `d * (q - 16)` (ggml).

use half::f16;

use crate::simd::half_to_float;

pub const BLOCK: usize = 32;
pub const BLOCK_BYTES: usize = 22;

/// Decodes whole blocks.
#[inline(always)]
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = half_to_float(u16::from_le_bytes([b[0], b[1]]));
        for (o, code) in o.iter_mut().zip(codes(b)) {
            *o = d * f32::from(code);
        }
    }
}

/// The codes of a block, -16 to 15.
#[inline(always)]
pub fn codes(block: &[u8]) -> [i8; BLOCK] {
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    let mut codes = [0; BLOCK];
    for (j, nibbles) in block[6..BLOCK_BYTES].iter().enumerate() {
        codes[j] = ((nibbles & 15) | (((high >> j) & 1) as u8) << 4) as i8 - 16;
        codes[j + 16] = ((nibbles >> 4) | (((high >> (j + 16)) & 1) as u8) << 4) as i8 - 16;
    }
    codes
}

/// Encodes whole blocks as ggml's reference does: the scale is the value of largest magnitude over -16.
pub fn encode(x: &[f32], out: &mut Vec<u8>) {
    assert_eq!(x.len() % BLOCK, 0);
    for block in x.chunks_exact(BLOCK) {
        let mut extreme = 0.0f32;
        for v in block {
            if v.abs() > extreme.abs() {
                extreme = *v;
            }
        }
        let d = extreme / -16.0;
        let inv = if d != 0.0 { 1.0 / d } else { 0.0 };
        let code = |v: f32| ((v * inv + 16.5) as u8).min(31);
        let high = (0..BLOCK).fold(0u32, |high, j| high | u32::from(code(block[j]) >> 4) << j);
        out.extend_from_slice(&f16::from_f32(d).to_le_bytes());
        out.extend_from_slice(&high.to_le_bytes());
        out.extend((0..16).map(|j| code(block[j]) & 15 | code(block[j + 16]) << 4));
    }
}
