//! IQ3_XXS: blocks of 256, `f16 d; u8 qs[64]; u32 ss[8]`: a `qs` is an index into a grid of 256 entries of 4 values; an `ss`
//! holds, for 32 values, four times seven signs and in its top four bits the scale: `d * (s + 0.5) / 2` (ggml). Read only:
//! transcoded to Q8_0 at load.

use half::f16;

use super::grid::{eight_signs, put, IQ3_XXS};

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 98;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let (quants, words) = (&b[2..66], &b[66..]);
        for ((o, q), word) in o.chunks_exact_mut(32).zip(quants.chunks_exact(8)).zip(words.chunks_exact(4)) {
            let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            let scale = d * (0.5 + (word >> 28) as f32) * 0.5;
            for (i, (o, q)) in o.chunks_exact_mut(8).zip(q.chunks_exact(2)).enumerate() {
                let signs = eight_signs(word >> (7 * i));
                let (a, b) = o.split_at_mut(4);
                put(a, &IQ3_XXS.values(q[0] as usize), signs, scale);
                put(b, &IQ3_XXS.values(q[1] as usize), signs >> 4, scale);
            }
        }
    }
}
