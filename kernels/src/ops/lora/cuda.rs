//! Launches of lora.cu.

use super::backward::{Given, LoraGradients};
use super::LoraPair;
use crate::cuda::{Cuda, DevicePtr, LaunchShape};
use crate::ops::matmul::combine::cuda::{Combination, Factor};
use crate::ops::matmul::Write;
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
    let down = Combination {
        out: u.ptr(),
        a: Factor::rows(x.ptr(), k),
        b: Factor::transposed(pair.a.ptr(), k),
        rows: n_rows,
        terms: k,
        columns: rank,
        scale: pair.scale,
        write: Write::Replace,
        is_exact: false,
        bias: None,
        partials: None,
    };
    down.launch(cuda);
    let (a, b) = (Factor::rows(u.ptr(), rank), Factor::transposed(pair.b.ptr(), rank));
    let up = Combination { out: y.ptr(), a, b, terms: rank, columns: n, scale: 1.0, write: Write::Add, ..down };
    up.launch(cuda);
}

/// The products of [`super::backward::parameters`]; `workspace` takes sums of parts.
pub fn parameters(
    cuda: &Cuda,
    gradients: LoraGradients<'_>,
    given: Given<'_>,
    pair: LoraPair<'_>,
    v: ViewMut<'_, f32, 2>,
    workspace: DevicePtr,
) {
    let Given { dy, x, u } = given;
    let ([t, n], [_, k], [rank, _]) = (dy.shape(), x.shape(), pair.a.shape());
    let db = Combination {
        out: gradients.db.ptr(),
        a: Factor::transposed(dy.ptr(), n),
        b: Factor::rows(u.ptr(), rank),
        rows: n,
        terms: t,
        columns: rank,
        scale: 1.0,
        write: Write::Add,
        is_exact: false,
        bias: None,
        partials: Some(workspace),
    };
    db.launch(cuda);
    let v_of_dy = Combination {
        out: v.ptr(),
        a: Factor::rows(dy.ptr(), n),
        b: Factor::rows(pair.b.ptr(), rank),
        rows: t,
        terms: n,
        scale: pair.scale,
        write: Write::Replace,
        ..db
    };
    v_of_dy.launch(cuda);
    let da = Combination {
        out: gradients.da.ptr(),
        a: Factor::transposed(v.ptr(), rank),
        b: Factor::rows(x.ptr(), k),
        rows: rank,
        columns: k,
        ..db
    };
    da.launch(cuda);
}

/// `dx = v A`, or that added to it.
pub fn input(cuda: &Cuda, dx: ViewMut<'_, f32, 2>, v: View<'_, f32, 2>, pair: LoraPair<'_>, write: Write) {
    let ([t, rank], [_, k]) = (v.shape(), pair.a.shape());
    let combination = Combination {
        out: dx.ptr(),
        a: Factor::rows(v.ptr(), rank),
        b: Factor::rows(pair.a.ptr(), k),
        rows: t,
        terms: rank,
        columns: k,
        scale: 1.0,
        write,
        is_exact: false,
        bias: None,
        partials: None,
    };
    combination.launch(cuda);
}
