//! Q3_K: blocks of 256, `u8 hmask[32]; u8 qs[64]; u8 sc[12]; f16 d`: sixteen groups of 16 with a 6-bit scale each, value
//! `d * (s - 32) * (q - 4)`, the two low bits of `q` laid out as in Q2_K, the third in `hmask` (ggml). Read only: transcoded
//! to Q8_0 at load.

use half::f16;

use super::q2_k::pairs_of_bits;

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 110;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let (high, quants, scales) = (&b[..32], &b[32..96], &b[96..108]);
        let d = f16::from_le_bytes([b[108], b[109]]).to_f32();
        for (group, o) in o.chunks_exact_mut(16).enumerate() {
            let s = d * (scale(scales, group) - 32) as f32;
            let (q, shift) = pairs_of_bits(quants, group);
            // Bit i of a byte of `hmask` belongs to the i-th row of 32 values of the block.
            let high = &high[16 * (group % 2)..][..16];
            for ((o, q), high) in o.iter_mut().zip(q).zip(high) {
                let q = (q >> shift & 3) | (high >> (group / 2) & 1) << 2;
                *o = s * (q as i32 - 4) as f32;
            }
        }
    }
}

/// The 6-bit scale of group `j` (0..16): a nibble of the first eight bytes (low ones first), and two bits of the last four.
fn scale(packed: &[u8], j: usize) -> i32 {
    let low = packed[j % 8] >> (4 * (j / 8)) & 15;
    let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
    (low | high << 4) as i32
}
