//! Q4_K: blocks of 256, `f16 d; f16 dmin; u8 sc[12]; u8 qs[128]`: eight groups of 32 with a 6-bit scale and a 6-bit
//! minimum each, value `d * s * q - dmin * m` (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 144;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let dmin = f16::from_le_bytes([b[2], b[3]]).to_f32();
        let (scales, quants) = (&b[4..16], &b[16..]);
        // Each 32 bytes hold two groups: the low nibbles, then the high ones.
        for (pair, (o, q)) in o.chunks_exact_mut(64).zip(quants.chunks_exact(32)).enumerate() {
            let (s0, m0) = scale_and_min(scales, 2 * pair);
            let (s1, m1) = scale_and_min(scales, 2 * pair + 1);
            for l in 0..32 {
                o[l] = d * s0 * (q[l] & 15) as f32 - dmin * m0;
                o[l + 32] = d * s1 * (q[l] >> 4) as f32 - dmin * m1;
            }
        }
    }
}

/// The 6-bit scale and minimum of group `j` (0..8), packed into 12 bytes: four low groups whole, the upper four split
/// into a nibble and the two top bits of a low group's byte.
pub(super) fn scale_and_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (s, m) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        ((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4, (packed[j + 4] >> 4) | (packed[j] >> 6) << 4)
    };
    (s as f32, m as f32)
}
