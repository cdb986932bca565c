//! The matrix products of a GPU: a few rows stream the weights past them (decode), many multiply tiles (prefill).

use super::{decode, Gated, Input, Product, Scratch};
use crate::cuda::Cuda;
use crate::formats::Format;

/// Bytes of the workspace.
pub fn workspace_bytes(_max_rows: usize, _max_cols: usize, _max_outputs: usize) -> usize {
    0
}

pub fn forward(cuda: &Cuda, products: &mut [Product<'_>], input: Input<'_>, _scratch: &mut Scratch) {
    decode::cuda::forward(cuda, products, input);
}

pub fn forward_gated(cuda: &Cuda, g: Gated<'_>, input: Input<'_>, _scratch: &mut Scratch) {
    decode::cuda::forward_gated(cuda, g, input);
}

#[allow(dead_code)]
fn is_decode(n_rows: usize, format: Format) -> bool {
    n_rows <= decode::cuda::COLUMNS_MAX || format == Format::F32
}
