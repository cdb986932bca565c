//! The backward products of a GPU: the prefill's kernels over transposes, and `gemm` in f32 where a weight has 32 bits or
//! the device no products of bf16.

use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape};
use crate::formats::Format;
use crate::matrix::{Matrix, PackedMatrix};
use crate::ops::matmul::gemm::cuda::{self as gemm, Factor, Gemm};
use crate::ops::matmul::gemm::Size;
use crate::ops::matmul::prefill::cuda::{has_bf16, multiply, Call, Places, Planes, Prepared, Rows};
use crate::ops::matmul::prefill::plan::PerFormat;
use crate::ops::matmul::Product;
use crate::ops::Write;
use crate::view::{View, ViewMut};

const THREADS: u32 = 256;
/// Rows, or tokens, of a tile of the transposing kernels.
const TILE: usize = 64;
/// Columns of a tile of matmul_transpose_rows.
const TILE_COLUMNS: usize = 32;
/// Weights are decoded once for so many tokens: a quarter faster than once for each tile of them.
const WIDEN_TOKENS_MIN: usize = 1024;
/// A transposed slab of a matrix on a device with less than [`LARGE_DEVICE_BYTES`]: Gemma 3 1B's largest matrix of a layer
/// takes 16 MiB. On a larger one the largest of Qwen 2.5 7B takes 130 MiB.
const SLAB_BYTES: usize = 24 << 20;
const SLAB_BYTES_LARGE: usize = 192 << 20;
const LARGE_DEVICE_BYTES: usize = 16 << 30;
/// Split-K partials there: gradients of weights have many outputs, and in a small model few tiles of them.
const PARTIALS_BYTES: usize = 16 << 20;
const PARTIALS_BYTES_LARGE: usize = 64 << 20;

/// The memory that these products work in.
#[derive(Clone, Copy)]
pub struct Workspace {
    pub at: DevicePtr,
    pub len: usize,
    /// Counts what f16 cannot hold.
    pub overflows: DevicePtr,
    /// What a transposed slab of a matrix may take.
    pub slab_bytes: usize,
}

/// What split-K partials may take beside slabs of this size.
fn partials_bytes(slab_bytes: usize) -> usize {
    match slab_bytes >= SLAB_BYTES_LARGE {
        true => PARTIALS_BYTES_LARGE,
        false => PARTIALS_BYTES,
    }
}

/// What a transposed slab may take on a device with this much memory.
pub fn slab_bytes(device_bytes: usize) -> usize {
    match device_bytes >= LARGE_DEVICE_BYTES {
        true => SLAB_BYTES_LARGE,
        false => SLAB_BYTES,
    }
}

/// The largest shapes of a product in training: T rows of K inputs and N outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub rows: usize,
    pub inputs: usize,
    pub outputs: usize,
}

/// Bytes of the workspace for every product of these extents, on a device that multiplies bf16 or does not. `trained` is the
/// format of all weights where gradients of weights are among them.
pub fn workspace_bytes(extents: &[Extent], trained: Option<Format>, has_bf16: bool, slab_bytes: usize) -> usize {
    // Products in f32 alone: nothing is rounded or transposed on the way.
    if trained == Some(Format::F32) {
        return if extents.is_empty() { 0 } else { gemm::PARTIALS_BYTES_MAX };
    }
    let one = |e: &Extent| {
        let partials = partials_bytes(slab_bytes);
        let mut forward = Places::at_most(e.rows, e.inputs).end(partials);
        let wide = 2 * e.outputs * e.inputs.next_multiple_of(128);
        if e.rows >= WIDEN_TOKENS_MIN && wide <= slab_bytes {
            forward += wide;
        }
        let slab = slab_rows(e.inputs, e.outputs, slab_bytes);
        let input = Places::at_most(e.rows, slab).end(partials) + 2 * e.inputs * slab.next_multiple_of(128);
        let mut most = forward.max(input).max(gemm::PARTIALS_BYTES_MAX);
        if trained.is_some() && has_bf16 {
            let tokens = e.rows.next_multiple_of(128);
            most = most.max(Places::at_most(e.outputs, tokens).end(partials) + 2 * e.inputs * tokens);
        }
        most
    };
    extents.iter().map(one).max().unwrap_or(0)
}

/// True when gradients of weights that are not F32 are products of bf16.
pub fn gradients_are_bf16(cuda: &Cuda) -> bool {
    cuda.arch() >= 80
}

/// Rows of a matrix (outputs, inputs) whose transpose fits: all, or a multiple of 128.
fn slab_rows(inputs: usize, outputs: usize, slab_bytes: usize) -> usize {
    let fit = slab_bytes / (2 * inputs) / 128 * 128;
    outputs.min(fit.max(128))
}

/// True when [`forward_widened`] is worth it and has room.
pub fn is_widened(cuda: &Cuda, product: &Product<'_>, n_tokens: usize, room: Workspace) -> bool {
    let weights = product.weights.packed();
    let is_quantised = matches!(weights.format, Format::Q8_0 | Format::Q4_0 | Format::NF4);
    let end = Places::at_most(n_tokens, weights.cols).end(partials_bytes(room.slab_bytes))
        + 2 * weights.rows * weights.padded_cols;
    cuda.arch() >= 80 && n_tokens >= WIDEN_TOKENS_MIN && is_quantised && end <= room.len
}

/// Forward: weights that are decoded for many tokens are decoded once. The same bits as the prefill's.
pub fn forward_widened(cuda: &Cuda, products: &mut [Product<'_>], x: View<'_, f32, 2>, room: Workspace) {
    let [n_tokens, cols] = x.shape();
    let overflows = room.overflows;
    let rows = Rows { x: x.ptr(), n_tokens, cols, stride: cols, is_bf16: false, overflows }.prepare(cuda, room.at);
    let wide = room.at.offset(Places::at_most(n_tokens, cols).end(partials_bytes(room.slab_bytes)));
    for product in products {
        let weights = product.weights.packed();
        let loads = weights.rows * weights.padded_cols / if weights.format == Format::Q8_0 { 16 } else { 32 };
        let grid = [loads.div_ceil(THREADS as usize) as u32, 1, 1];
        let planes = Planes::of(weights);
        let args: [Arg; 5] = [
            wide.into(),
            planes.codes.into(),
            planes.scales.into(),
            (weights.rows as u32).into(),
            (weights.padded_cols as u32 / 128).into(),
        ];
        cuda.launch(WIDEN.of(weights.format), LaunchShape { grid, block: THREADS, shared_bytes: 0 }, &args);
        let planes = Planes { format: Format::F16, codes: wide, scales: DevicePtr::NULL, ..planes };
        multiply(cuda, planes, rows, Call::put(product));
    }
}

/// Forward with F32 weights, in f32.
pub fn forward_f32(cuda: &Cuda, product: &mut Product<'_>, x: View<'_, f32, 2>) {
    let ([rows, terms], weights) = (x.shape(), product.weights.packed());
    let (a, b) = (Factor::rows(x.ptr(), terms), Factor::transposed(weights.codes.ptr(), weights.padded_cols));
    let bias = product.bias.map(|b| b.ptr());
    let gemm = Gemm::new(product.out.ptr(), a, b, Size { rows, terms, columns: weights.rows });
    Gemm { is_exact: true, bias, ..gemm }.launch(cuda);
}

/// `dx` (T, K) from `dy` (T, N).
pub fn input(
    cuda: &Cuda,
    dx: ViewMut<'_, f32, 2>,
    dy: View<'_, f32, 2>,
    weights: &Matrix,
    write: Write,
    room: Workspace,
) {
    let ([n_tokens, outputs], weights) = (dy.shape(), weights.packed());
    if n_tokens == 0 {
        return;
    }
    if weights.format == Format::F32 {
        let (a, b) = (Factor::rows(dy.ptr(), outputs), Factor::rows(weights.codes.ptr(), weights.padded_cols));
        let gemm = Gemm::new(dx.ptr(), a, b, Size { rows: n_tokens, terms: outputs, columns: weights.cols });
        assert!(room.len >= gemm::PARTIALS_BYTES_MAX, "a scratch for these products");
        return Gemm { is_exact: true, write, partials: Some(room.at), ..gemm }.launch(cuda);
    }
    let slab = slab_rows(weights.cols, outputs, room.slab_bytes);
    for first in (0..outputs).step_by(slab) {
        let rows = first..outputs.min(first + slab);
        let write = if first == 0 { write } else { Write::Add };
        let is_bf16 = has_bf16(cuda, weights.format);
        let at = dy.ptr().offset(4 * rows.start);
        let overflows = room.overflows;
        let gradients = Rows { x: at, n_tokens, cols: rows.len(), stride: outputs, is_bf16, overflows };
        let prepared = gradients.prepare(cuda, room.at);
        let places = Places::at_most(n_tokens, rows.len());
        let stride = rows.len().next_multiple_of(128);
        let partials_bytes = partials_bytes(room.slab_bytes);
        let end = places.end(partials_bytes);
        assert!(end + 2 * weights.cols * stride <= room.len, "a scratch for these products");
        let transposed = transpose(cuda, weights, rows, room.at.offset(end), overflows);
        multiply(cuda, transposed, prepared, Call { out: dx.ptr(), bias: None, write, partials_bytes });
    }
}

/// Rows `rows` of a matrix, transposed: F16, or BF16 where its products are.
fn transpose(
    cuda: &Cuda,
    weights: &PackedMatrix,
    rows: std::ops::Range<usize>,
    to: DevicePtr,
    overflows: DevicePtr,
) -> Planes {
    let padded_cols = rows.len().next_multiple_of(128);
    let planes = Planes::of(weights);
    let k_tiles = weights.padded_cols / 128;
    let grid = [(padded_cols / TILE) as u32, k_tiles as u32, 1];
    let args: [Arg; 9] = [
        to.into(),
        planes.codes.into(),
        planes.scales.into(),
        (rows.start as u32).into(),
        (rows.end as u32).into(),
        (weights.cols as u32).into(),
        (k_tiles as u32).into(),
        (padded_cols as u32).into(),
        overflows.into(),
    ];
    cuda.launch(TRANSPOSE.of(weights.format), LaunchShape { grid, block: THREADS, shared_bytes: 0 }, &args);
    let format = if has_bf16(cuda, weights.format) { Format::BF16 } else { Format::F16 };
    Planes { format, rows: weights.cols, padded_cols, codes: to, scales: DevicePtr::NULL, factor: planes.factor }
}

/// `dw` (N, K) `+=` from `dy` (T, N) and `x` (T, K); as bf16 for weights that are not F32.
pub fn weight(
    cuda: &Cuda,
    dw: ViewMut<'_, f32, 2>,
    dy: View<'_, f32, 2>,
    x: View<'_, f32, 2>,
    format: Format,
    room: Workspace,
) {
    let ([n_tokens, outputs], [_, inputs]) = (dy.shape(), x.shape());
    if n_tokens == 0 {
        return;
    }
    if !gradients_are_bf16(cuda) || format == Format::F32 {
        assert!(room.len >= gemm::PARTIALS_BYTES_MAX, "a scratch for gradients of weights");
        let (a, b) = (Factor::transposed(dy.ptr(), outputs), Factor::rows(x.ptr(), inputs));
        let gemm = Gemm::new(dw.ptr(), a, b, Size { rows: outputs, terms: n_tokens, columns: inputs });
        let partials = Some(room.at);
        return Gemm { is_exact: true, write: Write::Add, partials, ..gemm }.launch(cuda);
    }
    let tokens = n_tokens.next_multiple_of(128);
    let places = Places::at_most(outputs, tokens);
    let partials_bytes = partials_bytes(room.slab_bytes);
    let end = places.end(partials_bytes);
    assert!(end + 2 * inputs * tokens <= room.len, "a scratch for gradients of weights");
    let (scales, partials) = (room.at.offset(places.scales), room.at.offset(places.partials));
    transpose_rows(cuda, room.at, scales, dy, places.padded_tokens, tokens);
    let codes = room.at.offset(end);
    transpose_rows(cuda, codes, DevicePtr::NULL, x, inputs, tokens);
    let prepared = Prepared { rows: room.at, scales, partials, n_tokens: outputs };
    let planes =
        Planes { format: Format::BF16, rows: inputs, padded_cols: tokens, codes, scales: DevicePtr::NULL, factor: 1.0 };
    multiply(cuda, planes, prepared, Call { out: dw.ptr(), bias: None, write: Write::Add, partials_bytes });
}

/// `x` (T, C) as bf16 (rows, stride), rows from C on zero.
fn transpose_rows(cuda: &Cuda, to: DevicePtr, scales: DevicePtr, x: View<'_, f32, 2>, rows: usize, stride: usize) {
    let [n_tokens, cols] = x.shape();
    let grid = [(stride / TILE) as u32, rows.div_ceil(TILE_COLUMNS) as u32, 1];
    let args: [Arg; 7] = [
        to.into(),
        scales.into(),
        x.ptr().into(),
        (n_tokens as u32).into(),
        (cols as u32).into(),
        (rows as u32).into(),
        (stride as u32).into(),
    ];
    cuda.launch("matmul_transpose_rows", LaunchShape { grid, block: THREADS, shared_bytes: 0 }, &args);
}

const TRANSPOSE: PerFormat = PerFormat {
    q8_0: "matmul_transpose_q8_0",
    q4_0: "matmul_transpose_q4_0",
    nf4: "matmul_transpose_nf4",
    f16: "matmul_transpose_f16",
    bf16: "matmul_transpose_bf16",
};
const WIDEN: PerFormat =
    PerFormat { q8_0: "matmul_widen_q8_0", q4_0: "matmul_widen_q4_0", nf4: "matmul_widen_nf4", f16: "", bf16: "" };
