//! Root-mean-square norm: `out[t, i] = x[t, i] / sqrt(mean over i of x[t, i]^2 + eps) * weight[i]`.
//!
//! `weight` is the factor itself: Gemma's files store w for a factor of 1 + w, and the reader adds the one.
//! Zhang and Sennrich 2019, arXiv 1910.07467.

use crate::device::Device;
use crate::simd::{fold_lanes, per_isa, LANES};
use crate::view::{View, ViewMut};

/// Shapes: `out`, `x` (T, D), `weight` (D). Also the QK-norm, with T = tokens * heads and D = head_dim.
pub fn forward(device: &Device, mut out: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, weight: &[f32], eps: f32) {
    let [_, dim] = x.shape();
    assert_eq!(out.shape(), x.shape());
    assert_eq!(weight.len(), dim);
    match device {
        Device::Cpu(cpu) => {
            let chunk = chunk_len(dim);
            cpu.pool.for_chunks(out.host_mut(), chunk, &|i, out| {
                let start = i * chunk;
                norm_rows(cpu.isa, out, &x.host()[start..start + out.len()], weight, eps);
            });
        }
    }
}

/// The same with `x` replaced by the result.
pub fn forward_in_place(device: &Device, mut x: ViewMut<'_, f32, 2>, weight: &[f32], eps: f32) {
    let [_, dim] = x.shape();
    assert_eq!(weight.len(), dim);
    match device {
        Device::Cpu(cpu) => {
            cpu.pool.for_chunks(x.host_mut(), chunk_len(dim), &|_, x| norm_rows_in_place(cpu.isa, x, weight, eps));
        }
    }
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
                forward(device, ViewMut::new(&mut out, [t, d]), View::new(&x, [t, d]), &w, 1e-6);
                let mut in_place = x.clone();
                forward_in_place(device, ViewMut::new(&mut in_place, [t, d]), &w, 1e-6);
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
