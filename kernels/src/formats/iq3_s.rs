//! IQ3_S: blocks of 256, `f16 d; u8 qs[64]; u8 qh[8]; u8 signs[32]; u8 sc[4]`: for 4 values eight bits of index in `qs` and
//! one in `qh`, into a grid of 512 entries, and a sign each; a nibble of `sc` for 32 values, scale `d * (2 s + 1)` (ggml).
//! Read only: transcoded to Q8_0 at load.

use half::f16;

use super::grid::{put, IQ3_S};

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 110;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let (low, high, signs, scales) = (&b[2..66], &b[66..74], &b[74..106], &b[106..]);
        for (i, o) in o.chunks_exact_mut(4).enumerate() {
            let index = low[i] as usize | (high[i / 8] as usize >> (i % 8) & 1) << 8;
            let scale = d * (1 + 2 * (scales[i / 16] >> (4 * (i / 8 % 2)) & 15)) as f32;
            put(o, &IQ3_S.values(index), signs[i / 2] >> (4 * (i % 2)), scale);
        }
    }
}
