//! Launches of lora.cu.

use super::backward::{LoraGradients, SavedForward};
use super::LoraPair;
use crate::cuda::{Cuda, DevicePtr, LaunchShape};
use crate::ops::matmul::gemm::cuda::{Factor, Gemm};
use crate::ops::matmul::gemm::Size;
use crate::ops::Write;
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

/// In tiles.
pub fn forward_training(
    cuda: &Cuda,
    y: ViewMut<'_, f32, 2>,
    x: View<'_, f32, 2>,
    pair: LoraPair<'_>,
    u: ViewMut<'_, f32, 1>,
) {
    let ([n_rows, k], [rank, _], [n, _]) = (x.shape(), pair.a.shape(), pair.b.shape());
    let (a, b) = (Factor::rows(x.ptr(), k), Factor::transposed(pair.a.ptr(), k));
    Gemm { scale: pair.scale, ..Gemm::new(u.ptr(), a, b, Size { rows: n_rows, terms: k, columns: rank }) }.launch(cuda);
    let (a, b) = (Factor::rows(u.ptr(), rank), Factor::transposed(pair.b.ptr(), rank));
    Gemm { write: Write::Add, ..Gemm::new(y.ptr(), a, b, Size { rows: n_rows, terms: rank, columns: n }) }.launch(cuda);
}

/// The products of [`super::backward::parameters`]; `workspace` takes split-K partials.
pub fn parameters(
    cuda: &Cuda,
    gradients: LoraGradients<'_>,
    saved: SavedForward<'_>,
    pair: LoraPair<'_>,
    v: ViewMut<'_, f32, 2>,
    workspace: DevicePtr,
) {
    let SavedForward { dy, x, u } = saved;
    let ([t, n], [_, k], [rank, _]) = (dy.shape(), x.shape(), pair.a.shape());
    let partials = Some(workspace);
    let (a, b) = (Factor::transposed(dy.ptr(), n), Factor::rows(u.ptr(), rank));
    let db = Gemm::new(gradients.db.ptr(), a, b, Size { rows: n, terms: t, columns: rank });
    Gemm { write: Write::Add, partials, ..db }.launch(cuda);
    let (a, b) = (Factor::rows(dy.ptr(), n), Factor::rows(pair.b.ptr(), rank));
    Gemm { scale: pair.scale, partials, ..Gemm::new(v.ptr(), a, b, Size { rows: t, terms: n, columns: rank }) }
        .launch(cuda);
    let (a, b) = (Factor::transposed(v.ptr(), rank), Factor::rows(x.ptr(), k));
    let da = Gemm::new(gradients.da.ptr(), a, b, Size { rows: rank, terms: t, columns: k });
    Gemm { write: Write::Add, partials, ..da }.launch(cuda);
}

/// `dx = v A`, or that added to it.
pub fn input(cuda: &Cuda, dx: ViewMut<'_, f32, 2>, v: View<'_, f32, 2>, pair: LoraPair<'_>, write: Write) {
    let ([t, rank], [_, k]) = (v.shape(), pair.a.shape());
    let (a, b) = (Factor::rows(v.ptr(), rank), Factor::rows(pair.a.ptr(), k));
    Gemm { write, ..Gemm::new(dx.ptr(), a, b, Size { rows: t, terms: rank, columns: k }) }.launch(cuda);
}
