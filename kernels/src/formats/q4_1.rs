//! Q4_1: blocks of 32, `f16 d; f16 m; u8 qs[16]`; nibble order of Q4_0, value `d * q + m` (ggml). Read only: transcoded to
//! Q8_0 at load.

use half::f16;

pub const BLOCK: usize = 32;
pub const BLOCK_BYTES: usize = 20;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let m = f16::from_le_bytes([b[2], b[3]]).to_f32();
        for j in 0..16 {
            o[j] = d * (b[4 + j] & 15) as f32 + m;
            o[j + 16] = d * (b[4 + j] >> 4) as f32 + m;
        }
    }
}
