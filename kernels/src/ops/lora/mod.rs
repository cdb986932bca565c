//! Low-rank adaptation beside a frozen matrix: `y += scale * B (A x)`. Hu et al. 2021, arXiv 2106.09685.

pub mod backward;
mod cuda;

use crate::device::{Cpu, Device};
use crate::ops::kernel_module::{KernelModule, Role};
use crate::ops::matmul::float;
use crate::ops::matmul::gemm::{gemm, Coefficients, Precision, Rows, Shape};
use crate::ops::Write;
use crate::pool::WORTH_SHARING;
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("lora", Role::Every)];

/// One adapted matrix.
#[derive(Clone, Copy)]
pub struct LoraPair<'a> {
    /// (r, K).
    pub a: View<'a, f32, 2>,
    /// (N, r).
    pub b: View<'a, f32, 2>,
    /// alpha / r, times what the user asked for.
    pub scale: f32,
}

/// Shapes: `y` (T, N), `x` (T, K). `u` holds at least T * r values: `scale * A x` afterwards, (T, r).
pub fn forward(
    device: &Device,
    mut y: ViewMut<'_, f32, 2>,
    x: View<'_, f32, 2>,
    pair: LoraPair<'_>,
    mut u: ViewMut<'_, f32, 1>,
) {
    check_shapes(&y, x, pair, &u);
    let ([t, _], [rank, _]) = (x.shape(), pair.a.shape());
    match device {
        Device::Cpu(cpu) => apply(cpu, y.host_mut(), x.host(), pair, &mut u.host_mut()[..t * rank]),
        Device::Cuda(cuda) => cuda::forward(cuda, y, x, pair, u),
    }
}

/// [`forward`] for training: on a GPU in tiles, which many rows fill; an output is the same for any number of them, but not
/// [`forward`]'s.
pub fn forward_training(
    device: &Device,
    y: ViewMut<'_, f32, 2>,
    x: View<'_, f32, 2>,
    pair: LoraPair<'_>,
    u: ViewMut<'_, f32, 1>,
) {
    let Device::Cuda(cuda) = device else { return forward(device, y, x, pair, u) };
    check_shapes(&y, x, pair, &u);
    cuda::forward_training(cuda, y, x, pair, u);
}

fn check_shapes(y: &ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, pair: LoraPair<'_>, u: &ViewMut<'_, f32, 1>) {
    let ([t, k], [rank, a_cols], [n, b_cols]) = (x.shape(), pair.a.shape(), pair.b.shape());
    assert!(a_cols == k && b_cols == rank && y.shape() == [t, n]);
    assert!(u.len() >= t * rank);
}

/// `u = scale * A x` by sixteen-lane sums; then `B u` is added in order of the rank.
fn apply(cpu: &Cpu, y: &mut [f32], x: &[f32], pair: LoraPair<'_>, u: &mut [f32]) {
    let ([rank, k], [n, _]) = (pair.a.shape(), pair.b.shape());
    let t = x.len() / k;
    let chunk = t.div_ceil(cpu.pool.n_threads() * 2).max(1);
    let compute = |i: usize, u: &mut [f32]| {
        let rows = i * chunk..i * chunk + u.len() / rank;
        float::products(cpu.isa, k, pair.a.host(), &x[rows.start * k..rows.end * k], u);
        u.iter_mut().for_each(|u| *u *= pair.scale);
    };
    match t * rank * k >= WORTH_SHARING {
        true => cpu.pool.for_chunks(u, chunk * rank, &compute),
        false => u.chunks_mut(chunk * rank).enumerate().for_each(|(i, u)| compute(i, u)),
    }
    let shape = Shape::new(t, rank, n);
    let b = Rows::Transposed { data: pair.b.host(), stride: rank };
    gemm(cpu, y, Coefficients::of(u, rank), b, shape, Precision::Exact, Write::Add);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    #[test]
    fn equals_the_f64_formula_on_every_isa() {
        for (t, k, n, r) in [(1, 1, 1, 1), (3, 33, 5, 4), (2, 64, 17, 16), (1, 100, 31, 7)] {
            let (x, a, b, y) =
                (random(t * k, 1.0, 1), random(r * k, 0.3, 2), random(n * r, 0.3, 3), random(t * n, 1.0, 4));
            let pair = LoraPair { a: View::new(&a, [r, k]), b: View::new(&b, [n, r]), scale: 2.0 };
            let got = assert_same_on_every_isa(|device| {
                let (mut out, mut u) = (y.clone(), vec![0.0; t * r]);
                forward(
                    device,
                    ViewMut::new(&mut out, [t, n]),
                    View::new(&x, [t, k]),
                    pair,
                    ViewMut::new(&mut u, [t * r]),
                );
                out
            });
            for i in 0..t {
                for j in 0..n {
                    let mut want = y[i * n + j] as f64;
                    let mut magnitude = want.abs();
                    for c in 0..r {
                        for l in 0..k {
                            let term = 2.0 * b[j * r + c] as f64 * a[c * k + l] as f64 * x[i * k + l] as f64;
                            want += term;
                            magnitude += term.abs();
                        }
                    }
                    assert!((got[i * n + j] as f64 - want).abs() <= 1e-6 * magnitude, "({t} {k} {n} {r})[{i} {j}]");
                }
            }
        }
    }
}
