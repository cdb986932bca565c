//! The matrix products of a GPU: a few rows stream the weights past them (decode), many multiply tiles (prefill).

use super::{decode, prefill, with_rows, Family, Gated, Input, Product, Scratch};
use crate::cuda::Cuda;
use crate::device::Device;
use crate::formats::Format;
use crate::ops::activation;

/// Bytes of the workspace: the prefill's alone.
pub fn workspace_bytes(max_rows: usize, max_cols: usize, max_outputs: usize) -> usize {
    prefill::cuda::workspace_bytes(max_rows, max_cols, max_outputs)
}

pub fn forward(cuda: &Cuda, products: &mut [Product<'_>], input: Input<'_>, scratch: &mut Scratch) {
    let [n_rows, _] = input.shape();
    if n_rows <= decode::cuda::COLUMNS_MAX || scratch.family == Family::Decode {
        return decode::cuda::forward(cuda, products, input);
    }
    let workspace = scratch.workspace.as_ref().expect("a scratch of this device").ptr();
    with_rows(&Device::Cuda(cuda.clone()), input, |x| {
        // F32 weights keep f32 activations: eight rows at a time.
        for run in products.chunk_by_mut(|a, b| is_f32(a) == is_f32(b)) {
            match is_f32(&run[0]) {
                true => decode::cuda::forward(cuda, run, Input::Rows(x)),
                false => prefill::cuda::forward(cuda, run, x, workspace),
            }
        }
    });
}

pub fn forward_gated(cuda: &Cuda, mut g: Gated<'_>, input: Input<'_>, scratch: &mut Scratch) {
    let [n_rows, _] = input.shape();
    let is_decode = n_rows <= decode::cuda::COLUMNS_MAX || scratch.family == Family::Decode;
    if is_decode && g.gate.format() == g.up.format() {
        return decode::cuda::forward_gated(cuda, g, input);
    }
    let products = &mut [
        Product { out: g.out.reborrow(), weights: g.gate, bias: None },
        Product { out: g.spare.reborrow(), weights: g.up, bias: None },
    ];
    forward(cuda, products, input, scratch);
    activation::forward(&Device::Cuda(cuda.clone()), g.activation, g.out, g.spare.as_view());
}

fn is_f32(product: &Product<'_>) -> bool {
    product.weights.format() == Format::F32
}
