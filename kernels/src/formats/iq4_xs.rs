//! IQ4_XS: blocks of 256, `f16 d; u16 sh; u8 sl[4]; u8 qs[128]`: eight groups of 32 with a 6-bit scale each, value
//! `d * (s - 32) * LEVELS[q]` with the levels and nibble order of IQ4_NL (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

use super::iq4_nl::LEVELS;

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 136;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let high = u16::from_le_bytes([b[2], b[3]]);
        let (low, quants) = (&b[4..8], &b[8..]);
        for (group, (o, q)) in o.chunks_exact_mut(32).zip(quants.chunks_exact(16)).enumerate() {
            let s = (low[group / 2] >> (4 * (group % 2)) & 15) as i32 | ((high >> (2 * group) & 3) as i32) << 4;
            let s = d * (s - 32) as f32;
            for j in 0..16 {
                o[j] = s * LEVELS[(q[j] & 15) as usize] as f32;
                o[j + 16] = s * LEVELS[(q[j] >> 4) as usize] as f32;
            }
        }
    }
}
