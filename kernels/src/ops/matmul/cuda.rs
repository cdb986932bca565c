//! Launches of the matrix products.

use super::{Gated, Input, Product, Scratch};
use crate::cuda::Cuda;

/// Bytes of the workspace.
pub fn workspace_bytes(_max_rows: usize, _max_cols: usize, _max_outputs: usize) -> usize {
    unimplemented!()
}

pub fn forward(_cuda: &Cuda, _products: &mut [Product<'_>], _input: Input<'_>, _scratch: &mut Scratch) {
    unimplemented!()
}

pub fn forward_gated(_cuda: &Cuda, _g: Gated<'_>, _input: Input<'_>, _scratch: &mut Scratch) {
    unimplemented!()
}
