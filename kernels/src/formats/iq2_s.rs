//! IQ2_S: blocks of 256, `f16 d; u8 qs[32]; u8 signs[32]; u8 qh[8]; u8 sc[8]`: for 8 values eight bits of index in `qs` and
//! two in `qh`, into a grid of 1024 entries, and a sign each; a nibble of `sc` for 16 values, scale `d * (s + 0.5) / 4`
//! (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

use super::grid::{put, IQ2_S};

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 82;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let (low, signs, high, scales) = (&b[2..34], &b[34..66], &b[66..74], &b[74..]);
        for (i, o) in o.chunks_exact_mut(8).enumerate() {
            let index = low[i] as usize | (high[i / 4] as usize >> (2 * (i % 4)) & 3) << 8;
            let scale = d * (0.5 + (scales[i / 4] >> (4 * (i / 2 % 2)) & 15) as f32) * 0.25;
            put(o, &IQ2_S.values(index), signs[i], scale);
        }
    }
}
