//! GEMM of factors with any strides, the shape of every backward product: `out[i, k] += sum over j of a(i, j) * b[j, k]`.
//!
//! Numerical contract, equal bits for every instruction set, thread count and number of rows: j runs in blocks of 128. In a
//! block, products are fused into a sum that starts at zero; the sums of blocks are added to `out` in order of j.
//! - [`Precision::Exact`]: f32 throughout, in order of j.
//! - [`Precision::Bf16`]: both factors are rounded to bf16 (products of those are exact in f32), and of each pair (j, j + 1)
//!   the second is added first, which is what `vdpbf16ps` does. That instruction takes numbers below 2^-126 for zero; so
//!   does the rounding, but a sum that small may differ in bits.

pub(crate) mod cuda;
mod decode;
mod pairs;
mod simd;

use std::cell::RefCell;
use std::ops::Range;

use crate::device::Cpu;
#[cfg(test)]
use crate::formats::Format;
use crate::matrix::Matrix;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::ops::Write;
use crate::pool::{Disjoint, WORTH_SHARING};
use crate::simd::per_isa;

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] =
    &[KernelModule::one("gemm", Role::Training), KernelModule::one("gemm_mma", Role::Training)];

/// Rows of `b` whose products are summed before they meet `out`.
pub(crate) const BLOCK: usize = 128;
/// Columns of `out` that one panel of `b` covers: four AVX-512 registers. A panel of a block takes 32 KiB.
pub(crate) const COLUMN_TILE: usize = 64;
/// Tasks per thread: enough to share evenly, few enough that a block of coefficients is read again rarely.
const TASKS_PER_THREAD: usize = 3;

/// Rows of one task are a multiple of this: whole tiles.
const ROWS_PER_TASK: usize = 4 * simd::ROWS;

/// `a(i, j) = data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy)]
pub(crate) struct Coefficients<'a> {
    pub data: &'a [f32],
    pub row_stride: usize,
    pub column_stride: usize,
}

impl<'a> Coefficients<'a> {
    /// The elements of `data` (I, J) as they lie.
    pub fn of(data: &'a [f32], n_columns: usize) -> Self {
        Coefficients { data, row_stride: n_columns, column_stride: 1 }
    }

    /// The transpose of `data` (J, I).
    pub fn transposed(data: &'a [f32], n_rows: usize) -> Self {
        Coefficients { data, row_stride: 1, column_stride: n_rows }
    }
}

/// The second factor, `b` (J, K).
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a> {
    Matrix(&'a Matrix),
    /// The transpose of this, whose blocks lie along j.
    MatrixTransposed(&'a Matrix),
    /// (J, K), a row every `stride` numbers.
    Floats {
        data: &'a [f32],
        stride: usize,
    },
    /// The transpose of this, (K, J), a row every `stride` numbers.
    Transposed {
        data: &'a [f32],
        stride: usize,
    },
}

/// How exactly factors are multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    Exact,
    Bf16,
}

/// True when this machine multiplies pairs of bf16 as fast as integers.
pub(crate) fn has_bf16(cpu: &Cpu) -> bool {
    simd::has_bf16(cpu.isa)
}

/// Of a product (rows, terms) by (terms, columns).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub rows: usize,
    pub terms: usize,
    pub columns: usize,
}

/// Sizes of one GEMM: `out` (rows, columns), a row every `out_stride` numbers, and `terms` rows of `b`.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub rows: usize,
    pub terms: usize,
    pub columns: usize,
    pub out_stride: usize,
}

impl Shape {
    /// Rows of `out` lie one behind the other.
    pub fn new(rows: usize, terms: usize, columns: usize) -> Shape {
        Shape { rows, terms, columns, out_stride: columns }
    }
}

/// Computes `out` (I, K).
pub(crate) fn gemm(
    cpu: &Cpu,
    out: &mut [f32],
    a: Coefficients<'_>,
    b: Rows<'_>,
    shape: Shape,
    precision: Precision,
    write: Write,
) {
    let Shape { rows, terms, columns, out_stride } = shape;
    if rows == 0 || columns == 0 {
        return;
    }
    assert!(out_stride >= columns && out.len() >= (rows - 1) * out_stride + columns);
    assert!(terms == 0 || a.data.len() > (rows - 1) * a.row_stride + (terms - 1) * a.column_stride);
    match b {
        Rows::Matrix(m) => assert!(m.rows() == terms && m.cols() == columns),
        Rows::MatrixTransposed(m) => assert!(m.cols() == terms && m.rows() == columns),
        Rows::Floats { data, stride } => assert!(terms == 0 || data.len() >= (terms - 1) * stride + columns),
        Rows::Transposed { data, stride } => assert!(data.len() >= (columns - 1) * stride + terms),
    }
    let job = Job { cpu, a, b, shape, precision, write, out: Disjoint::new(out) };
    match precision == Precision::Bf16 && simd::has_bf16(cpu.isa) && terms > 0 {
        true => job.in_pairs(),
        false => job.share(&|rows, column_tiles| job.block(rows, column_tiles)),
    }
}

struct Job<'a> {
    cpu: &'a Cpu,
    a: Coefficients<'a>,
    b: Rows<'a>,
    shape: Shape,
    precision: Precision,
    write: Write,
    out: Disjoint<'a, f32>,
}

/// What a thread works in: grown to the largest number of rows once.
#[derive(Default)]
struct Work {
    /// (BLOCK, COLUMN_TILE) of `b`, or of a transposed matrix (COLUMN_TILE, BLOCK).
    panel: Vec<f32>,
    /// The same in bf16, pairs of rows interleaved: (BLOCK / 2, COLUMN_TILE, 2), where there is an instruction for it.
    pairs: Vec<u16>,
    /// Coefficients of a block in bf16: (I, BLOCK).
    bf16s: Vec<u16>,
    /// The same as f32, pairs swapped, where there is no instruction for bf16.
    rounded: Vec<f32>,
}

thread_local! {
    static WORK: RefCell<Work> = RefCell::new(Work::default());
}

/// Bytes each thread keeps for a GEMM of `rows` rows.
pub(crate) fn worker_bytes(rows: usize) -> usize {
    BLOCK * COLUMN_TILE * 6 + rows * BLOCK * 6
}

/// Bytes that the calling thread keeps beside, for a GEMM of `terms` terms.
pub(crate) fn caller_scratch_bytes(rows: usize, terms: usize) -> usize {
    rows * terms.min(pairs::SPAN).next_multiple_of(BLOCK) * 2
}

impl Job<'_> {
    /// Shares rows and column tiles of `out` out to all threads.
    fn share(&self, part: &(dyn Fn(Range<usize>, Range<usize>) + Sync)) {
        let Shape { rows, terms, columns, .. } = self.shape;
        let n_column_tiles = columns.div_ceil(COLUMN_TILE);
        let n_tasks = self.cpu.pool.n_threads() * TASKS_PER_THREAD;
        let tiles_per_task = n_column_tiles.div_ceil(n_tasks).max(1);
        let n_groups = n_column_tiles.div_ceil(tiles_per_task);
        // A gradient of low rank has one column tile: then its rows are shared out.
        let rows_per_task = rows.div_ceil((n_tasks / n_groups).max(1)).next_multiple_of(ROWS_PER_TASK);
        let worth_it = rows * terms * columns.next_multiple_of(COLUMN_TILE) >= WORTH_SHARING;
        self.cpu.pool.run_if(worth_it, n_groups * rows.div_ceil(rows_per_task), &|task| {
            let (first, row) = (task % n_groups * tiles_per_task, task / n_groups * rows_per_task);
            part(row..(row + rows_per_task).min(rows), first..(first + tiles_per_task).min(n_column_tiles));
        });
    }

    /// All blocks of j for these rows and column tiles.
    fn block(&self, rows: Range<usize>, column_tiles: Range<usize>) {
        let isa = self.cpu.isa;
        WORK.with_borrow_mut(|work| {
            work.panel.resize(BLOCK * COLUMN_TILE, 0.0);
            for first in (0..self.shape.terms).step_by(BLOCK) {
                let js = first..(first + BLOCK).min(self.shape.terms);
                let replace = first == 0 && self.write == Write::Replace;
                match self.precision {
                    Precision::Exact => {
                        for column_tile in column_tiles.clone() {
                            self.pack(js.clone(), column_tile, &mut work.panel);
                            self.tiles(
                                &rows,
                                self.rows_of(&rows, js.start),
                                js.len(),
                                &work.panel,
                                column_tile,
                                replace,
                            );
                        }
                    }
                    Precision::Bf16 => {
                        self.round_coefficients(&rows, &js, &mut work.bf16s);
                        let even = js.len().next_multiple_of(2);
                        swap_pairs(&work.bf16s, even, &mut work.rounded);
                        let a = Coefficients { data: &work.rounded, row_stride: BLOCK, column_stride: 1 };
                        for column_tile in column_tiles.clone() {
                            self.pack(js.clone(), column_tile, &mut work.panel);
                            round_and_swap_rows(isa, js.len(), &mut work.panel);
                            self.tiles(&rows, a, even, &work.panel, column_tile, replace);
                        }
                    }
                }
            }
            if self.shape.terms == 0 && self.write == Write::Replace {
                column_tiles.clone().for_each(|column_tile| {
                    rows.clone().for_each(|i| self.part(i, &self.columns(column_tile)).fill(0.0))
                });
            }
        });
    }

    /// Of a column tile.
    fn columns(&self, column_tile: usize) -> Range<usize> {
        column_tile * COLUMN_TILE..((column_tile + 1) * COLUMN_TILE).min(self.shape.columns)
    }

    /// Rows `js` of `b`, columns of `column_tile`, into `panel`; missing columns are zero.
    fn pack(&self, js: Range<usize>, column_tile: usize, panel: &mut [f32]) {
        let (isa, ks) = (self.cpu.isa, self.columns(column_tile));
        match self.b {
            Rows::Matrix(m) => decode::rows(isa, m, &js, &ks, COLUMN_TILE, panel),
            Rows::MatrixTransposed(m) => {
                let mut row = [0.0f32; BLOCK];
                for (column, k) in ks.enumerate() {
                    decode::rows(isa, m, &(k..k + 1), &js, js.len(), &mut row[..js.len()]);
                    put_column(panel, column, &row[..js.len()]);
                }
            }
            Rows::Floats { data, stride } => {
                for (j, row) in js.zip(panel.chunks_exact_mut(COLUMN_TILE)) {
                    row[..ks.len()].copy_from_slice(&data[j * stride..][ks.clone()]);
                    row[ks.len()..].fill(0.0);
                }
            }
            Rows::Transposed { data, stride } => {
                panel[..js.len() * COLUMN_TILE].fill(0.0);
                for (column, k) in ks.enumerate() {
                    put_column(panel, column, &data[k * stride..][js.clone()]);
                }
            }
        }
    }

    /// Coefficients from the first of `rows` and from term `first` on.
    fn rows_of(&self, rows: &Range<usize>, first: usize) -> Coefficients<'_> {
        let at = rows.start * self.a.row_stride + first * self.a.column_stride;
        Coefficients { data: &self.a.data[at..], ..self.a }
    }

    /// `rows` of `out` against a panel; `a` begins at the first of them.
    fn tiles(
        &self,
        rows: &Range<usize>,
        a: Coefficients<'_>,
        n_terms: usize,
        panel: &[f32],
        column_tile: usize,
        replace: bool,
    ) {
        let (mut sums, n_columns) = ([0.0f32; simd::ROWS * COLUMN_TILE], self.columns(column_tile).len());
        for first in (0..rows.len()).step_by(simd::ROWS) {
            let n = simd::ROWS.min(rows.len() - first);
            let tile = Coefficients { data: &a.data[first * a.row_stride..], ..a };
            simd::tile(self.cpu.isa, Size { rows: n, terms: n_terms, columns: n_columns }, tile, panel, &mut sums);
            self.add(rows.start + first..rows.start + first + n, column_tile, &sums, replace);
        }
    }

    /// Adds the sums of a block to `out`, or puts them there.
    fn add(&self, rows: Range<usize>, column_tile: usize, sums: &[f32], replace: bool) {
        let ks = self.columns(column_tile);
        for (i, sums) in rows.zip(sums.chunks_exact(COLUMN_TILE)) {
            let out = self.part(i, &ks);
            match replace {
                true => out.copy_from_slice(&sums[..ks.len()]),
                false => add_row(self.cpu.isa, out, &sums[..ks.len()]),
            }
        }
    }

    #[allow(unsafe_code, clippy::mut_from_ref)]
    fn part(&self, i: usize, ks: &Range<usize>) -> &mut [f32] {
        // SAFETY:
        // - Tasks hold disjoint column tiles, and a task uses one part at a time.
        unsafe { self.out.part(i * self.shape.out_stride + ks.start, ks.len()) }
    }

    /// Coefficients of `rows` and block `js` as bf16, (rows, BLOCK), zero past the end.
    fn round_coefficients(&self, rows: &Range<usize>, js: &Range<usize>, bf16s: &mut Vec<u16>) {
        bf16s.resize(rows.len() * BLOCK, 0);
        for (i, bf16s) in rows.clone().zip(bf16s.chunks_exact_mut(BLOCK)) {
            let at = i * self.a.row_stride + js.start * self.a.column_stride;
            let (now, rest) = bf16s.split_at_mut(js.len());
            if self.a.column_stride == 1 {
                now.iter_mut().zip(&self.a.data[at..]).for_each(|(h, v)| *h = to_bf16(*v));
            } else {
                let values = self.a.data[at..].iter().step_by(self.a.column_stride);
                now.iter_mut().zip(values).for_each(|(h, v)| *h = to_bf16(*v));
            }
            rest.fill(0);
        }
    }
}

/// Nearest bf16, ties to even; what is below 2^-126 becomes zero, NaN stays NaN.
#[inline(always)]
pub(crate) fn to_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let magnitude = bits & 0x7fff_ffff;
    let value = if magnitude > 0x7f80_0000 { (bits >> 16) | 0x40 } else { rounded };
    (if magnitude < 0x0080_0000 { (bits >> 16) & 0x8000 } else { value }) as u16
}

#[inline(always)]
fn from_bf16(h: u16) -> f32 {
    f32::from_bits((h as u32) << 16)
}

per_isa! {
    fn add_row(out: &mut [f32], x: &[f32]) = add_row_body;
}
per_isa! {
    /// Rounds the rows of a panel to bf16 and swaps the rows of each pair; a missing last row is zero.
    fn round_and_swap_rows(n_terms: usize, panel: &mut [f32]) = round_and_swap_body;
}

/// Column `column` of a panel.
fn put_column(panel: &mut [f32], column: usize, values: &[f32]) {
    for (row, v) in panel.chunks_exact_mut(COLUMN_TILE).zip(values) {
        row[column] = *v;
    }
}

#[inline(always)]
fn add_row_body(out: &mut [f32], x: &[f32]) {
    match (<&mut [f32; COLUMN_TILE]>::try_from(&mut *out), <&[f32; COLUMN_TILE]>::try_from(x)) {
        (Ok(out), Ok(x)) => out.iter_mut().zip(x).for_each(|(y, v)| *y += v),
        _ => out.iter_mut().zip(x).for_each(|(y, v)| *y += v),
    }
}

#[inline(always)]
fn round_and_swap_body(n_terms: usize, panel: &mut [f32]) {
    if n_terms % 2 == 1 {
        panel[n_terms * COLUMN_TILE..(n_terms + 1) * COLUMN_TILE].fill(0.0);
    }
    for rows in panel.chunks_exact_mut(2 * COLUMN_TILE).take(n_terms.div_ceil(2)) {
        let (first, second) = rows.split_at_mut(COLUMN_TILE);
        for (a, b) in first.iter_mut().zip(second) {
            (*a, *b) = (from_bf16(to_bf16(*b)), from_bf16(to_bf16(*a)));
        }
    }
}

/// Coefficients as f32 with the members of each pair swapped, (I, BLOCK).
fn swap_pairs(bf16s: &[u16], even: usize, out: &mut Vec<f32>) {
    out.resize(bf16s.len(), 0.0);
    for (out, bf16s) in out.chunks_exact_mut(BLOCK).zip(bf16s.chunks_exact(BLOCK)) {
        for (out, pair) in out[..even].chunks_exact_mut(2).zip(bf16s.chunks_exact(2)) {
            (out[0], out[1]) = (from_bf16(pair[1]), from_bf16(pair[0]));
        }
    }
}

#[cfg(test)]
mod tests;
