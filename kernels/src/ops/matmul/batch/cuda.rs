//! Launches of the kernels of batches.

use crate::cuda::{Cuda, DevicePtr, LaunchShape};
use crate::formats::Format;
use crate::ops::matmul::prefill::cuda::{add_segments, has_bf16, product_args, Call, Planes, Prepared, Rows};
use crate::ops::matmul::{decode, Input, Product};
use crate::view::View;

/// Rows of `x` that are multiplied by one reading of the weights.
const COLUMNS_MAX: usize = 64;
/// Weight rows of a block, and its threads.
const BLOCK_ROWS: usize = 128;
const THREADS: u32 = 128;
/// Most segments of K, and the shortest, in tiles of 128.
const SEGMENTS_MAX: usize = 8;
const SEGMENT_TILES_MIN: usize = 4;
/// Blocks that a processor should have.
const BLOCKS_PER_SM: usize = 2;
/// Bytes of a row of `x` of one step in shared memory.
const X_STRIDE: u32 = 320;

/// Computes every product by the same rows `x`, any number of them. `workspace` is the prefill's.
pub fn forward(cuda: &Cuda, products: &mut [Product<'_>], x: View<'_, f32, 2>, workspace: DevicePtr) {
    let has_kernels = |product: &Product<'_>| has_kernels(cuda, product.weights.format());
    for run in products.chunk_by_mut(|a, b| has_kernels(a) == has_kernels(b)) {
        match has_kernels(&run[0]) {
            true => forward_columns(cuda, run, x, workspace),
            false => decode::cuda::forward(cuda, run, Input::Rows(x)),
        }
    }
}

/// True when all of these are decode's, which also computes a norm before them.
pub fn is_decode(cuda: &Cuda, products: &[Product<'_>]) -> bool {
    products.iter().all(|product| !has_kernels(cuda, product.weights.format()))
}

/// True when weights of this format have kernels for batches.
pub fn has_kernels(cuda: &Cuda, format: Format) -> bool {
    cuda.arch() >= 80 && format != Format::F32
}

fn forward_columns(cuda: &Cuda, products: &mut [Product<'_>], x: View<'_, f32, 2>, workspace: DevicePtr) {
    let [n_rows, cols] = x.shape();
    for first in (0..n_rows).step_by(COLUMNS_MAX) {
        let n_tokens = COLUMNS_MAX.min(n_rows - first);
        let mut prepared: Option<(bool, Prepared)> = None;
        for product in products.iter() {
            let weights = Planes::of(product.weights.packed());
            let is_bf16 = has_bf16(cuda, weights.format);
            let rows = match prepared {
                Some((kind, rows)) if kind == is_bf16 => rows,
                _ => {
                    let x = x.ptr().offset(4 * first * cols);
                    Rows { x, n_tokens, cols, stride: cols, is_bf16 }.prepare(cuda, workspace)
                }
            };
            prepared = Some((is_bf16, rows));
            let call = Call::put(product);
            multiply(cuda, weights, rows, &Call { out: call.out.offset(4 * first * weights.rows), ..call });
        }
    }
}

fn multiply(cuda: &Cuda, weights: Planes, x: Prepared, call: &Call) {
    let kernel = Kernel::of(weights.format, x.n_tokens);
    let k_tiles = weights.padded_cols / 128;
    let n_segments = n_segments(cuda.n_sms() as usize, weights.rows, k_tiles);
    let partials = if n_segments > 1 { x.partials } else { DevicePtr::NULL };
    let args = product_args(weights, x, call, partials, n_segments);
    let grid = [weights.rows.div_ceil(BLOCK_ROWS) as u32, 1, n_segments as u32];
    cuda.launch(kernel.name, LaunchShape { grid, block: THREADS, shared_bytes: kernel.shared_bytes }, &args);
    if n_segments > 1 {
        add_segments(cuda, n_segments, weights, x, call);
    }
}

/// Enough blocks for all processors, by the matrix and the device alone.
fn n_segments(n_sms: usize, rows: usize, k_tiles: usize) -> usize {
    let idle = n_sms * BLOCKS_PER_SM / rows.div_ceil(BLOCK_ROWS);
    idle.min(k_tiles / SEGMENT_TILES_MIN).clamp(1, SEGMENTS_MAX)
}

struct Kernel {
    name: &'static str,
    shared_bytes: u32,
}

macro_rules! names {
    ($format:literal) => {
        [
            concat!("matmul_batch_", $format, "_8"),
            concat!("matmul_batch_", $format, "_16"),
            concat!("matmul_batch_", $format, "_32"),
            concat!("matmul_batch_", $format, "_64"),
        ]
    };
}

impl Kernel {
    /// The smallest that holds so many tokens, with the stages that its .cu states.
    fn of(format: Format, n_tokens: usize) -> Kernel {
        let index = [8, 16, 32, 64].iter().position(|n| n_tokens <= *n).expect("at most COLUMNS_MAX");
        let columns = 8u32 << index;
        // Names; bytes of codes and scales of a step; stages of up to 32 columns, and of 64.
        let (names, step_bytes, stages) = match format {
            Format::Q8_0 => (names!("q8_0"), 4 * (4096 + 256), [4, 3]),
            Format::Q4_0 => (names!("q4_0"), 4 * (2048 + 256), [6, 3]),
            Format::NF4 => (names!("nf4"), 4 * (2048 + 256), [6, 3]),
            Format::F16 => (names!("f16"), 4 * 8192, [3, 2]),
            Format::BF16 => (names!("bf16"), 4 * 8192, [3, 2]),
            other => panic!("{other} has no kernel for batches"),
        };
        let n_stages = stages[usize::from(columns == 64)];
        Kernel { name: names[index], shared_bytes: n_stages * (step_bytes + columns * X_STRIDE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_of_any_fits_an_orins_processor_and_two_an_h200s_but_for_plain_weights_and_32_columns() {
        for format in [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16] {
            for n_tokens in [1, 8, 9, 16, 17, 32, 33, 64] {
                let kernel = Kernel::of(format, n_tokens);
                let is_plain = matches!(format, Format::F16 | Format::BF16);
                let limit = if is_plain || (17..=32).contains(&n_tokens) { 163 << 10 } else { 113 << 10 };
                assert!(kernel.shared_bytes <= limit, "{}: {}", kernel.name, kernel.shared_bytes);
            }
        }
    }

    #[test]
    fn sums_of_segments_fit_the_workspace() {
        for n_sms in [8, 108, 132] {
            for (rows, cols) in [(1, 128), (256, 1152), (8192, 29568), (29568, 8192), (152_064, 8192)] {
                let n = n_segments(n_sms, rows, cols / 128);
                assert!(n == 1 || n * COLUMNS_MAX * rows * 4 <= 16 << 20, "{n_sms} {rows} {cols}: {n}");
                assert!(n <= cols / 128);
            }
        }
    }
}
