//! Q5_K: blocks of 256, `f16 d; f16 dmin; u8 sc[12]; u8 qh[32]; u8 qs[128]`: as Q4_K with a fifth bit per value, value
//! `d * s * q - dmin * m` (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

use super::q4_k::scale_and_min;

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 176;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let dmin = f16::from_le_bytes([b[2], b[3]]).to_f32();
        let (scales, high, quants) = (&b[4..16], &b[16..48], &b[48..]);
        // Group g takes bit g of each byte of `high`.
        for (pair, (o, q)) in o.chunks_exact_mut(64).zip(quants.chunks_exact(32)).enumerate() {
            let (s0, m0) = scale_and_min(scales, 2 * pair);
            let (s1, m1) = scale_and_min(scales, 2 * pair + 1);
            for l in 0..32 {
                let q0 = (q[l] & 15) | (high[l] >> (2 * pair) & 1) << 4;
                let q1 = (q[l] >> 4) | (high[l] >> (2 * pair + 1) & 1) << 4;
                o[l] = d * s0 * q0 as f32 - dmin * m0;
                o[l + 32] = d * s1 * q1 as f32 - dmin * m1;
            }
        }
    }
}
