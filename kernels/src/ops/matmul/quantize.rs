//! Activations as 16-bit integers with one scale per block: enough bits that the product is as good as f32 for models
//! (2^-15 of the block's largest value), few enough that the sum over a block fits 32 bits.

use crate::device::Cpu;
use crate::formats::Format;
use crate::pool::Disjoint;
use crate::simd::per_isa;
use crate::view::View;

/// Rows of `x` that are interleaved into one tile.
pub const TILE_ROWS: usize = 12;

/// How rows of `x` are cut and scaled, by the format of the weights they meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Q8_0 and Q4_0: 32 * 128 * 32512 < 2^31, and 32512 = 127 * 256 splits into two signed bytes (dot product units).
    Block32 = 0,
    /// NF4, whose levels are integers up to [`NF4_SCALE`]: 64 * 8191 * 4095 < 2^31.
    Block64 = 1,
}

/// NF4 levels are rounded to multiples of 1 / NF4_SCALE: off by at most 6.1e-5 of the block's absmax.
pub const NF4_SCALE: f32 = 8191.0;

impl BlockKind {
    pub const ALL: [BlockKind; 2] = [BlockKind::Block32, BlockKind::Block64];

    /// `None` for float weights, which multiply `x` as it is.
    pub fn of(format: Format) -> Option<BlockKind> {
        match format {
            Format::Q8_0 | Format::Q4_0 => Some(BlockKind::Block32),
            Format::NF4 => Some(BlockKind::Block64),
            _ => None,
        }
    }

    /// Values per block.
    pub const fn len(self) -> usize {
        match self {
            BlockKind::Block32 => 32,
            BlockKind::Block64 => 64,
        }
    }

    /// The integer the block's largest magnitude becomes.
    pub const fn max(self) -> f32 {
        match self {
            BlockKind::Block32 => 32512.0,
            BlockKind::Block64 => 4095.0,
        }
    }
}

/// Rows of `x`, quantised and interleaved: tiles of [`TILE_ROWS`] rows, and in a tile pairs of neighbouring k of all its
/// rows side by side, `q` (tile, K/2, rows of the tile, 2) and `scales` (tile, K/block, rows of the tile).
pub struct QuantizedRows {
    kind: BlockKind,
    q: Vec<i16>,
    scales: Vec<f32>,
    n_rows: usize,
    cols: usize,
}

impl QuantizedRows {
    pub fn new(kind: BlockKind, max_rows: usize, max_cols: usize) -> Self {
        let cells = max_rows * max_cols.next_multiple_of(kind.len());
        QuantizedRows { kind, q: vec![0; cells], scales: vec![0.0; cells / kind.len()], n_rows: 0, cols: 0 }
    }

    pub fn size_bytes(kind: BlockKind, max_rows: usize, max_cols: usize) -> usize {
        let cells = max_rows * max_cols.next_multiple_of(kind.len());
        2 * cells + 4 * cells / kind.len()
    }

    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    pub fn cols(&self) -> usize {
        self.cols
    }

    pub fn kind(&self) -> BlockKind {
        self.kind
    }

    pub fn n_tiles(&self) -> usize {
        self.n_rows.div_ceil(TILE_ROWS)
    }

    /// Tile `i`: its number of rows, `q` (K/2, rows, 2) and `scales` (K/block, rows).
    pub fn tile(&self, i: usize) -> (usize, &[i16], &[f32]) {
        let start = i * TILE_ROWS;
        let rows = TILE_ROWS.min(self.n_rows - start);
        let n_blocks = self.cols / self.kind.len();
        let q = &self.q[start * self.cols..(start + rows) * self.cols];
        (rows, q, &self.scales[start * n_blocks..(start + rows) * n_blocks])
    }

    /// Replaces the contents by `x` (T, K); K must be a multiple of the block.
    pub fn quantize(&mut self, cpu: &Cpu, x: View<'_, f32, 2>) {
        let [n_rows, cols] = x.shape();
        let kind = self.kind;
        let n_blocks = cols / kind.len();
        assert_eq!(cols % kind.len(), 0, "K is not a multiple of {}", kind.len());
        (self.n_rows, self.cols) = (n_rows, cols);
        let q = Disjoint::new(&mut self.q[..n_rows * cols]);
        let scales = Disjoint::new(&mut self.scales[..n_rows * n_blocks]);
        cpu.pool.run(n_rows.div_ceil(TILE_ROWS), &|tile| {
            let start = tile * TILE_ROWS;
            let rows = TILE_ROWS.min(n_rows - start);
            // SAFETY:
            // - Tiles are disjoint ranges of rows.
            #[allow(unsafe_code)]
            let (q, scales) =
                unsafe { (q.part(start * cols, rows * cols), scales.part(start * n_blocks, rows * n_blocks)) };
            let x = &x.host()[start * cols..(start + rows) * cols];
            quantize_tile(cpu.isa, kind.len(), kind.max(), x, rows, q, scales);
        });
    }
}

per_isa! {
    fn quantize_tile(block: usize, max: f32, x: &[f32], rows: usize, q: &mut [i16], scales: &mut [f32]) = tile_body;
}

#[inline(always)]
fn tile_body(block: usize, max: f32, x: &[f32], rows: usize, q: &mut [i16], scales: &mut [f32]) {
    match block {
        32 => tile_blocks::<32>(max, x, rows, q, scales),
        64 => tile_blocks::<64>(max, x, rows, q, scales),
        _ => unreachable!("blocks are 32 or 64"),
    }
}

#[inline(always)]
fn tile_blocks<const BLOCK: usize>(max: f32, x: &[f32], rows: usize, q: &mut [i16], scales: &mut [f32]) {
    let cols = x.len() / rows;
    for (m, row) in x.chunks_exact(cols).enumerate() {
        for (b, block) in row.chunks_exact(BLOCK).enumerate() {
            let mut codes = [0i16; BLOCK];
            scales[b * rows + m] = quantize_block(max, block.try_into().expect("whole block"), &mut codes);
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
fn quantize_block<const BLOCK: usize>(max: f32, x: &[f32; BLOCK], codes: &mut [i16; BLOCK]) -> f32 {
    // As integers the magnitudes are ordered with infinity and NaN on top; a float maximum would lose NaN.
    let mut amax_bits = 0u32;
    for v in x {
        amax_bits = amax_bits.max(v.to_bits() & 0x7fff_ffff);
    }
    let amax = f32::from_bits(amax_bits);
    let inv = if amax < TINY { 0.0 } else { max / amax };
    for (c, v) in codes.iter_mut().zip(x) {
        *c = v.mul_add(inv, ROUND).to_bits() as i16;
    }
    if amax < TINY {
        0.0
    } else {
        amax / max
    }
}
