//! Backward of a matrix product. Forward: `y[t, n] = sum over k of w[n, k] * x[t, k] + bias[n]`, so
//! `dx[t, k] = sum over n of dy[t, n] * w[n, k]`, `dw[n, k] = sum over t of dy[t, n] * x[t, k]` and
//! `dbias[n] = sum over t of dy[t, n]`.
//!
//! Policy: parameters accumulate (`+=`) over micro-batches; the gradient of an input is replaced or added to, as the caller
//! says, because q, k, v and gate, up share one. Numerical contract: `gemm`. `dx` multiplies F32 and F16 weights in f32, all
//! others as bf16, which for Q8_0 rounds a weight by at most half of its own quantisation step; `dw` is f32 on the CPU.
//!
//! On a GPU `dx` is the prefill's product with the transpose of the weights, which is made for it: activations f16 with a
//! power of two a row, weights f16 rounded once (BF16 weights and their activations bf16 from sm_80 on). `dw` is a product
//! of bf16 from sm_80 on, and f32 before. F32 weights multiply in f32 everywhere.

pub(super) mod cuda;

use super::gemm::{self, gemm, Coefficients, Precision, Rows, Shape};
use super::Scratch;
use crate::device::{Cpu, Device};
use crate::formats::Format;
use crate::matrix::Matrix;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::ops::Write;
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] =
    &[KernelModule::one("rows", Role::Training), KernelModule::per_weights("transpose", Role::Training)];

/// `dx` (T, K) from `dy` (T, N) and `weights` (N, K).
pub fn input(
    device: &Device,
    mut dx: ViewMut<'_, f32, 2>,
    dy: View<'_, f32, 2>,
    weights: &Matrix,
    write: Write,
    scratch: &mut Scratch,
) {
    let [t, n] = dy.shape();
    assert!(weights.rows() == n && dx.shape() == [t, weights.cols()]);
    if let Device::Cuda(cuda) = device {
        return cuda::input(cuda, dx, dy, weights, write, scratch.training());
    }
    let shape = Shape::new(t, n, weights.cols());
    let a = Coefficients::of(dy.host(), n);
    gemm(cpu(device), dx.host_mut(), a, Rows::Matrix(weights), shape, precision(weights.format()), write);
}

/// `dw` (N, K) `+=` from `dy` (T, N) and `x` (T, K); `format` is that of the weights, which decides on a GPU.
pub fn weight(
    device: &Device,
    mut dw: ViewMut<'_, f32, 2>,
    dy: View<'_, f32, 2>,
    x: View<'_, f32, 2>,
    format: Format,
    scratch: &mut Scratch,
) {
    let ([t, n], [x_rows, k]) = (dy.shape(), x.shape());
    assert!(x_rows == t && dw.shape() == [n, k]);
    if let Device::Cuda(cuda) = device {
        return cuda::weight(cuda, dw, dy, x, format, scratch.training());
    }
    let shape = Shape::new(n, t, k);
    let a = Coefficients::transposed(dy.host(), n);
    gemm(
        cpu(device),
        dw.host_mut(),
        a,
        Rows::Floats { data: x.host(), stride: k },
        shape,
        Precision::Exact,
        Write::Add,
    );
}

/// `dbias` (N) `+=` from `dy` (T, N), in order of t.
pub fn bias(device: &Device, mut dbias: ViewMut<'_, f32, 1>, dy: View<'_, f32, 2>) {
    let [t, n] = dy.shape();
    assert_eq!(dbias.shape(), [n]);
    if let Device::Cuda(cuda) = device {
        return gemm::cuda::add_column_sums(cuda, dbias.ptr(), dy.ptr(), t, n);
    }
    let shape = Shape::new(1, t, n);
    let ones = Coefficients { data: &[1.0], row_stride: 0, column_stride: 0 };
    gemm(
        cpu(device),
        dbias.host_mut(),
        ones,
        Rows::Floats { data: dy.host(), stride: n },
        shape,
        Precision::Exact,
        Write::Add,
    );
}

/// Bytes each thread keeps for products of `rows` rows.
pub fn worker_bytes(rows: usize) -> usize {
    gemm::worker_bytes(rows)
}

/// Bytes that the thread which asks keeps beside, for products of `rows` rows that sum over `terms` inputs or outputs.
pub fn caller_scratch_bytes(rows: usize, terms: usize) -> usize {
    gemm::caller_scratch_bytes(rows, terms)
}

/// Rounding to bf16 is worth its halved time where the weights were rounded before.
pub(super) fn precision(format: Format) -> Precision {
    match format {
        Format::F32 | Format::F16 => Precision::Exact,
        _ => Precision::Bf16,
    }
}

pub(crate) fn cpu(device: &Device) -> &Cpu {
    match device {
        Device::Cpu(cpu) => cpu,
        Device::Cuda(_) => unreachable!("a GPU launches kernels of its own, and its branch returns before this"),
    }
}
