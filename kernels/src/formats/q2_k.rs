//! Q2_K: blocks of 256, `u8 sc[16]; u8 qs[64]; f16 d; f16 dmin`: sixteen groups of 16, the scale of each in the low nibble
//! of its `sc` and its minimum in the high one, value `d * s * q - dmin * m` (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 84;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let (scales, quants) = (&b[..16], &b[16..80]);
        let d = f16::from_le_bytes([b[80], b[81]]).to_f32();
        let dmin = f16::from_le_bytes([b[82], b[83]]).to_f32();
        for (group, (o, scale)) in o.chunks_exact_mut(16).zip(scales).enumerate() {
            let (s, m) = (d * (scale & 15) as f32, dmin * (scale >> 4) as f32);
            let (q, shift) = pairs_of_bits(quants, group);
            for (o, q) in o.iter_mut().zip(q) {
                *o = s * (q >> shift & 3) as f32 - m;
            }
        }
    }
}

/// Where the two low bits of group `group` (0..16) lie in `qs` (64): its 16 bytes, and how far they are shifted. A half of
/// 128 values has 32 bytes, which hold four rows of 32 values above each other.
pub(super) fn pairs_of_bits(quants: &[u8], group: usize) -> (&[u8], usize) {
    let start = 32 * (group / 8) + 16 * (group % 2);
    (&quants[start..start + 16], 2 * (group % 8 / 2))
}
