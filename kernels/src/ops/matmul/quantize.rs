//! Activations as 16-bit integers with one scale per block: enough bits that the product is as good as f32 for models
//! (2^-15 of the block's largest value), few enough that the sum over a block fits 32 bits.

use crate::device::Cpu;
use crate::formats::Format;
use crate::pool::{Disjoint, WORTH_SHARING};
use crate::simd::per_isa;
use crate::view::View;

/// Rows of `x` that are interleaved into one tile.
pub const TILE_ROWS: usize = 12;
/// So few rows meet the weights one by one, each in a tile of its own, as a decode step's single row does: a panel is not
/// widened for them.
pub const BY_ROW_MAX: usize = 4;

/// Values per block, Q8_0's, Q4_0's and Q5_0's own.
pub const BLOCK: usize = 32;

/// The integer a block's largest magnitude becomes: 32 * 128 * 32512 < 2^31, and 32512 = 127 * 256 splits into two signed
/// bytes for dot product units.
const MAX_CODE: f32 = 32512.0;

/// True for the formats that multiply `x` as integers; the others multiply it as it is.
pub fn has_integer_blocks(format: Format) -> bool {
    matches!(format, Format::Q8_0 | Format::Q4_0 | Format::Q5_0)
}

/// Rows of `x`, quantised and interleaved: tiles of [`TILE_ROWS`] rows, or of one where there are at most [`BY_ROW_MAX`], and
/// in a tile pairs of neighbouring k of all its rows side by side, `q` (tile, K/2, rows of the tile, 2) and `scales` (tile,
/// K/block, rows of the tile).
pub struct QuantizedRows {
    q: Vec<i16>,
    scales: Vec<f32>,
    n_rows: usize,
    tile_rows: usize,
    cols: usize,
}

impl QuantizedRows {
    pub fn new(max_rows: usize, max_cols: usize) -> Self {
        let cells = max_rows * max_cols.next_multiple_of(BLOCK);
        QuantizedRows { q: vec![0; cells], scales: vec![0.0; cells / BLOCK], n_rows: 0, tile_rows: 1, cols: 0 }
    }

    pub fn size_bytes(max_rows: usize, max_cols: usize) -> usize {
        let cells = max_rows * max_cols.next_multiple_of(BLOCK);
        2 * cells + 4 * cells / BLOCK
    }

    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Rows of a tile, less at the end.
    pub fn tile_rows(&self) -> usize {
        self.tile_rows
    }

    pub fn n_tiles(&self) -> usize {
        self.n_rows.div_ceil(self.tile_rows)
    }

    /// Tile `i`: its number of rows, `q` (K/2, rows, 2) and `scales` (K/block, rows).
    pub fn tile(&self, i: usize) -> (usize, &[i16], &[f32]) {
        let start = i * self.tile_rows;
        let rows = self.tile_rows.min(self.n_rows - start);
        let n_blocks = self.cols / BLOCK;
        let q = &self.q[start * self.cols..(start + rows) * self.cols];
        (rows, q, &self.scales[start * n_blocks..(start + rows) * n_blocks])
    }

    /// Replaces the contents by `x` (T, K); K must be a multiple of the block.
    pub fn quantize(&mut self, cpu: &Cpu, x: View<'_, f32, 2>) {
        let [n_rows, cols] = x.shape();
        let n_blocks = cols / BLOCK;
        assert_eq!(cols % BLOCK, 0, "K is not a multiple of {BLOCK}");
        let tile_rows = if n_rows <= BY_ROW_MAX { 1 } else { TILE_ROWS };
        (self.n_rows, self.tile_rows, self.cols) = (n_rows, tile_rows, cols);
        let q = Disjoint::new(&mut self.q[..n_rows * cols]);
        let scales = Disjoint::new(&mut self.scales[..n_rows * n_blocks]);
        cpu.pool.run_if(n_rows * cols >= WORTH_SHARING, n_rows.div_ceil(tile_rows), &|tile| {
            let start = tile * tile_rows;
            let rows = tile_rows.min(n_rows - start);
            // SAFETY:
            // - Tiles are disjoint ranges of rows.
            #[allow(unsafe_code)]
            let (q, scales) =
                unsafe { (q.part(start * cols, rows * cols), scales.part(start * n_blocks, rows * n_blocks)) };
            let x = &x.host()[start * cols..(start + rows) * cols];
            quantize_tile(cpu.isa, x, rows, q, scales);
        });
    }
}

per_isa! {
    fn quantize_tile(x: &[f32], rows: usize, q: &mut [i16], scales: &mut [f32]) = tile_body;
}

#[inline(always)]
fn tile_body(x: &[f32], rows: usize, q: &mut [i16], scales: &mut [f32]) {
    let cols = x.len() / rows;
    for (m, row) in x.chunks_exact(cols).enumerate() {
        for (b, block) in row.chunks_exact(BLOCK).enumerate() {
            let mut codes = [0i16; BLOCK];
            scales[b * rows + m] = quantize_block(block.try_into().expect("whole block"), &mut codes);
            let pairs = &mut q[b * BLOCK * rows..(b + 1) * BLOCK * rows];
            for (j, pair) in codes.chunks_exact(2).enumerate() {
                let at = (j * rows + m) * 2;
                pairs[at..at + 2].copy_from_slice(pair);
            }
        }
    }
}

/// Largest magnitudes below this count as zero: their inverse would overflow.
const TINY: f32 = 1e-30;
/// Adding 1.5 * 2^23 leaves the nearest integer, halves to even, in the low bits of the f32.
const ROUND: f32 = 12_582_912.0;

/// Quantises one block and returns its scale. A NaN or infinity anywhere in it makes the scale non-finite, so that it
/// reaches the output.
#[inline(always)]
fn quantize_block(x: &[f32; BLOCK], codes: &mut [i16; BLOCK]) -> f32 {
    // As integers the magnitudes are ordered with infinity and NaN on top; a float maximum would lose NaN.
    let mut amax_bits = 0u32;
    for v in x {
        amax_bits = amax_bits.max(v.to_bits() & 0x7fff_ffff);
    }
    let amax = f32::from_bits(amax_bits);
    let inv = if amax < TINY { 0.0 } else { MAX_CODE / amax };
    for (c, v) in codes.iter_mut().zip(x) {
        *c = v.mul_add(inv, ROUND).to_bits() as i16;
    }
    if amax < TINY {
        0.0
    } else {
        amax / MAX_CODE
    }
}
