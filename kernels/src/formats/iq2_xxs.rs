//! IQ2_XXS: blocks of 256, `f16 d; u16 qs[32]`: eight groups of 32 of two u32 each. The first holds four indices into a grid
//! of 256 entries of 8 values; the second four times seven signs and, in its top four bits, the scale: `d * (s + 0.5) / 4`
//! (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

use super::grid::{eight_signs, put, IQ2_XXS};

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 66;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        for (o, group) in o.chunks_exact_mut(32).zip(b[2..].chunks_exact(8)) {
            let word = u32::from_le_bytes([group[4], group[5], group[6], group[7]]);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.25;
            for (i, o) in o.chunks_exact_mut(8).enumerate() {
                put(o, &IQ2_XXS.values(group[i] as usize), eight_signs(word >> (7 * i)), scale);
            }
        }
    }
}
