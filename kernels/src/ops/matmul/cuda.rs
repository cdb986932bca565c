//! Launches of the matrix products.

use super::{prefill, Gated, Input, Product, Scratch};
use crate::cuda::Cuda;

/// Bytes of the workspace.
pub fn workspace_bytes(max_rows: usize, max_cols: usize, max_outputs: usize) -> usize {
    prefill::cuda::workspace_bytes(max_rows, max_cols, max_outputs)
}

pub fn forward(cuda: &Cuda, products: &mut [Product<'_>], input: Input<'_>, scratch: &mut Scratch) {
    let Input::Rows(x) = input else { unimplemented!() };
    let workspace = scratch.workspace.as_ref().expect("made for this device").ptr();
    prefill::cuda::forward(cuda, products, x, workspace);
}

pub fn forward_gated(_cuda: &Cuda, _g: Gated<'_>, _input: Input<'_>, _scratch: &mut Scratch) {
    unimplemented!()
}
