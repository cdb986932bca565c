//! Launches of lora.cu.

use super::LoraPair;
use crate::cuda::{Cuda, LaunchShape};
use crate::view::{View, ViewMut};

/// LORA_WARPS, LORA_ROWS and LORA_RANK_MAX of lora.cu.
const DOWN_WARPS: usize = 4;
const UP_ROWS: usize = 4;
const RANK_MAX: usize = 256;
const UP_THREADS: usize = 256;

pub fn forward(cuda: &Cuda, y: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, pair: LoraPair<'_>, u: ViewMut<'_, f32, 1>) {
    let ([n_rows, k], [rank, _], [n, _]) = (x.shape(), pair.a.shape(), pair.b.shape());
    assert!(rank <= RANK_MAX, "rank {rank}");
    let (t, k, n_cols, r) = (n_rows as u32, k as u32, n as u32, rank as u32);
    let grid = [rank.div_ceil(DOWN_WARPS) as u32, t, 1];
    let shape = LaunchShape { grid, block: 32 * DOWN_WARPS as u32, shared_bytes: 0 };
    let args = [u.ptr().into(), x.ptr().into(), pair.a.ptr().into(), pair.scale.into(), k.into(), r.into()];
    cuda.launch("lora_down", shape, &args);
    let grid = [n.div_ceil(UP_THREADS) as u32, n_rows.div_ceil(UP_ROWS) as u32, 1];
    let shape = LaunchShape { grid, block: UP_THREADS as u32, shared_bytes: 0 };
    let args = [y.ptr().into(), u.ptr().into(), pair.b.ptr().into(), t.into(), n_cols.into(), r.into()];
    cuda.launch("lora_up", shape, &args);
}
