//! IQ2_XS: blocks of 256, `f16 d; u16 qs[32]; u8 sc[8]`: a `qs` for 8 values, nine bits of index into a grid of 512 entries
//! and seven signs; a nibble of `sc` for 16 values, scale `d * (s + 0.5) / 4` (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

use super::grid::{eight_signs, put, IQ2_XS};

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 74;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let (quants, scales) = (&b[2..66], &b[66..]);
        for (i, (o, q)) in o.chunks_exact_mut(8).zip(quants.chunks_exact(2)).enumerate() {
            let q = u16::from_le_bytes([q[0], q[1]]);
            let scale = d * (0.5 + (scales[i / 4] >> (4 * (i / 2 % 2)) & 15) as f32) * 0.25;
            put(o, &IQ2_XS.values((q & 511) as usize), eight_signs((q >> 9).into()), scale);
        }
    }
}
