//! The matrix products of a GPU: a few rows stream the weights past them (decode), many multiply tiles (prefill).

use super::{backward, batch, decode, prefill, with_rows, Family, Gated, Input, Product, Scratch};
use crate::cuda::{Cuda, DevicePtr};
use crate::device::Device;
use crate::formats::Format;
use crate::ops::activation;
use crate::view::View;

pub fn forward(cuda: &Cuda, family: Family, products: &mut [Product<'_>], input: Input<'_>, scratch: &mut Scratch) {
    let ([n_rows, _], device) = (input.shape(), Device::Cuda(cuda.clone()));
    let workspace = scratch.workspace.as_ref().expect("a scratch of this device").ptr();
    if family == Family::Batch && !batch::cuda::is_decode(cuda, products) {
        if products.iter().all(|product| batch::cuda::has_kernels(cuda, product.weights.format())) {
            return batch::cuda::forward(cuda, products, input, workspace);
        }
        return with_rows(&device, input, |x| batch::cuda::forward(cuda, products, Input::Rows(x), workspace));
    }
    if n_rows <= decode::cuda::COLUMNS_MAX || family == Family::Batch {
        return match input {
            Input::Gated { .. } => with_rows(&device, input, |x| decode::cuda::forward(cuda, products, Input::Rows(x))),
            _ => decode::cuda::forward(cuda, products, input),
        };
    }
    with_rows(&device, input, |x| {
        // F32 weights keep f32 activations: eight rows at a time.
        for run in products.chunk_by_mut(|a, b| is_f32(a) == is_f32(b)) {
            match is_f32(&run[0]) {
                true => decode::cuda::forward(cuda, run, Input::Rows(x)),
                false => prefill::cuda::forward(cuda, run, x, workspace, DevicePtr::NULL),
            }
        }
    });
}

/// Weights in f32 multiply in f32, large quantised ones are decoded once.
pub fn forward_training(cuda: &Cuda, products: &mut [Product<'_>], x: View<'_, f32, 2>, scratch: &mut Scratch) {
    let [n_rows, _] = x.shape();
    if n_rows == 0 {
        return;
    }
    let room = scratch.training();
    for run in products.chunk_by_mut(|a, b| is_f32(a) == is_f32(b)) {
        if is_f32(&run[0]) {
            run.iter_mut().for_each(|product| backward::cuda::forward_f32(cuda, product, x));
        } else if run.iter().all(|product| backward::cuda::is_widened(cuda, product, n_rows, room)) {
            backward::cuda::forward_widened(cuda, run, x, room);
        } else {
            prefill::cuda::forward(cuda, run, x, room.at, room.overflows);
        }
    }
}

pub fn forward_gated<'a>(
    cuda: &Cuda,
    family: Family,
    mut g: Gated<'a>,
    input: Input<'_>,
    scratch: &mut Scratch,
) -> Input<'a> {
    let [n_rows, _] = input.shape();
    let is_of_batch = family == Family::Batch && batch::cuda::has_kernels(cuda, g.gate.format());
    let is_decode = !is_of_batch && (family == Family::Batch || n_rows <= decode::cuda::COLUMNS_MAX);
    if is_decode && g.gate.format() == g.up.format() {
        decode::cuda::forward_gated(cuda, &g, input);
        return Input::Rows(g.out.into_view());
    }
    let products = &mut [
        Product { out: g.out.reborrow(), weights: g.gate, bias: None },
        Product { out: g.spare.reborrow(), weights: g.up, bias: None },
    ];
    forward(cuda, family, products, input, scratch);
    if is_of_batch {
        return Input::Gated { gate: g.out, up: g.spare.into_view(), activation: g.activation };
    }
    activation::forward(&Device::Cuda(cuda.clone()), g.activation, g.out.reborrow(), g.spare.as_view());
    Input::Rows(g.out.into_view())
}

fn is_f32(product: &Product<'_>) -> bool {
    product.weights.format() == Format::F32
}
