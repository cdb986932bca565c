//! Launches of the kernels of batches.

use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape};
use crate::formats::Format;
use crate::ops::matmul::prefill::cuda::{has_bf16, Places, Planes, Prepared};
use crate::ops::matmul::prefill::plan::{padded_tokens, PARTIALS_BYTES_MAX};
use crate::ops::matmul::{decode, Input, Product};
use crate::view::View;

/// Rows of `x` that are multiplied by one reading of the weights.
const COLUMNS_MAX: usize = 64;
/// BATCH_PARTS of batch_args.cuh: matrices of a launch.
const PARTS_MAX: usize = 3;
/// Weight rows of a warp.
const WARP_ROWS: usize = 32;
/// Most segments of K, and the shortest, in tiles of 128.
const SEGMENTS_MAX: usize = 8;
const SEGMENT_TILES_MIN: usize = 4;
/// Bytes of a row of `x` of one step in shared memory.
const X_STRIDE: u32 = 320;
/// The levels of every byte of NF4 codes, for each lane.
const NF4_TABLE_BYTES: u32 = 256 * 32 * 4;
const SUM_THREADS: u32 = 256;
const PREPARE_THREADS: u32 = 256;
/// Of weights that are asked for before their product begins: an H200 reads so much in 2 us, the time between two launches,
/// and has six times that in its second-level cache; a board with one memory has 4 MB of it.
const PREFETCH_BYTES: [usize; 2] = [8 << 20, 1 << 20];

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

fn forward_columns(cuda: &Cuda, products: &[Product<'_>], x: View<'_, f32, 2>, workspace: DevicePtr) {
    let [n_rows, cols] = x.shape();
    for first in (0..n_rows).step_by(COLUMNS_MAX) {
        let n_tokens = COLUMNS_MAX.min(n_rows - first);
        let mut prepared: Option<(bool, Prepared)> = None;
        for run in products.chunk_by(|a, b| a.weights.format() == b.weights.format()) {
            let is_bf16 = has_bf16(cuda, run[0].weights.format());
            let rows = match prepared {
                Some((kind, rows)) if kind == is_bf16 => rows,
                _ => {
                    let x = x.ptr().offset(4 * first * cols);
                    prepare(cuda, x, [n_tokens, cols], &run[..run.len().min(PARTS_MAX)], workspace)
                }
            };
            prepared = Some((is_bf16, rows));
            for run in run.chunks(PARTS_MAX) {
                multiply(cuda, run, rows, first);
            }
        }
    }
}

/// Rows `x` (T, K) as 16-bit floats at the start of `workspace`. While they become that, the first weights of `next`, which
/// will be multiplied by them first, are on their way.
fn prepare(
    cuda: &Cuda,
    x: DevicePtr,
    [n_tokens, cols]: [usize; 2],
    next: &[Product<'_>],
    workspace: DevicePtr,
) -> Prepared {
    let (format, weights) = (next[0].weights.format(), Planes::of(next[0].weights.packed()));
    let k_tiles = weights.padded_cols / 128;
    let n_rows: [usize; PARTS_MAX] = std::array::from_fn(|i| next.get(i).map_or(0, |p| p.weights.rows()));
    let n_segments = Cut::of(format, cuda.n_sms() as usize, &n_rows, k_tiles).n_segments;
    let (unit_rows, step_bytes) = match format {
        Format::Q8_0 => (4, 512),
        Format::Q4_0 | Format::NF4 => (8, 512),
        _ => (1, 256),
    };
    let tile_rows = weights.rows.div_ceil(unit_rows);
    let bytes = PREFETCH_BYTES[usize::from(cuda.info().is_integrated)].min(tile_rows * k_tiles * step_bytes);
    let at = Places::new(padded_tokens(cuda.arch(), n_tokens), weights.padded_cols);
    let kernel = match has_bf16(cuda, format) {
        true => "matmul_batch_prepare_bf16",
        false => "matmul_batch_prepare_f16",
    };
    let n_blocks = at.padded_tokens + bytes / 128 / PREPARE_THREADS as usize;
    let args: [Arg; 12] = [
        workspace.into(),
        workspace.offset(at.scales).into(),
        x.into(),
        (n_tokens as u32).into(),
        (at.padded_tokens as u32).into(),
        (cols as u32).into(),
        (weights.padded_cols as u32).into(),
        weights.codes.into(),
        (tile_rows as u32).into(),
        (k_tiles as u32).into(),
        (n_segments as u32).into(),
        (step_bytes as u32).into(),
    ];
    cuda.launch(kernel, LaunchShape { grid: [n_blocks as u32, 1, 1], block: PREPARE_THREADS, shared_bytes: 0 }, &args);
    Prepared { rows: workspace, scales: workspace.offset(at.scales), partials: workspace.offset(at.partials), n_tokens }
}

/// At most [`PARTS_MAX`] products of one format, of tokens `first..` of all.
fn multiply(cuda: &Cuda, products: &[Product<'_>], x: Prepared, first: usize) {
    let parts: [Option<Part>; PARTS_MAX] = std::array::from_fn(|i| products.get(i).map(|p| Part::of(p, first)));
    let n_rows = parts.map(|part| part.map_or(0, |part| part.weights.rows));
    let (format, k_tiles) = (products[0].weights.format(), products[0].weights.packed().padded_cols / 128);
    let cut = Cut::of(format, cuda.n_sms() as usize, &n_rows, k_tiles);
    let kernel = Kernel::of(format, x.n_tokens, cut.n_warps);
    let [a, b, c] = parts.map(|part| part.map_or(Part::NO_ARGS, |part| part.args()));
    let partials = if cut.n_segments > 1 { x.partials } else { DevicePtr::NULL };
    let rest: [Arg; 6] = [
        partials.into(),
        x.rows.into(),
        x.scales.into(),
        (x.n_tokens as u32).into(),
        (k_tiles as u32).into(),
        (cut.n_segments as u32).into(),
    ];
    // BATCH_PARAMS of batch_args.cuh.
    let mut args = [Arg::U32(0); 6 * PARTS_MAX + 6];
    for (to, from) in args.chunks_exact_mut(6).zip([a, b, c, rest]) {
        to.copy_from_slice(&from);
    }
    let (block, shared_bytes) = (32 * cut.n_warps as u32, kernel.shared_bytes);
    let grid = [cut.n_tiles as u32, 1, cut.n_segments as u32];
    cuda.launch(kernel.name, LaunchShape { grid, block, shared_bytes }, &args);
    if cut.n_segments > 1 {
        let all_rows = n_rows.iter().sum::<usize>() as u32;
        let grid = [all_rows.div_ceil(SUM_THREADS), x.n_tokens as u32, 1];
        cuda.launch("matmul_batch_sum", LaunchShape { grid, block: SUM_THREADS, shared_bytes: 0 }, &args);
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

/// How the blocks of a launch share its matrices: by these and the device alone, so that a token's sums do not depend on how
/// many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cut {
    /// Of a block: eight where they fill the device, since they share rows of `x`; else four. Weights of sixteen bits leave
    /// shared memory for four.
    n_warps: usize,
    /// Tiles of so many warps' rows, of all matrices.
    n_tiles: usize,
    n_segments: usize,
}

impl Cut {
    fn of(format: Format, n_sms: usize, n_rows: &[usize], k_tiles: usize) -> Cut {
        let n_tiles = |n_warps: usize| n_rows.iter().map(|n| n.div_ceil(n_warps * WARP_ROWS)).sum::<usize>();
        let most = Cut::segments_max(n_rows, k_tiles);
        let is_wide = !is_plain(format) && 4 * n_tiles(8) * most >= 3 * 2 * n_sms;
        let n_warps = if is_wide { 8 } else { 4 };
        // Of the larger blocks two run on a processor, of the smaller three.
        let slots = n_sms * if is_wide { 2 } else { 3 };
        let n_segments = (slots / n_tiles(n_warps)).clamp(1, most);
        Cut { n_warps, n_tiles: n_tiles(n_warps), n_segments }
    }

    /// Sums of segments fit the room that every workspace has: eight segments of the largest of the matrices, or
    /// [`PARTIALS_BYTES_MAX`] where that is less.
    fn segments_max(n_rows: &[usize], k_tiles: usize) -> usize {
        let (all, largest) = (n_rows.iter().sum::<usize>().max(1), n_rows.iter().copied().max().unwrap_or(1));
        let by_room = (SEGMENTS_MAX * largest / all).min(PARTIALS_BYTES_MAX / (4 * COLUMNS_MAX * all));
        by_room.min(k_tiles / SEGMENT_TILES_MIN).max(1)
    }
}

fn is_plain(format: Format) -> bool {
    matches!(format, Format::F16 | Format::BF16)
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
    fn of(format: Format, n_tokens: usize, n_warps: usize) -> Kernel {
        let index = [8, 16, 32, 64].iter().position(|n| n_tokens <= *n).expect("at most COLUMNS_MAX");
        let columns = 8u32 << index;
        // Names; bytes of codes and scales of a warp's step; stages.
        let (names, warp_bytes, stages) = match format {
            Format::Q8_0 => (names!("q8_0"), 4096 + 256, [3, 2, 2, 3]),
            Format::Q4_0 => (names!("q4_0"), 2048 + 256, [4, 4, 3, 4]),
            Format::NF4 => (names!("nf4"), 2048 + 256, [3, 3, 2, 3]),
            Format::F16 => (names!("f16"), 8192, [3, 3, 2, 2]),
            Format::BF16 => (names!("bf16"), 8192, [3, 3, 2, 2]),
            other => panic!("{other} has no kernel for batches"),
        };
        let table = if format == Format::NF4 { NF4_TABLE_BYTES } else { 0 };
        let stage = n_warps as u32 * warp_bytes + columns * X_STRIDE;
        Kernel { name: names[index], shared_bytes: table + stages[index] * stage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [Format; 5] = [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16];

    #[test]
    fn one_block_of_any_fits_an_orins_processor_and_two_an_h200s_but_for_quantised_weights_and_64_columns() {
        for format in FORMATS {
            for n_tokens in [1, 8, 9, 16, 17, 32, 33, 64] {
                let kernel = Kernel::of(format, n_tokens, if is_plain(format) { 4 } else { 8 });
                let is_alone = !is_plain(format) && n_tokens > 32;
                // A kilobyte of each block is the driver's.
                let limit = if is_alone { 163 << 10 } else { 113 << 10 };
                assert!(kernel.shared_bytes <= limit, "{}: {}", kernel.name, kernel.shared_bytes);
            }
        }
    }

    #[test]
    fn sums_of_segments_fit_the_workspace_and_no_segment_is_empty() {
        let matrices: [(&[usize], usize); 8] = [
            (&[1], 128),
            (&[1024, 256, 256], 1152),
            (&[6912, 6912], 1152),
            (&[3584, 512, 512], 3584),
            (&[8192, 1024, 1024], 8192),
            (&[29568, 29568], 8192),
            (&[8192], 29568),
            (&[152_064], 8192),
        ];
        for n_sms in [8, 108, 132] {
            for (n_rows, cols) in matrices {
                for format in FORMATS {
                    let cut = Cut::of(format, n_sms, n_rows, cols / 128);
                    let (all, largest) = (n_rows.iter().sum::<usize>(), *n_rows.iter().max().unwrap());
                    let bytes = |n_tokens: usize| cut.n_segments * n_tokens * all * 4;
                    let case = format!("{format} {n_sms} {n_rows:?} {cols}: {cut:?}");
                    assert!(cut.n_segments == 1 || bytes(64) <= PARTIALS_BYTES_MAX, "{case}");
                    assert!(cut.n_segments == 1 || bytes(1) <= largest * 8 * 4, "{case}");
                    assert!(cut.n_segments <= cols / 128, "{case}");
                }
            }
        }
    }

    #[test]
    fn what_meets_the_same_rows_fills_a_large_device() {
        // 72B's q, k and v have 40 tiles of 256 rows.
        let cut = Cut::of(Format::NF4, 132, &[8192, 1024, 1024], 64);
        assert_eq!(cut, Cut { n_warps: 8, n_tiles: 40, n_segments: 6 });
        let cut = Cut::of(Format::NF4, 132, &[29568, 29568], 64);
        assert_eq!(cut, Cut { n_warps: 8, n_tiles: 232, n_segments: 1 });
    }
}
