//! Launches of the embedding lookup, a thread a value, and of its backward pass.

use crate::cuda::{Cuda, DevicePtr, LaunchShape};
use crate::formats::Format;
use crate::matrix::Matrix;
use crate::step::Step;
use crate::view::{View, ViewMut};

const THREADS: u32 = 256;
/// EMBEDDING_THREADS of backward.cu.
const BACKWARD_THREADS: usize = 256;
/// Columns of a thread.
const GROUP: usize = 4;

/// `tokens`: u32 (T), of the rows of `out`.
pub fn forward(cuda: &Cuda, out: ViewMut<'_, f32, 2>, table: &Matrix, tokens: DevicePtr, scale: f32) {
    let [n_rows, dim] = out.shape();
    if n_rows == 0 {
        return;
    }
    let packed = table.packed();
    let kernel = match packed.format {
        Format::Q8_0 => "embedding_q8_0",
        Format::Q4_0 => "embedding_q4_0",
        Format::NF4 => "embedding_nf4",
        Format::F32 => "embedding_f32",
        Format::F16 => "embedding_f16",
        Format::BF16 => "embedding_bf16",
        other => unreachable!("{other} is converted when it is read"),
    };
    let grid = [(dim as u32).div_ceil(THREADS), n_rows as u32, 1];
    let args = [
        out.ptr().into(),
        tokens.into(),
        packed.codes.ptr().into(),
        packed.scales.as_ref().map_or(DevicePtr::NULL, |s| s.ptr()).into(),
        (dim as u32).into(),
        packed.absmax_scale.into(),
        scale.into(),
    ];
    cuda.launch(kernel, LaunchShape { grid, block: THREADS, shared_bytes: 0 }, &args);
}

pub fn backward(cuda: &Cuda, dtable: ViewMut<'_, f32, 2>, dx: View<'_, f32, 2>, step: &Step, scale: f32) {
    let [n_rows, dim] = dx.shape();
    if dx.is_empty() {
        return;
    }
    let grid = [n_rows as u32, dim.div_ceil(GROUP * BACKWARD_THREADS) as u32, 1];
    let shape = LaunchShape { grid, block: BACKWARD_THREADS as u32, shared_bytes: 0 };
    let args = [
        dtable.ptr().into(),
        dx.ptr().into(),
        step.tokens_ptr().into(),
        (n_rows as u32).into(),
        (dim as u32).into(),
        scale.into(),
    ];
    cuda.launch("embedding_backward", shape, &args);
}
