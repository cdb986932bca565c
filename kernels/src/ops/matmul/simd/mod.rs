//! Quantised products per instruction set. Each file gives two kernels: `matvec` (decode: weights in the file's layout)
//! and `matmul` (prefill: a panel of weight rows widened once, then multiplied by every tile of `x`).

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod float;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dot;

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::transpose;

use std::cell::RefCell;
use std::ops::Range;

use super::quantize::{QuantizedRows, BLOCK, BY_ROW_MAX, TILE_ROWS};
use super::{cpu, PANEL_ROWS};
use crate::matrix::Matrix;
use crate::simd::Isa;

/// Takes parts of the products of row `t` of `x` as they are ready: `store(t, first, y)`, `y[i] = w[first + i] . x[t]`.
pub type StorePart<'a> = dyn FnMut(usize, usize, &[f32]) + 'a;

/// All products of `rows` by `x`, which has at most [`BY_ROW_MAX`] rows. A few rows of weights meet every row of `x` while
/// they are in the first-level cache.
pub fn matvec(isa: Isa, weights: &Matrix, rows: Range<usize>, x: &QuantizedRows, store: &mut StorePart<'_>) {
    assert!(rows.end <= weights.rows() && x.cols() == weights.cols() && x.n_rows() <= BY_ROW_MAX);
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::matvec(weights, rows, x, store),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::matvec(weights, rows, x, store),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::matvec(weights, rows, x, store),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => neon_dot::matvec(weights, rows, x, store),
        _ => {
            for (t, row) in (0..x.n_rows()).flat_map(|t| rows.clone().map(move |row| (t, row))) {
                store(t, row, &[cpu::dot(weights, row, x, t)]);
            }
        }
    }
}

/// Calls `store(t, y)` for each row `t` of `x`, with `y[i] = w[rows.start + i] . x[t]`; at most a panel of rows.
pub fn matmul(isa: Isa, weights: &Matrix, rows: Range<usize>, x: &QuantizedRows, store: &mut dyn FnMut(usize, &[f32])) {
    assert!(rows.end <= weights.rows() && rows.len() <= PANEL_ROWS && x.cols() == weights.cols());
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => avx512::matmul(weights, rows, x, store),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => avx2::matmul(weights, rows, x, store),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => neon::matmul(weights, rows, x, store),
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => neon_dot::matmul(weights, rows, x, store),
        _ => {
            let mut y = [0.0f32; PANEL_ROWS];
            for t in 0..x.n_rows() {
                for (y, row) in y.iter_mut().zip(rows.clone()) {
                    *y = cpu::dot(weights, row, x, t);
                }
                store(t, &y[..rows.len()]);
            }
        }
    }
}

/// The formats as constants, so that each kernel is compiled once per format.
const Q8_0: u8 = 0;
const Q4_0: u8 = 1;
const Q5_0: u8 = 2;

/// Evaluates `$call` with `$F` the constant of a quantised format.
macro_rules! by_format {
    ($format:expr, $F:ident => $call:expr) => {
        match $format {
            $crate::formats::Format::Q8_0 => {
                const $F: u8 = super::Q8_0;
                $call
            }
            $crate::formats::Format::Q4_0 => {
                const $F: u8 = super::Q4_0;
                $call
            }
            $crate::formats::Format::Q5_0 => {
                const $F: u8 = super::Q5_0;
                $call
            }
            other => unreachable!("{other} has no integer blocks"),
        }
    };
}
use by_format;

/// Quantised weights as the kernels walk them.
#[derive(Clone, Copy)]
struct Weights<'a> {
    bytes: &'a [u8],
    row_bytes: usize,
    block_bytes: usize,
    n_blocks: usize,
}

impl<'a> Weights<'a> {
    fn new(m: &'a Matrix) -> Self {
        let format = m.format();
        let row_bytes = format.row_bytes(m.cols()).expect("whole blocks");
        assert!(m.bytes().len() == row_bytes * m.rows() && row_bytes < 1 << 26);
        let n_blocks = m.cols() / format.block_len();
        Weights { bytes: m.bytes(), row_bytes, block_bytes: format.block_bytes(), n_blocks }
    }
}

/// A thread's panel: widened weights, their scales (K/block, PANEL_ROWS), and the sums of one tile (m, PANEL_ROWS).
/// Grown to the widest matrix once and then kept.
#[derive(Default)]
struct Panel {
    codes: Vec<i16>,
    scales: Vec<f32>,
    sums: Vec<f32>,
    /// The tile of `x` as signed bytes, for dot product units.
    #[cfg(target_arch = "aarch64")]
    split: Vec<i8>,
}

thread_local! {
    static PANEL: RefCell<Panel> = RefCell::new(Panel::default());
}

/// One tile of `x` as a panel kernel meets it.
#[derive(Clone, Copy)]
struct Tile<'a> {
    /// Rows of `x`, 1 to [`TILE_ROWS`].
    m: usize,
    /// Pairs of neighbouring k in a block.
    pairs: usize,
    n_blocks: usize,
    /// (K/2, m, 2).
    q: &'a [i16],
    /// (K/block, m).
    scales: &'a [f32],
}

/// The walk of every panel kernel: `pack` widens `rows` into this thread's panel, then `tile` multiplies it by each tile
/// of `x`.
fn by_panel(
    weights: &Matrix,
    rows: Range<usize>,
    x: &QuantizedRows,
    store: &mut dyn FnMut(usize, &[f32]),
    pack: impl FnOnce(Weights<'_>, &mut Panel),
    tile: impl Fn(Tile<'_>, &mut Panel),
) {
    let w = Weights::new(weights);
    PANEL.with_borrow_mut(|panel| {
        grow(&mut panel.codes, weights.cols() * PANEL_ROWS);
        grow(&mut panel.scales, w.n_blocks * PANEL_ROWS);
        grow(&mut panel.sums, TILE_ROWS * PANEL_ROWS);
        pack(w, panel);
        for i in 0..x.n_tiles() {
            let (m, q, scales) = x.tile(i);
            tile(Tile { m, pairs: BLOCK / 2, n_blocks: w.n_blocks, q, scales }, panel);
            for (t, y) in panel.sums.chunks_exact(PANEL_ROWS).take(m).enumerate() {
                store(i * x.tile_rows() + t, &y[..rows.len()]);
            }
        }
    });
}

fn grow<T: Copy + Default>(v: &mut Vec<T>, len: usize) {
    if v.len() < len {
        v.resize(len, T::default());
    }
}
