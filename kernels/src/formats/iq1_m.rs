//! IQ1_M: blocks of 256, `u8 qs[32]; u8 qh[16]; u16 sc[4]`: for 8 values eight bits of index in `qs` and three in `qh`, into
//! the grid of IQ1_S, and a bit for the sign of its offset; three bits of `sc` for 16 values, scale `d * (2 s + 1)`. The top
//! nibbles of the four `sc` are the f16 `d` (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

use super::grid::IQ1;
use super::iq1_s::OFFSET;

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 56;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let (low, high) = (&b[..32], &b[32..48]);
        let scales: [u16; 4] = std::array::from_fn(|i| u16::from_le_bytes([b[48 + 2 * i], b[49 + 2 * i]]));
        let bits = scales.iter().enumerate().fold(0, |bits, (i, s)| bits | (s >> 12) << (4 * i));
        let d = f16::from_bits(bits).to_f32();
        for (i, o) in o.chunks_exact_mut(8).enumerate() {
            let nibble = high[i / 2] >> (4 * (i % 2)) & 15;
            let scale = d * (2 * (scales[i / 8] >> (3 * (i / 2 % 4)) & 7) + 1) as f32;
            let offset = if nibble & 8 == 0 { OFFSET } else { -OFFSET };
            let values = IQ1.values(low[i] as usize | ((nibble & 7) as usize) << 8);
            o.iter_mut().zip(values).for_each(|(o, v)| *o = scale * (v + offset));
        }
    }
}
