//! Launches of gemm.cu, and of gemm_mma.cu where tf32 will do.

use super::Size;
use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape};
use crate::ops::Write;

const THREADS: u32 = 256;
/// Terms of one step of a tile; splits are multiples of it.
const STEP: usize = 16;
/// Shorter splits cost more in sums that are written and read than idle processors do.
const SPLIT_TERMS_MIN: usize = 128;
/// Blocks that a processor should have.
const BLOCKS_PER_SM: usize = 2;
/// What the split-K partials may take.
pub const PARTIALS_BYTES_MAX: usize = 8 << 20;

/// `element(i, j)` lies `i * row + j * column` numbers from `at`.
#[derive(Clone, Copy)]
pub struct Factor {
    pub at: DevicePtr,
    pub row: usize,
    pub column: usize,
}

impl Factor {
    /// Rows of `stride` numbers.
    pub fn rows(at: DevicePtr, stride: usize) -> Factor {
        Factor { at, row: stride, column: 1 }
    }

    /// The transpose of rows of `stride` numbers.
    pub fn transposed(at: DevicePtr, stride: usize) -> Factor {
        Factor { at, row: 1, column: stride }
    }
}

/// `out` (rows, columns) `= scale * a b + bias`, or that added to it: `a` (rows, terms), `b` (terms, columns).
pub struct Gemm {
    pub out: DevicePtr,
    pub a: Factor,
    pub b: Factor,
    pub size: Size,
    pub scale: f32,
    pub write: Write,
    /// In f32. Otherwise factors are rounded to tf32 where there are tensor cores for it and strides are multiples of four.
    pub is_exact: bool,
    /// (columns).
    pub bias: Option<DevicePtr>,
    /// [`PARTIALS_BYTES_MAX`] bytes, where few outputs of many terms may be shared out. Without them each output is one
    /// chain of additions, whatever the number of rows.
    pub partials: Option<DevicePtr>,
}

/// Kernels with the rows and columns of their tiles.
const TILES: [(&str, usize, usize); 3] = [("gemm_128x32", 128, 32), ("gemm_32x128", 32, 128), ("gemm_64x64", 64, 64)];

impl Gemm {
    /// `out = a b`, rounded to tf32 where that can be, each output one chain of additions.
    pub fn new(out: DevicePtr, a: Factor, b: Factor, size: Size) -> Gemm {
        let (scale, write, is_exact) = (1.0, Write::Replace, false);
        Gemm { out, a, b, size, scale, write, is_exact, bias: None, partials: None }
    }

    pub fn launch(&self, cuda: &Cuda) {
        if self.size.rows == 0 || self.size.columns == 0 {
            return;
        }
        let tensor = if self.is_exact || cuda.arch() < 80 { None } else { self.tensor_kernel() };
        let (kernel, n_tiles, block, shared_bytes) = match tensor {
            Some(tensor) => {
                let n_tiles = self.size.rows.div_ceil(tensor.rows) * self.size.columns.div_ceil(tensor.columns);
                (tensor.name, n_tiles, tensor.threads, tensor.shared_bytes)
            }
            None => {
                let (name, n_tiles) = tile(self.size.rows, self.size.columns);
                (name, n_tiles, THREADS, 0)
            }
        };
        let may_split = tensor.is_none_or(|tensor| tensor.name != DOTS);
        let split_terms = match self.partials {
            Some(_) if may_split => {
                split_terms(cuda.n_sms() as usize, n_tiles, self.size.rows * self.size.columns, self.size.terms)
            }
            _ => self.size.terms.max(1),
        };
        let n_splits = self.size.terms.div_ceil(split_terms).max(1);
        let partials = self.partials.filter(|_| n_splits > 1).unwrap_or(DevicePtr::NULL);
        let (add, bias) = (u32::from(self.write == Write::Add), self.bias.unwrap_or(DevicePtr::NULL));
        let u32_of = |n: usize| Arg::from(u32::try_from(n).expect("strides and sizes below 2^32"));
        let args: [Arg; 15] = [
            self.out.into(),
            partials.into(),
            self.a.at.into(),
            self.b.at.into(),
            bias.into(),
            u32_of(self.a.row),
            u32_of(self.a.column),
            u32_of(self.b.row),
            u32_of(self.b.column),
            u32_of(self.size.rows),
            u32_of(self.size.columns),
            u32_of(self.size.terms),
            u32_of(split_terms),
            add.into(),
            self.scale.into(),
        ];
        let shape = LaunchShape { grid: [n_tiles as u32, 1, n_splits as u32], block, shared_bytes };
        cuda.launch(kernel, shape, &args);
        if n_splits > 1 {
            let n_blocks = (self.size.rows * self.size.columns).div_ceil(THREADS as usize);
            let args: [Arg; 8] = [
                self.out.into(),
                partials.into(),
                bias.into(),
                u32_of(self.size.rows),
                u32_of(self.size.columns),
                u32_of(n_splits),
                add.into(),
                self.scale.into(),
            ];
            let shape = LaunchShape { grid: [n_blocks as u32, 1, 1], block: THREADS, shared_bytes: 0 };
            cuda.launch("gemm_reduce", shape, &args);
        }
    }
}

/// The kernel whose blocks share the terms out among their own warps.
const DOTS: &str = "gemm_mma_32x32";

/// A kernel of gemm_mma.cu.
#[derive(Clone, Copy)]
struct Tensor {
    name: &'static str,
    rows: usize,
    columns: usize,
    threads: u32,
    shared_bytes: u32,
}

impl Gemm {
    /// The kernel for these strides, if there is one: sixteen bytes are copied at a time.
    fn tensor_kernel(&self) -> Option<Tensor> {
        let by_four = |factor: &Factor, n_sides: usize, side: usize, term: usize| {
            let (along, stride, run) = match (term, side) {
                (1, stride) => (true, stride, self.size.terms),
                (stride, 1) => (false, stride, n_sides),
                _ => return None,
            };
            (stride.is_multiple_of(4) && run.is_multiple_of(4) && factor.at.0.is_multiple_of(16)).then_some(along)
        };
        let a_along = by_four(&self.a, self.size.rows, self.a.row, self.a.column)?;
        let b_along = by_four(&self.b, self.size.columns, self.b.column, self.b.row)?;
        tensor_kernel(self.size.rows, self.size.columns, a_along, b_along)
    }
}

/// Whether the terms of each factor lie side by side decides, and which side of the result is narrow.
fn tensor_kernel(rows: usize, columns: usize, a_along: bool, b_along: bool) -> Option<Tensor> {
    let tall = |name, shared_bytes| Tensor { name, rows: 128, columns: 32, threads: 128, shared_bytes };
    let square = |name, shared_bytes| Tensor { name, rows: 128, columns: 128, threads: 256, shared_bytes };
    Some(match (a_along, b_along) {
        // Its blocks go through all terms themselves.
        (true, true) if columns <= 32 => {
            Tensor { name: DOTS, rows: 32, columns: 32, threads: 128, shared_bytes: 3 * 4 * 2 * 32 * 132 }
        }
        (true, false) if columns <= 32 => tall("gemm_mma_128x32_ts", 4 * 4 * (128 * 36 + 32 * 40)),
        (false, false) if columns <= 32 => tall("gemm_mma_128x32_ss", 4 * 4 * 32 * (136 + 40)),
        (false, false) if rows <= 32 => Tensor {
            name: "gemm_mma_32x128_ss",
            rows: 32,
            columns: 128,
            threads: 128,
            shared_bytes: 4 * 4 * 32 * (40 + 136),
        },
        (true, true) => square("gemm_mma_128x128_tt", 2 * 4 * 2 * 128 * 36),
        (true, false) => square("gemm_mma_128x128_ts", 2 * 4 * (128 * 36 + 32 * 136)),
        (false, false) => square("gemm_mma_128x128_ss", 2 * 4 * 2 * 32 * 136),
        (false, true) => return None,
    })
}

/// `out` (columns) `+=` the sum of the rows of `x` (rows, columns).
pub fn add_column_sums(cuda: &Cuda, out: DevicePtr, x: DevicePtr, rows: usize, columns: usize) {
    let shape = LaunchShape { grid: [columns.div_ceil(32) as u32, 1, 1], block: THREADS, shared_bytes: 0 };
    cuda.launch("gemm_column_sums", shape, &[out.into(), x.into(), (rows as u32).into(), (columns as u32).into()]);
}

/// The kernel that computes least outside the result, and its tiles.
fn tile(rows: usize, columns: usize) -> (&'static str, usize) {
    let tiles = TILES.map(|(kernel, r, c)| (kernel, rows.div_ceil(r) * columns.div_ceil(c)));
    // The later of two equals: squarer tiles read less.
    tiles.into_iter().rev().min_by_key(|(_, n)| *n).expect("three of them")
}

/// Terms of one split: enough splits to keep the processors busy, of multiples of [`STEP`].
fn split_terms(n_sms: usize, n_tiles: usize, outputs: usize, terms: usize) -> usize {
    let wanted = (n_sms * BLOCKS_PER_SM).div_ceil(n_tiles);
    let room = PARTIALS_BYTES_MAX / (4 * outputs);
    let n_splits = wanted.min(terms / SPLIT_TERMS_MIN).min(room).max(1);
    terms.div_ceil(n_splits).next_multiple_of(STEP).max(STEP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_results_take_narrow_tiles() {
        assert_eq!(tile(8192, 8).0, "gemm_128x32");
        assert_eq!(tile(8, 3584).0, "gemm_32x128");
        assert_eq!(tile(8192, 32).0, "gemm_128x32");
        assert_eq!(tile(32, 3584).0, "gemm_32x128");
        assert_eq!(tile(512, 512).0, "gemm_64x64");
        assert_eq!(tile(1, 1).0, "gemm_64x64");
    }

    #[test]
    fn adapters_of_any_rank_have_a_kernel_for_every_product() {
        let name = |rows, columns, a, b| tensor_kernel(rows, columns, a, b).map(|t| t.name);
        assert_eq!(name(8192, 32, true, true), Some("gemm_mma_32x32"));
        assert_eq!(name(8192, 8, true, false), Some("gemm_mma_128x32_ts"));
        assert_eq!(name(3584, 32, false, false), Some("gemm_mma_128x32_ss"));
        assert_eq!(name(32, 3584, false, false), Some("gemm_mma_32x128_ss"));
        assert_eq!(name(64, 3584, false, false), Some("gemm_mma_128x128_ss"));
        assert_eq!(name(8192, 18944, true, true), Some("gemm_mma_128x128_tt"));
        assert_eq!(name(8192, 3584, true, false), Some("gemm_mma_128x128_ts"));
        assert_eq!(name(8, 8, false, true), None);
    }

    #[test]
    fn splits_cover_all_terms_and_their_sums_fit() {
        for n_sms in [1, 8, 132] {
            for (rows, columns) in [(1, 1), (8, 1152), (32, 18944), (3584, 32), (300, 700)] {
                for terms in [1, 15, 127, 128, 256, 2049, 8192] {
                    let split = split_terms(n_sms, tile(rows, columns).1, rows * columns, terms);
                    let n = terms.div_ceil(split);
                    assert!(split.is_multiple_of(STEP) && n * split >= terms);
                    assert!(n == 1 || n * rows * columns * 4 <= PARTIALS_BYTES_MAX, "{rows} {columns} {terms}");
                }
            }
        }
    }
}
