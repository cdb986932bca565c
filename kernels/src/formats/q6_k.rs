//! Q6_K: blocks of 256, `u8 ql[128]; u8 qh[64]; i8 sc[16]; f16 d`: sixteen groups of 16 with an 8-bit scale, value
//! `d * s * (q - 32)` (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 210;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[208], b[209]]).to_f32();
        // Two halves of 128 values: 64 bytes of low nibbles, 32 bytes of top bit pairs and 8 scales each.
        for (half, o) in o.chunks_exact_mut(128).enumerate() {
            let low = &b[64 * half..64 * half + 64];
            let high = &b[128 + 32 * half..128 + 32 * half + 32];
            let scales = &b[192 + 8 * half..192 + 8 * half + 8];
            for l in 0..32 {
                let quants = [
                    (low[l] & 15) | (high[l] & 3) << 4,
                    (low[l + 32] & 15) | (high[l] >> 2 & 3) << 4,
                    (low[l] >> 4) | (high[l] >> 4 & 3) << 4,
                    (low[l + 32] >> 4) | (high[l] >> 6) << 4,
                ];
                for (quarter, q) in quants.into_iter().enumerate() {
                    let scale = scales[2 * quarter + l / 16] as i8;
                    o[32 * quarter + l] = d * scale as f32 * (q as i32 - 32) as f32;
                }
            }
        }
    }
}
