//! Launches of the prefill's products.

use super::plan::{padded_tokens, plan, Plan, Shape, Target, PARTIALS_BYTES_MAX};
use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape, PackedMatrix};
use crate::formats::Format;
use crate::ops::matmul::Product;
use crate::view::View;

/// Threads of the kernels of prepare.cu.
const PREPARE_THREADS: u32 = 256;
/// Tokens of the largest tile: rows of prepared activations are padded to whole tiles.
const TILE_TOKENS_MAX: usize = 256;

/// Bytes of workspace that [`forward`] needs for at most `max_rows` rows of `max_cols` columns and `max_outputs` outputs.
pub fn workspace_bytes(max_rows: usize, max_cols: usize, max_outputs: usize) -> usize {
    let at = Places::new(max_rows.next_multiple_of(TILE_TOKENS_MAX), max_cols.next_multiple_of(128));
    // The number of segments is not known without the device.
    let partials = max_rows.saturating_mul(max_outputs).saturating_mul(8 * size_of::<f32>());
    at.partials + partials.min(PARTIALS_BYTES_MAX)
}

/// Computes every product by the same rows `x`: any number of them, any format but F32. `workspace` holds
/// [`workspace_bytes`] for these shapes or larger ones, and is overwritten.
pub fn forward(cuda: &Cuda, products: &mut [Product<'_>], x: View<'_, f32, 2>, workspace: DevicePtr) {
    let [n_tokens, _] = x.shape();
    let target = Target { arch: cuda.arch(), n_sms: cuda.n_sms() as usize, max_shared_bytes: cuda.max_shared_bytes() };
    let mut prepared = None;
    for product in products {
        let weights = product.weights.packed();
        let rows = Rows { x, is_bf16: weights.format == Format::BF16 && target.arch >= 80 };
        let at = Places::new(padded_tokens(target.arch, n_tokens), weights.padded_cols);
        if prepared != Some(rows.is_bf16) {
            rows.prepare(cuda, weights.padded_cols, workspace, &at);
            prepared = Some(rows.is_bf16);
        }
        let shape = Shape { format: weights.format, n_tokens, n_rows: weights.rows, padded_cols: weights.padded_cols };
        multiply(cuda, plan(target, shape), shape, product, workspace, &at);
    }
}

/// Where the parts of the workspace begin, in bytes: rows of 16-bit floats, their scales, the sums of segments.
struct Places {
    padded_tokens: usize,
    scales: usize,
    partials: usize,
}

impl Places {
    fn new(padded_tokens: usize, padded_cols: usize) -> Self {
        let scales = padded_tokens * padded_cols * 2;
        Places { padded_tokens, scales, partials: (scales + padded_tokens * size_of::<f32>()).next_multiple_of(256) }
    }
}

#[derive(Clone, Copy)]
struct Rows<'a> {
    x: View<'a, f32, 2>,
    is_bf16: bool,
}

impl Rows<'_> {
    fn prepare(&self, cuda: &Cuda, padded_cols: usize, workspace: DevicePtr, at: &Places) {
        let [n_tokens, cols] = self.x.shape();
        let kernel = if self.is_bf16 { "matmul_prepare_bf16" } else { "matmul_prepare_f16" };
        let shape = LaunchShape { grid: [at.padded_tokens as u32, 1, 1], block: PREPARE_THREADS, shared_bytes: 0 };
        let args: [Arg; 6] = [
            workspace.into(),
            workspace.offset(at.scales).into(),
            self.x.ptr().into(),
            (n_tokens as u32).into(),
            (cols as u32).into(),
            (padded_cols as u32).into(),
        ];
        cuda.launch(kernel, shape, &args);
    }
}

fn multiply(cuda: &Cuda, plan: Plan, shape: Shape, product: &mut Product<'_>, workspace: DevicePtr, at: &Places) {
    let weights: &PackedMatrix = product.weights.packed();
    let (out, x_scales) = (product.out.ptr(), workspace.offset(at.scales));
    let bias = product.bias.map_or(DevicePtr::NULL, |b| b.ptr());
    let scales = weights.scales.as_ref().map_or(DevicePtr::NULL, |s| s.ptr());
    let partials = if plan.is_split { workspace.offset(at.partials) } else { DevicePtr::NULL };
    let (n_tokens, n_rows, n_segments) = (shape.n_tokens as u32, shape.n_rows as u32, plan.n_segments as u32);
    let args: [Arg; 12] = [
        out.into(),
        partials.into(),
        workspace.into(),
        x_scales.into(),
        weights.codes.ptr().into(),
        scales.into(),
        bias.into(),
        n_tokens.into(),
        n_rows.into(),
        (shape.padded_cols as u32 / 128).into(),
        n_segments.into(),
        weights.absmax_scale.into(),
    ];
    let grid = [plan.n_tiles(shape) as u32, 1, if plan.is_split { n_segments } else { 1 }];
    cuda.launch(plan.kernel, LaunchShape { grid, block: plan.tile.threads, shared_bytes: plan.shared_bytes }, &args);
    if plan.is_split {
        let grid = [n_rows.div_ceil(PREPARE_THREADS), n_tokens, 1];
        let args: [Arg; 8] = [
            out.into(),
            partials.into(),
            x_scales.into(),
            bias.into(),
            n_tokens.into(),
            n_rows.into(),
            n_segments.into(),
            weights.absmax_scale.into(),
        ];
        cuda.launch("matmul_reduce_segments", LaunchShape { grid, block: PREPARE_THREADS, shared_bytes: 0 }, &args);
    }
}
