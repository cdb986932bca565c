//! Q4_0: blocks of 32, `f16 d; u8 qs[16]`; low nibbles are values 0..16, high nibbles 16..32, value `d * (q - 8)` (ggml).

use half::f16;

use crate::simd::half_to_float;

pub const BLOCK: usize = 32;
pub const BLOCK_BYTES: usize = 18;

/// Decodes whole blocks.
#[inline(always)]
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = half_to_float(u16::from_le_bytes([b[0], b[1]]));
        for j in 0..16 {
            o[j] = d * ((b[2 + j] & 15) as i32 - 8) as f32;
            o[j + 16] = d * ((b[2 + j] >> 4) as i32 - 8) as f32;
        }
    }
}

/// Encodes whole blocks as ggml's reference does: the scale is the value of largest magnitude over -8.
pub fn encode(x: &[f32], out: &mut Vec<u8>) {
    assert_eq!(x.len() % BLOCK, 0);
    for block in x.chunks_exact(BLOCK) {
        let mut extreme = 0.0f32;
        for v in block {
            if v.abs() > extreme.abs() {
                extreme = *v;
            }
        }
        let d = extreme / -8.0;
        let inv = if d != 0.0 { 1.0 / d } else { 0.0 };
        out.extend_from_slice(&f16::from_f32(d).to_le_bytes());
        let nibble = |v: f32| ((v * inv + 8.5) as u8).min(15);
        for j in 0..16 {
            out.push(nibble(block[j]) | nibble(block[j + 16]) << 4);
        }
    }
}
