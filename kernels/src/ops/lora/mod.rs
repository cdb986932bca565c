//! Low-rank adaptation beside a frozen matrix: `y += scale * B (A x)`. Hu et al. 2021, arXiv 2106.09685.

mod cuda;

use crate::device::Device;
use crate::simd::{dot, per_isa};
use crate::view::{View, ViewMut};

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

/// Shapes: `y` (T, N), `x` (T, K). `u` holds at least T * r values of scratch.
pub fn forward(
    device: &Device,
    mut y: ViewMut<'_, f32, 2>,
    x: View<'_, f32, 2>,
    pair: LoraPair<'_>,
    mut u: ViewMut<'_, f32, 1>,
) {
    let ([t, k], [rank, a_cols], [n, b_cols]) = (x.shape(), pair.a.shape(), pair.b.shape());
    assert!(a_cols == k && b_cols == rank && y.shape() == [t, n]);
    assert!(u.len() >= t * rank);
    match device {
        Device::Cpu(cpu) => apply(cpu.isa, y.host_mut(), x.host(), pair, &mut u.host_mut()[..t * rank]),
        Device::Cuda(cuda) => cuda::forward(cuda, y, x, pair, u),
    }
}

per_isa! {
    fn apply(y: &mut [f32], x: &[f32], pair: LoraPair<'_>, u: &mut [f32]) = apply_body;
}

#[inline(always)]
fn apply_body(y: &mut [f32], x: &[f32], pair: LoraPair<'_>, u: &mut [f32]) {
    let ([rank, k], [n, _]) = (pair.a.shape(), pair.b.shape());
    for (u, x) in u.chunks_exact_mut(rank).zip(x.chunks_exact(k)) {
        for (u, a) in u.iter_mut().zip(pair.a.host().chunks_exact(k)) {
            *u = dot(a, x) * pair.scale;
        }
    }
    for (y, u) in y.chunks_exact_mut(n).zip(u.chunks_exact(rank)) {
        for (y, b) in y.iter_mut().zip(pair.b.host().chunks_exact(rank)) {
            *y += dot(b, u);
        }
    }
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
