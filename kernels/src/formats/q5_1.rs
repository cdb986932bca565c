//! Q5_1: blocks of 32, `f16 d; f16 m; u32 qh; u8 qs[16]`; nibbles and fifth bits as in Q5_0, value `d * q + m` (ggml).
//! Read only: transcoded to Q8_0 at load.

use half::f16;

pub const BLOCK: usize = 32;
pub const BLOCK_BYTES: usize = 24;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let m = f16::from_le_bytes([b[2], b[3]]).to_f32();
        let high = u32::from_le_bytes([b[4], b[5], b[6], b[7]]);
        for j in 0..16 {
            let low = (b[8 + j] & 15) as u32 | (high >> j & 1) << 4;
            let upper = (b[8 + j] >> 4) as u32 | (high >> (j + 16) & 1) << 4;
            o[j] = d * low as f32 + m;
            o[j + 16] = d * upper as f32 + m;
        }
    }
}
