//! Backward of a low-rank product. Forward: `y += B u` with `u = scale * A x`. So with `v = scale * dy B`:
//! `dB += dy^T u`, `dA += v^T x`, `dx += v A`.

use super::LoraPair;
use crate::device::Device;
use crate::ops::matmul::backward::cpu;
use crate::ops::matmul::gemm::{gemm, Coefficients, Precision, Rows, Shape};
use crate::ops::matmul::Scratch;
use crate::ops::Write;
use crate::view::{View, ViewMut};

/// Gradients of one pair; both accumulate over micro-batches.
pub struct LoraGradients<'a> {
    /// (r, K).
    pub da: ViewMut<'a, f32, 2>,
    /// (N, r).
    pub db: ViewMut<'a, f32, 2>,
}

/// What the gradients of a pair are made of.
#[derive(Clone, Copy)]
pub struct SavedForward<'a> {
    /// (T, N).
    pub dy: View<'a, f32, 2>,
    /// (T, K).
    pub x: View<'a, f32, 2>,
    /// (T, r), as the forward pass left it.
    pub u: View<'a, f32, 2>,
}

/// Adds to the gradients of `pair`, and leaves `v` (T, r) for [`input`].
pub fn parameters(
    device: &Device,
    mut gradients: LoraGradients<'_>,
    saved: SavedForward<'_>,
    pair: LoraPair<'_>,
    mut v: ViewMut<'_, f32, 2>,
    scratch: &mut Scratch,
) {
    let SavedForward { dy, x, u } = saved;
    let ([t, n], [_, k], [rank, _]) = (dy.shape(), x.shape(), pair.a.shape());
    assert!(x.shape() == [t, k] && u.shape() == [t, rank] && v.shape() == [t, rank]);
    assert!(pair.a.shape() == [rank, k] && pair.b.shape() == [n, rank]);
    assert!(gradients.da.shape() == [rank, k] && gradients.db.shape() == [n, rank]);
    if let Device::Cuda(cuda) = device {
        return super::cuda::parameters(cuda, gradients, saved, pair, v, scratch.training().at);
    }
    let (cpu, exact) = (cpu(device), Precision::Exact);
    let shape = Shape::new(n, t, rank);
    let rows = Rows::Floats { data: u.host(), stride: rank };
    gemm(cpu, gradients.db.host_mut(), Coefficients::transposed(dy.host(), n), rows, shape, exact, Write::Add);
    let shape = Shape::new(t, n, rank);
    let rows = Rows::Floats { data: pair.b.host(), stride: rank };
    gemm(cpu, v.host_mut(), Coefficients::of(dy.host(), n), rows, shape, exact, Write::Replace);
    v.host_mut().iter_mut().for_each(|v| *v *= pair.scale);
    let shape = Shape::new(rank, t, k);
    let rows = Rows::Floats { data: x.host(), stride: k };
    gemm(cpu, gradients.da.host_mut(), Coefficients::transposed(v.host(), rank), rows, shape, exact, Write::Add);
}

/// `dx` (T, K) `+= v A`, or `= v A`.
pub fn input(device: &Device, mut dx: ViewMut<'_, f32, 2>, v: View<'_, f32, 2>, pair: LoraPair<'_>, write: Write) {
    let ([t, rank], [_, k]) = (v.shape(), pair.a.shape());
    assert!(pair.a.shape() == [rank, k] && dx.shape() == [t, k]);
    if let Device::Cuda(cuda) = device {
        return super::cuda::input(cuda, dx, v, pair, write);
    }
    let shape = Shape::new(t, rank, k);
    let rows = Rows::Floats { data: pair.a.host(), stride: k };
    gemm(cpu(device), dx.host_mut(), Coefficients::of(v.host(), rank), rows, shape, Precision::Exact, write);
}
