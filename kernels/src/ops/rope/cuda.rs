//! Launch of rope.cu.

use super::RopeTable;
use crate::cuda::{Cuda, LaunchShape};
use crate::view::{View, ViewMut};

/// ROPE_THREADS of rope.cu.
const THREADS: usize = 128;
/// Pairs of a thread at once.
const GROUP: usize = 4;

pub fn rotate(cuda: &Cuda, x: ViewMut<'_, f32, 3>, table: &RopeTable, positions: View<'_, u32, 1>, direction: f32) {
    let [n_rows, n_heads, _] = x.shape();
    if x.is_empty() {
        return;
    }
    let n_blocks = (n_heads * table.half).div_ceil(GROUP * THREADS);
    let shape = LaunchShape { grid: [n_rows as u32, n_blocks as u32, 1], block: THREADS as u32, shared_bytes: 0 };
    let args = [
        x.ptr().into(),
        table.cos.ptr().into(),
        table.sin.ptr().into(),
        positions.ptr().into(),
        (n_heads as u32).into(),
        (table.half as u32).into(),
        direction.into(),
    ];
    cuda.launch("rope_rotate", shape, &args);
}
