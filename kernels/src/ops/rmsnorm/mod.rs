//! Root-mean-square norm: `out[t, i] = x[t, i] / sqrt(mean over i of x[t, i]^2 + eps) * weight[i]`.
//!
//! `weight` is the factor itself: Gemma's files store w for a factor of 1 + w, and the reader adds the one.
//! Zhang and Sennrich 2019, arXiv 1910.07467.

pub mod backward;
pub(crate) mod cuda;

use std::ops::Range;

use crate::device::{Cpu, Device};
use crate::ops::kernel_module::{KernelModule, Role};
use crate::ops::residual::{self, Residual};
use crate::simd::{fold_lanes, per_isa, LANES};
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] =
    &[KernelModule::one("rmsnorm", Role::Every), KernelModule::one("backward", Role::Training)];

/// The norm of the residual stream, after the pending output was added: `x += post(y)`, then `h = norm(x) * weight`.
pub struct Normed<'a> {
    pub residual: &'a mut Residual,
    /// (D): the weight of the norm over the pending output (Gemma 3), before it is added.
    pub post_norm: Option<View<'a, f32, 1>>,
    /// (D).
    pub weight: View<'a, f32, 1>,
    pub eps: f32,
    /// (T, D): the result.
    pub h: ViewMut<'a, f32, 2>,
    /// Rows of the stream that are wanted. Part of them alone at the end of a pass: then what is pending stays pending for
    /// the others, and each row may be asked for once.
    pub rows: Range<usize>,
}

/// Computes `n.h`.
pub fn add_norm(device: &Device, n: Normed<'_>) {
    let dim = n.residual.dim();
    assert_eq!(n.h.shape(), [n.rows.len(), dim]);
    assert!(n.weight.len() == dim && n.post_norm.is_none_or(|w| w.len() == dim));
    match device {
        Device::Cpu(cpu) => add_norm_cpu(cpu, n),
        Device::Cuda(cuda) => cuda::add_norm(cuda, n),
    }
}

fn add_norm_cpu(cpu: &Cpu, mut n: Normed<'_>) {
    let dim = n.residual.dim();
    let part = n.rows.start * dim..n.rows.end * dim;
    let (mut x, y) = n.residual.both_mut(n.rows.end);
    let x = &mut x.host_mut()[part.clone()];
    if let Some(mut y) = y {
        let y = &mut y.host_mut()[part];
        if let Some(weight) = n.post_norm {
            cpu.pool.for_chunks(y, chunk_len(dim), &|_, y| norm_rows_in_place(cpu.isa, y, weight.host(), n.eps));
        }
        residual::add(cpu, x, y);
    }
    norm_cpu(cpu, n.h.host_mut(), x, n.weight.host(), n.eps);
    n.residual.settled(&n.rows);
}

/// Shapes: `out`, `x` (T, D), `weight` (D).
pub fn forward(device: &Device, mut out: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, weight: View<'_, f32, 1>, eps: f32) {
    let [_, dim] = x.shape();
    assert_eq!(out.shape(), x.shape());
    assert_eq!(weight.len(), dim);
    match device {
        Device::Cpu(cpu) => norm_cpu(cpu, out.host_mut(), x.host(), weight.host(), eps),
        Device::Cuda(cuda) => cuda::forward(cuda, out, x, weight, eps),
    }
}

fn norm_cpu(cpu: &Cpu, out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let chunk = chunk_len(weight.len());
    cpu.pool.for_chunks(out, chunk, &|i, out| {
        let start = i * chunk;
        norm_rows(cpu.isa, out, &x[start..start + out.len()], weight, eps);
    });
}

/// The same with `x` (T, D) replaced by the result, on the CPU: the QK-norm, with T = tokens * heads and D = head_dim.
pub(crate) fn in_place_cpu(cpu: &Cpu, x: &mut [f32], weight: &[f32], eps: f32) {
    cpu.pool.for_chunks(x, chunk_len(weight.len()), &|_, x| norm_rows_in_place(cpu.isa, x, weight, eps));
}

/// Values of one task, whole rows: 16 k take about 5 microseconds.
fn chunk_len(dim: usize) -> usize {
    ((16 << 10) / dim).max(1) * dim
}

per_isa! {
    fn norm_rows(out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) = rows_body;
}
per_isa! {
    fn norm_rows_in_place(x: &mut [f32], weight: &[f32], eps: f32) = rows_in_place_body;
}

#[inline(always)]
fn rows_body(out: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let dim = weight.len();
    for (out, x) in out.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
        let rstd = reciprocal_rms(x, eps);
        for ((y, x), w) in out.iter_mut().zip(x).zip(weight) {
            *y = x * rstd * w;
        }
    }
}

#[inline(always)]
fn rows_in_place_body(x: &mut [f32], weight: &[f32], eps: f32) {
    for x in x.chunks_exact_mut(weight.len()) {
        let rstd = reciprocal_rms(x, eps);
        for (x, w) in x.iter_mut().zip(weight) {
            *x = *x * rstd * w;
        }
    }
}

#[inline(always)]
fn reciprocal_rms(x: &[f32], eps: f32) -> f32 {
    let mut acc = [0.0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    let tail = chunks.remainder();
    for c in chunks {
        for i in 0..LANES {
            acc[i] = c[i].mul_add(c[i], acc[i]);
        }
    }
    for (a, v) in acc.iter_mut().zip(tail) {
        *a = v.mul_add(*v, *a);
    }
    1.0 / (fold_lanes(acc) / x.len() as f32 + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    #[test]
    fn equals_the_f64_formula_at_awkward_sizes_on_every_isa() {
        for (t, d) in [(1, 1), (1, 15), (3, 16), (2, 17), (1, 33), (4, 256), (2, 1152)] {
            let (x, w) = (random(t * d, 3.0, 1), random(d, 1.0, 2));
            let got = assert_same_on_every_isa(|device| {
                let mut out = vec![0.0; t * d];
                let weight = View::new(&w, [d]);
                forward(device, ViewMut::new(&mut out, [t, d]), View::new(&x, [t, d]), weight, 1e-6);
                let mut in_place = x.clone();
                let Device::Cpu(cpu) = device else { unreachable!("instruction sets are the CPU's") };
                in_place_cpu(cpu, &mut in_place, &w, 1e-6);
                assert_eq!(out, in_place);
                out
            });
            for (row, got) in x.chunks(d).zip(got.chunks(d)) {
                let mean = row.iter().map(|v| (*v as f64).powi(2)).sum::<f64>() / d as f64;
                for i in 0..d {
                    let want = row[i] as f64 / (mean + 1e-6).sqrt() * w[i] as f64;
                    // Three roundings, and the sum's: D eps / 32 at worst, halved by the square root.
                    assert!((got[i] as f64 - want).abs() <= 1e-6 * want.abs(), "({t}, {d})[{i}]: {} {want}", got[i]);
                }
            }
        }
    }
}
