//! IQ4_NL: blocks of 32, `f16 d; u8 qs[16]`; nibble order of Q4_0, value `d * LEVELS[q]` (ggml). Not NF4: other levels,
//! other scale. Read only: transcoded to Q8_0 at load.

use half::f16;

pub const BLOCK: usize = 32;
pub const BLOCK_BYTES: usize = 18;

/// The sixteen levels, in units of the block's scale (ggml `kvalues_iq4nl`).
pub const LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        for j in 0..16 {
            o[j] = d * LEVELS[(b[2 + j] & 15) as usize] as f32;
            o[j + 16] = d * LEVELS[(b[2 + j] >> 4) as usize] as f32;
        }
    }
}
