//! Q8_0: blocks of 32, `f16 d; i8 q[32]`, value `d * q` (ggml).

use half::f16;

use crate::simd::half_to_float;

pub const BLOCK: usize = 32;
pub const BLOCK_BYTES: usize = 34;

/// Decodes whole blocks.
#[inline(always)]
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = half_to_float(u16::from_le_bytes([b[0], b[1]]));
        for (v, q) in o.iter_mut().zip(&b[2..]) {
            *v = d * (*q as i8) as f32;
        }
    }
}

/// Encodes whole blocks as ggml's reference does: `d = amax / 127`, `q = round(x / d)` with the f32 `d` (before it is
/// narrowed to f16), halves rounded away from zero.
pub fn encode(x: &[f32], out: &mut Vec<u8>) {
    assert_eq!(x.len() % BLOCK, 0);
    for block in x.chunks_exact(BLOCK) {
        let amax = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let d = amax / 127.0;
        let inv = if d > 0.0 { 1.0 / d } else { 0.0 };
        out.extend_from_slice(&f16::from_f32(d).to_le_bytes());
        for v in block {
            out.push((v * inv).round().clamp(-127.0, 127.0) as i8 as u8);
        }
    }
}
