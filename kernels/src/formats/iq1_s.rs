//! IQ1_S: blocks of 256, `f16 d; u8 qs[32]; u16 qh[8]`: for 8 values eight bits of index in `qs` and three in `qh`, into a
//! grid of 2048 entries; the other bits of a `qh` are, for its 32 values, the scale `d * (2 s + 1)` and the sign of an offset
//! of 1/8 (ggml). Read only: transcoded to Q8_0 at load.

use half::f16;

use super::grid::IQ1;

pub const BLOCK: usize = 256;
pub const BLOCK_BYTES: usize = 50;

/// What all values of a group are moved by, up or down.
pub(super) const OFFSET: f32 = 0.125;

/// Decodes whole blocks.
pub fn decode(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(out.len() % BLOCK, 0);
    assert_eq!(bytes.len(), out.len() / BLOCK * BLOCK_BYTES);
    for (o, b) in out.chunks_exact_mut(BLOCK).zip(bytes.chunks_exact(BLOCK_BYTES)) {
        let d = f16::from_le_bytes([b[0], b[1]]).to_f32();
        let (low, high) = (&b[2..34], &b[34..]);
        for ((o, low), high) in o.chunks_exact_mut(32).zip(low.chunks_exact(4)).zip(high.chunks_exact(2)) {
            let high = u16::from_le_bytes([high[0], high[1]]);
            let scale = d * (2 * (high >> 12 & 7) + 1) as f32;
            let offset = if high >> 15 == 0 { OFFSET } else { -OFFSET };
            for (i, o) in o.chunks_exact_mut(8).enumerate() {
                let values = IQ1.values(low[i] as usize | (high as usize >> (3 * i) & 7) << 8);
                o.iter_mut().zip(values).for_each(|(o, v)| *o = scale * (v + offset));
            }
        }
    }
}
