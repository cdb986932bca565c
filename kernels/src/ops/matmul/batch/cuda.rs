//! Launches of the kernels of batches.

use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape};
use crate::formats::Format;
use crate::ops::matmul::prefill::cuda::{Places, Planes, Prepared};
use crate::ops::matmul::{decode, Input, Product};

use super::kernel::{columns_max, n_splits, Kernel, Order};
use super::source::Source;

/// BATCH_PARTS of batch_args.cuh: matrices of a launch.
const PARTS_MAX: usize = 3;
const SUM_THREADS: u32 = 256;
/// Of the block that has a row to make.
const PREPARE_THREADS_MIN: u32 = 128;
const PREPARE_THREADS_MAX: u32 = 1024;
/// Of weights that are asked for before their product begins: an H200 reads so much in 2 us, the time between two launches,
/// and has six times that in its second-level cache; a board with one memory has 4 MB of it.
const PREFETCH_BYTES: usize = 8 << 20;
const PREFETCH_BYTES_INTEGRATED: usize = 1 << 20;

/// Computes every product by the same rows, any number of them. `workspace` is the prefill's. Where the rows are still to be
/// made (a norm, a gated activation), all products must [have kernels](has_kernels): the first of them makes them.
pub fn forward(cuda: &Cuda, products: &mut [Product<'_>], input: Input<'_>, workspace: DevicePtr) {
    if let Input::Rows(x) = input {
        let has_kernels = |product: &Product<'_>| has_kernels(cuda, product.weights.format());
        for run in products.chunk_by_mut(|a, b| has_kernels(a) == has_kernels(b)) {
            match has_kernels(&run[0]) {
                true => forward_columns(cuda, run, &Source::rows(x), workspace),
                false => decode::cuda::forward(cuda, run, Input::Rows(x)),
            }
        }
        return;
    }
    forward_columns(cuda, products, &Source::of(input), workspace);
}

/// True when all of these are decode's, which also computes a norm before them.
pub fn is_decode(cuda: &Cuda, products: &[Product<'_>]) -> bool {
    products.iter().all(|product| !has_kernels(cuda, product.weights.format()))
}

/// True when weights of this format have kernels for batches.
pub fn has_kernels(cuda: &Cuda, format: Format) -> bool {
    cuda.arch() >= 80 && format != Format::F32
}

fn forward_columns(cuda: &Cuda, products: &[Product<'_>], source: &Source, workspace: DevicePtr) {
    let columns_max = columns_max(cuda.max_shared_bytes());
    for first in (0..source.n_rows).step_by(columns_max) {
        let n_tokens = columns_max.min(source.n_rows - first);
        let mut rows_now = source.from(first, n_tokens);
        let mut prepared: Option<(Order, Prepared)> = None;
        for run in products.chunk_by(|a, b| a.weights.format() == b.weights.format()) {
            let kernel = Kernel::of(cuda, run[0].weights.format(), n_tokens);
            let rows = match prepared {
                Some((order, rows)) if order == kernel.order => rows,
                _ => prepare(cuda, &kernel, &rows_now, &run[..run.len().min(PARTS_MAX)], workspace),
            };
            rows_now = rows_now.made();
            prepared = Some((kernel.order, rows));
            for run in run.chunks(PARTS_MAX) {
                multiply(cuda, &kernel, run, rows, first);
            }
        }
    }
}

/// Makes `source` 16-bit floats at the start of `workspace`, as `kernel` wants them. Meanwhile the first weights of `next`,
/// which will be multiplied by them first, are on their way.
fn prepare(cuda: &Cuda, kernel: &Kernel, source: &Source, next: &[Product<'_>], workspace: DevicePtr) -> Prepared {
    let (format, weights) = (next[0].weights.format(), Planes::of(next[0].weights.packed()));
    let k_tiles = weights.padded_cols / 128;
    let n_rows: [usize; PARTS_MAX] = std::array::from_fn(|i| next.get(i).map_or(0, |p| p.weights.rows()));
    let n_splits = n_splits(cuda.n_sms() as usize, &n_rows, k_tiles);
    let (unit_rows, step_bytes) = match format {
        Format::Q8_0 => (4, 512),
        Format::Q4_0 | Format::NF4 => (8, 512),
        _ => (1, 256),
    };
    let tile_rows = weights.rows.div_ceil(unit_rows);
    let bytes_max = if cuda.info().is_integrated { PREFETCH_BYTES_INTEGRATED } else { PREFETCH_BYTES };
    let bytes = bytes_max.min(tile_rows * k_tiles * step_bytes);
    let at = Places::new(kernel.columns, weights.padded_cols);
    let k_per_load = if let Order::Pieces { k_per_load } = kernel.order { k_per_load } else { 0 };
    let common: [Arg; 12] = [
        workspace.into(),
        workspace.offset(at.scales).into(),
        (source.n_rows as u32).into(),
        (kernel.columns as u32).into(),
        (source.cols as u32).into(),
        (weights.padded_cols as u32).into(),
        k_per_load.into(),
        weights.codes.into(),
        (tile_rows as u32).into(),
        (k_tiles as u32).into(),
        (n_splits as u32).into(),
        (step_bytes as u32).into(),
    ];
    let mut args = [Arg::U32(0); 18];
    args[..12].copy_from_slice(&common);
    let n_args = source.arguments(&mut args[12..]);
    let kernel_name = source.kernel(kernel.order == Order::Bf16Rows);
    // A thread takes eight numbers at a time.
    let block = (weights.padded_cols as u32 / 8).next_multiple_of(32).clamp(PREPARE_THREADS_MIN, PREPARE_THREADS_MAX);
    let n_blocks = kernel.columns + bytes / 128 / block as usize;
    let shape = LaunchShape { grid: [n_blocks as u32, 1, 1], block, shared_bytes: 0 };
    cuda.launch_pdl(kernel_name, shape, &args[..12 + n_args]);
    Prepared {
        rows: workspace,
        scales: workspace.offset(at.scales),
        partials: workspace.offset(at.partials),
        n_tokens: source.n_rows,
    }
}

/// At most [`PARTS_MAX`] products of one format, of tokens `first..` of all.
fn multiply(cuda: &Cuda, kernel: &Kernel, products: &[Product<'_>], x: Prepared, first: usize) {
    let parts: [Option<Part>; PARTS_MAX] = std::array::from_fn(|i| products.get(i).map(|p| Part::of(p, first)));
    let n_rows = parts.map(|part| part.map_or(0, |part| part.weights.rows));
    let (n_sms, k_tiles) = (cuda.n_sms() as usize, products[0].weights.packed().padded_cols / 128);
    let n_splits = n_splits(n_sms, &n_rows, k_tiles);
    let n_warps = kernel.n_warps(n_sms, &n_rows, n_splits);
    let [a, b, c] = parts.map(|part| part.map_or(Part::NO_ARGS, |part| part.args()));
    let partials = if n_splits > 1 { x.partials } else { DevicePtr::NULL };
    let rest: [Arg; 6] = [
        partials.into(),
        x.rows.into(),
        x.scales.into(),
        (x.n_tokens as u32).into(),
        (k_tiles as u32).into(),
        (n_splits as u32).into(),
    ];
    // BATCH_PARAMS of batch_args.cuh.
    let mut args = [Arg::U32(0); 6 * PARTS_MAX + 6];
    for (to, from) in args.chunks_exact_mut(6).zip([a, b, c, rest]) {
        to.copy_from_slice(&from);
    }
    let grid = [kernel.n_tiles(n_warps, &n_rows) as u32, 1, n_splits as u32];
    let shape = LaunchShape { grid, block: 32 * n_warps as u32, shared_bytes: kernel.shared_bytes };
    cuda.launch_pdl(kernel.name, shape, &args);
    if n_splits > 1 {
        let all_rows = n_rows.iter().sum::<usize>() as u32;
        let grid = [all_rows.div_ceil(SUM_THREADS), x.n_tokens as u32, 1];
        cuda.launch_pdl("matmul_batch_sum", LaunchShape { grid, block: SUM_THREADS, shared_bytes: 0 }, &args);
    }
}

/// A matrix of a launch.
#[derive(Clone, Copy)]
struct Part {
    weights: Planes,
    out: DevicePtr,
    bias: DevicePtr,
}

impl Part {
    /// BATCH_PART_PARAMS of one that is not there.
    const NO_ARGS: [Arg; 6] = [
        Arg::Ptr(DevicePtr::NULL),
        Arg::Ptr(DevicePtr::NULL),
        Arg::Ptr(DevicePtr::NULL),
        Arg::Ptr(DevicePtr::NULL),
        Arg::U32(0),
        Arg::F32(0.0),
    ];

    fn of(product: &Product<'_>, first: usize) -> Part {
        let weights = Planes::of(product.weights.packed());
        let bias = product.bias.map_or(DevicePtr::NULL, |b| b.ptr());
        Part { weights, out: product.out.ptr().offset(4 * first * weights.rows), bias }
    }

    fn args(&self) -> [Arg; 6] {
        let Planes { codes, scales, rows, factor, .. } = self.weights;
        [self.out.into(), codes.into(), scales.into(), self.bias.into(), (rows as u32).into(), factor.into()]
    }
}
