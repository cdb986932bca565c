//! Launches of the prefill's products.

use super::plan::{padded_tokens, plan, Shape, Target, PARTIALS_BYTES_MAX};
use crate::cuda::{Arg, Cuda, DevicePtr, LaunchShape};
use crate::formats::Format;
use crate::matrix::PackedMatrix;
use crate::ops::matmul::Product;
use crate::ops::Write;
use crate::view::View;

/// Threads of the kernels of prepare.cu.
const PREPARE_THREADS: u32 = 256;
/// Tokens of the largest tile: rows of prepared activations are padded to whole tiles.
const TILE_TOKENS_MAX: usize = 256;

/// Bytes of workspace that [`forward`] needs for at most `max_rows` rows of `max_cols` columns and `max_outputs` outputs.
pub fn workspace_bytes(max_rows: usize, max_cols: usize, max_outputs: usize) -> usize {
    let at = Places::new(max_rows.next_multiple_of(TILE_TOKENS_MAX), max_cols.next_multiple_of(128));
    // The number of splits is not known without the device.
    let partials = max_rows.saturating_mul(max_outputs).saturating_mul(8 * size_of::<f32>());
    at.partials + partials.min(PARTIALS_BYTES_MAX)
}

/// Computes every product by the same rows `x`: any number of them, any format but F32. `workspace` holds
/// [`workspace_bytes`] for these shapes or larger ones, and is overwritten. `overflows` is [`Rows::overflows`].
pub fn forward(
    cuda: &Cuda,
    products: &mut [Product<'_>],
    x: View<'_, f32, 2>,
    workspace: DevicePtr,
    overflows: DevicePtr,
) {
    let [n_tokens, cols] = x.shape();
    let mut prepared: Option<(bool, Prepared)> = None;
    for product in products {
        let weights = Planes::of(product.weights.packed());
        let is_bf16 = has_bf16(cuda, weights.format);
        let rows = match prepared {
            Some((kind, rows)) if kind == is_bf16 => rows,
            _ => {
                let rows = Rows { x: x.ptr(), n_tokens, cols, stride: cols, is_bf16, overflows };
                rows.prepare(cuda, workspace)
            }
        };
        prepared = Some((is_bf16, rows));
        let call = Call::put(product);
        multiply(cuda, weights, rows, call);
    }
}

/// True when activations meet weights of this format as bf16.
pub fn has_bf16(cuda: &Cuda, format: Format) -> bool {
    format == Format::BF16 && cuda.arch() >= 80
}

/// Weights as the kernels read them.
#[derive(Clone, Copy)]
pub struct Planes {
    pub format: Format,
    pub rows: usize,
    pub padded_cols: usize,
    pub codes: DevicePtr,
    pub scales: DevicePtr,
    /// What every product is multiplied by.
    pub factor: f32,
}

impl Planes {
    pub fn of(weights: &PackedMatrix) -> Planes {
        Planes {
            format: weights.format,
            rows: weights.rows,
            padded_cols: weights.padded_cols,
            codes: weights.codes.ptr(),
            scales: weights.scales.as_ref().map_or(DevicePtr::NULL, |s| s.ptr()),
            factor: weights.absmax_scale,
        }
    }
}

/// Where the parts of the workspace begin, in bytes: rows of 16-bit floats, their scales, the split-K partials.
pub struct Places {
    pub padded_tokens: usize,
    pub scales: usize,
    pub partials: usize,
}

impl Places {
    pub fn new(padded_tokens: usize, padded_cols: usize) -> Self {
        let scales = padded_tokens * padded_cols * 2;
        Places { padded_tokens, scales, partials: (scales + padded_tokens * size_of::<f32>()).next_multiple_of(256) }
    }

    /// For any number of tokens up to this one, on any device.
    pub fn at_most(max_rows: usize, cols: usize) -> Self {
        Places::new(max_rows.next_multiple_of(TILE_TOKENS_MAX), cols.next_multiple_of(128))
    }

    /// Bytes with so many of split-K partials.
    pub fn end(&self, partials_bytes: usize) -> usize {
        self.partials + partials_bytes
    }
}

/// Activations: some columns of an array whose rows lie `stride` numbers apart.
#[derive(Clone, Copy)]
pub struct Rows {
    pub x: DevicePtr,
    pub n_tokens: usize,
    pub cols: usize,
    pub stride: usize,
    pub is_bf16: bool,
    /// A u32 that counts the rows that f16 cannot hold, which have an infinity or NaN; null to count nothing.
    pub overflows: DevicePtr,
}

/// The same as 16-bit floats, in a workspace whose end takes split-K partials.
#[derive(Clone, Copy)]
pub struct Prepared {
    pub rows: DevicePtr,
    pub scales: DevicePtr,
    pub partials: DevicePtr,
    pub n_tokens: usize,
}

impl Rows {
    /// Writes them to the start of `workspace`.
    pub fn prepare(&self, cuda: &Cuda, workspace: DevicePtr) -> Prepared {
        let padded_cols = self.cols.next_multiple_of(128);
        let at = Places::new(padded_tokens(cuda.arch(), self.n_tokens), padded_cols);
        let kernel = if self.is_bf16 { "matmul_prepare_bf16" } else { "matmul_prepare_f16" };
        let shape = LaunchShape { grid: [at.padded_tokens as u32, 1, 1], block: PREPARE_THREADS, shared_bytes: 0 };
        let args: [Arg; 8] = [
            workspace.into(),
            workspace.offset(at.scales).into(),
            self.x.into(),
            (self.n_tokens as u32).into(),
            (self.cols as u32).into(),
            (padded_cols as u32).into(),
            (self.stride as u32).into(),
            self.overflows.into(),
        ];
        cuda.launch(kernel, shape, &args);
        Prepared {
            rows: workspace,
            scales: workspace.offset(at.scales),
            partials: workspace.offset(at.partials),
            n_tokens: self.n_tokens,
        }
    }
}

/// Where a product goes.
pub struct Call {
    /// (T, N).
    pub out: DevicePtr,
    /// (N).
    pub bias: Option<DevicePtr>,
    pub write: Write,
    /// Bytes for split-K partials.
    pub partials_bytes: usize,
}

impl Call {
    /// A product that replaces what is there, with the room that every workspace has.
    pub fn put(product: &Product<'_>) -> Call {
        Call {
            out: product.out.ptr(),
            bias: product.bias.map(|b| b.ptr()),
            write: Write::Replace,
            partials_bytes: PARTIALS_BYTES_MAX,
        }
    }
}

/// `out = x W^T + bias`, or that added to it.
pub fn multiply(cuda: &Cuda, weights: Planes, x: Prepared, call: Call) {
    let target = Target { arch: cuda.arch(), n_sms: cuda.n_sms() as usize, max_shared_bytes: cuda.max_shared_bytes() };
    let shape =
        Shape { format: weights.format, n_tokens: x.n_tokens, n_rows: weights.rows, padded_cols: weights.padded_cols };
    let plan = plan(target, shape, call.write == Write::Add, call.partials_bytes);
    let partials = if plan.is_split { x.partials } else { DevicePtr::NULL };
    let args = product_args(weights, x, &call, partials, plan.n_splits);
    let grid = [plan.n_tiles(shape) as u32, 1, if plan.is_split { plan.n_splits as u32 } else { 1 }];
    cuda.launch(plan.kernel, LaunchShape { grid, block: plan.tile.threads, shared_bytes: plan.shared_bytes }, &args);
    if plan.is_split {
        add_splits(cuda, plan.n_splits, weights, x, &call);
    }
}

/// PREFILL_PARAMS of epilogue.cuh. Null `partials`: a block goes through all splits.
fn product_args(weights: Planes, x: Prepared, call: &Call, partials: DevicePtr, n_splits: usize) -> [Arg; 13] {
    [
        call.out.into(),
        partials.into(),
        x.rows.into(),
        x.scales.into(),
        weights.codes.into(),
        weights.scales.into(),
        call.bias.unwrap_or(DevicePtr::NULL).into(),
        (x.n_tokens as u32).into(),
        (weights.rows as u32).into(),
        (weights.padded_cols as u32 / 128).into(),
        (n_splits as u32).into(),
        weights.factor.into(),
        u32::from(call.write == Write::Add).into(),
    ]
}

/// The second kernel of a product whose splits had blocks of their own.
fn add_splits(cuda: &Cuda, n_splits: usize, weights: Planes, x: Prepared, call: &Call) {
    let (n_tokens, n_rows) = (x.n_tokens as u32, weights.rows as u32);
    let grid = [n_rows.div_ceil(PREPARE_THREADS), n_tokens, 1];
    let args: [Arg; 9] = [
        call.out.into(),
        x.partials.into(),
        x.scales.into(),
        call.bias.unwrap_or(DevicePtr::NULL).into(),
        n_tokens.into(),
        n_rows.into(),
        (n_splits as u32).into(),
        weights.factor.into(),
        u32::from(call.write == Write::Add).into(),
    ];
    cuda.launch("matmul_reduce_splits", LaunchShape { grid, block: PREPARE_THREADS, shared_bytes: 0 }, &args);
}
