//! Launch of cross_entropy.cu.

use crate::cuda::{Cuda, LaunchShape};
use crate::view::{View, ViewMut};

/// LOSS_THREADS of cross_entropy.cu.
const THREADS: u32 = 512;

pub fn forward_backward(
    cuda: &Cuda,
    logits: ViewMut<'_, f32, 2>,
    targets: View<'_, u32, 1>,
    scale: Option<f32>,
    losses: ViewMut<'_, f64, 1>,
) {
    let [rows, vocab] = logits.shape();
    // The kernel counts a row's entries in 32 bits, with room for what a block reads ahead.
    assert!(vocab < 1 << 31);
    if rows == 0 {
        return;
    }
    let shape = LaunchShape { grid: [rows as u32, 1, 1], block: THREADS, shared_bytes: 0 };
    let args = [
        logits.ptr().into(),
        targets.ptr().into(),
        losses.ptr().into(),
        (vocab as u32).into(),
        scale.unwrap_or(0.0).into(),
        u32::from(scale.is_some()).into(),
    ];
    cuda.launch("cross_entropy_rows", shape, &args);
}
