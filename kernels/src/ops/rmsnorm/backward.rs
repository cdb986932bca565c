//! Backward of the root-mean-square norm. Forward: `y[i] = x[i] * r * w[i]` with `r = 1 / sqrt(mean(x^2) + eps)`. So with
//! `g[i] = dy[i] * w[i]` and `c = r^2 * mean(g x)`: `dx[i] = r * (g[i] - c * x[i])` and `dw[i] += dy[i] * x[i] * r`.

use super::{chunk_len, cuda, reciprocal_rms};
use crate::device::Device;
use crate::ops::Write;
use crate::simd::{fold_lanes, per_isa, LANES};
use crate::view::{View, ViewMut};

/// `dx` (T, D) from `dy` and the input of the norm, both (T, D), and `weight` (D).
pub fn input(
    device: &Device,
    mut dx: ViewMut<'_, f32, 2>,
    dy: View<'_, f32, 2>,
    x: View<'_, f32, 2>,
    weight: View<'_, f32, 1>,
    eps: f32,
    write: Write,
) {
    assert!(dx.shape() == dy.shape() && x.shape() == dy.shape() && x.shape()[1] == weight.len());
    match device {
        Device::Cpu(cpu) => {
            let (dy, x, weight) = (dy.host(), x.host(), weight.host());
            let chunk = chunk_len(weight.len());
            cpu.pool.for_chunks(dx.host_mut(), chunk, &|i, dx| {
                let part = i * chunk..i * chunk + dx.len();
                input_rows(cpu.isa, dx, &dy[part.clone()], &x[part], weight, eps, write);
            });
        }
        Device::Cuda(cuda) => cuda::backward_input(cuda, dx.ptr(), dy.ptr(), x, weight, eps, write),
    }
}

/// The same in place: `d` (T, D) holds `dy` and becomes `dx`.
pub fn input_in_place(
    device: &Device,
    mut d: ViewMut<'_, f32, 2>,
    x: View<'_, f32, 2>,
    weight: View<'_, f32, 1>,
    eps: f32,
) {
    assert!(d.shape() == x.shape() && x.shape()[1] == weight.len());
    match device {
        Device::Cpu(cpu) => {
            let (x, weight) = (x.host(), weight.host());
            let chunk = chunk_len(weight.len());
            cpu.pool.for_chunks(d.host_mut(), chunk, &|i, d| {
                let x = &x[i * chunk..i * chunk + d.len()];
                rows_in_place(cpu.isa, d, x, weight, eps);
            });
        }
        Device::Cuda(cuda) => cuda::backward_input(cuda, d.ptr(), d.ptr(), x, weight, eps, Write::Replace),
    }
}

/// `dweight` (D) `+=`, in order of t on the CPU. `rstd` becomes the r of each row (T): a GPU needs them before the sums.
pub fn weight(
    device: &Device,
    mut dweight: ViewMut<'_, f32, 1>,
    mut rstd: ViewMut<'_, f32, 1>,
    dy: View<'_, f32, 2>,
    x: View<'_, f32, 2>,
    eps: f32,
) {
    let [n_rows, dim] = x.shape();
    assert!(dy.shape() == x.shape() && dim == dweight.len() && n_rows == rstd.len());
    match device {
        Device::Cpu(cpu) => weight_rows(cpu.isa, dweight.host_mut(), rstd.host_mut(), dy.host(), x.host(), eps),
        Device::Cuda(cuda) => cuda::backward_weight(cuda, dweight, rstd, dy, x, eps),
    }
}

per_isa! {
    fn input_rows(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], eps: f32, write: Write) = input_body;
}
per_isa! {
    fn rows_in_place(d: &mut [f32], x: &[f32], weight: &[f32], eps: f32) = in_place_body;
}
per_isa! {
    fn weight_rows(dweight: &mut [f32], rstd: &mut [f32], dy: &[f32], x: &[f32], eps: f32) = weight_body;
}

#[inline(always)]
fn input_body(dx: &mut [f32], dy: &[f32], x: &[f32], weight: &[f32], eps: f32, write: Write) {
    let dim = weight.len();
    for ((dx, dy), x) in dx.chunks_exact_mut(dim).zip(dy.chunks_exact(dim)).zip(x.chunks_exact(dim)) {
        let (r, c) = factors(dy, x, weight, eps);
        let gradient = |dy: f32, x: f32, w: f32| r * c.mul_add(-x, dy * w);
        let values = dx.iter_mut().zip(dy).zip(x.iter().zip(weight));
        match write {
            Write::Replace => values.for_each(|((d, dy), (x, w))| *d = gradient(*dy, *x, *w)),
            Write::Add => values.for_each(|((d, dy), (x, w))| *d += gradient(*dy, *x, *w)),
        }
    }
}

#[inline(always)]
fn in_place_body(d: &mut [f32], x: &[f32], weight: &[f32], eps: f32) {
    let dim = weight.len();
    for (d, x) in d.chunks_exact_mut(dim).zip(x.chunks_exact(dim)) {
        let (r, c) = factors(d, x, weight, eps);
        d.iter_mut().zip(x.iter().zip(weight)).for_each(|(d, (x, w))| *d = r * c.mul_add(-x, *d * w));
    }
}

#[inline(always)]
fn weight_body(dweight: &mut [f32], rstd: &mut [f32], dy: &[f32], x: &[f32], eps: f32) {
    let dim = dweight.len();
    for ((dy, x), rstd) in dy.chunks_exact(dim).zip(x.chunks_exact(dim)).zip(rstd) {
        let r = reciprocal_rms(x, eps);
        *rstd = r;
        dweight.iter_mut().zip(dy.iter().zip(x)).for_each(|(d, (dy, x))| *d += dy * (x * r));
    }
}

/// r and c of the header, for one row.
#[inline(always)]
fn factors(dy: &[f32], x: &[f32], weight: &[f32], eps: f32) -> (f32, f32) {
    let r = reciprocal_rms(x, eps);
    let mut acc = [0.0f32; LANES];
    let (dys, xs, ws) = (dy.chunks_exact(LANES), x.chunks_exact(LANES), weight.chunks_exact(LANES));
    let tails = dys.remainder().iter().zip(xs.remainder()).zip(ws.remainder());
    for ((dy, x), w) in dys.zip(xs).zip(ws) {
        for i in 0..LANES {
            acc[i] = (dy[i] * w[i]).mul_add(x[i], acc[i]);
        }
    }
    for (a, ((dy, x), w)) in acc.iter_mut().zip(tails) {
        *a = (dy * w).mul_add(*x, *a);
    }
    (r, r * r * fold_lanes(acc) / x.len() as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    const EPS: f64 = 1e-6;

    #[test]
    fn equals_the_f64_formula_at_awkward_sizes_on_every_isa() {
        for (t, d) in [(1, 1), (1, 15), (3, 16), (2, 17), (1, 33), (4, 256), (2, 1152)] {
            let (x, w, dy) = (random(t * d, 3.0, 1), random(d, 1.0, 2), random(t * d, 1.0, 3));
            let got = assert_same_on_every_isa(|device| {
                let views = (View::new(&dy, [t, d]), View::new(&x, [t, d]));
                let weights = View::new(&w, [d]);
                let (mut dx, mut added, mut dw) = (vec![f32::NAN; t * d], dy.clone(), vec![1.0; d]);
                input(device, ViewMut::new(&mut dx, [t, d]), views.0, views.1, weights, EPS as f32, Write::Replace);
                input(device, ViewMut::new(&mut added, [t, d]), views.0, views.1, weights, EPS as f32, Write::Add);
                assert!(added.iter().zip(&dy).zip(&dx).all(|((sum, a), b)| *sum == a + b));
                let mut in_place = dy.clone();
                input_in_place(device, ViewMut::new(&mut in_place, [t, d]), views.1, weights, EPS as f32);
                assert_eq!(in_place, dx);
                let mut rstd = vec![f32::NAN; t];
                let out = (ViewMut::new(&mut dw, [d]), ViewMut::new(&mut rstd, [t]));
                weight(device, out.0, out.1, views.0, views.1, EPS as f32);
                [dx, dw, rstd].concat()
            });
            let mut dw = vec![1.0f64; d];
            for row in 0..t {
                let at = |v: &[f32], i: usize| v[row * d + i] as f64;
                let r = 1.0 / ((0..d).map(|i| at(&x, i).powi(2)).sum::<f64>() / d as f64 + EPS).sqrt();
                assert!((got[t * d + d + row] as f64 - r).abs() <= 1e-6 * r, "({t}, {d}) r[{row}]");
                let mean = (0..d).map(|i| at(&dy, i) * w[i] as f64 * at(&x, i)).sum::<f64>() / d as f64;
                for i in 0..d {
                    let terms = [at(&dy, i) * w[i] as f64, r * r * mean * at(&x, i)];
                    let want = r * (terms[0] - terms[1]);
                    let magnitude = r * (terms[0].abs() + terms[1].abs() + at(&x, i).abs() * r * r);
                    assert!((at(&got, i) - want).abs() <= 1e-6 * magnitude, "({t}, {d}) dx[{row} {i}]");
                    dw[i] += at(&dy, i) * at(&x, i) * r;
                }
            }
            for (i, want) in dw.iter().enumerate() {
                assert!((got[t * d + i] as f64 - want).abs() <= 1e-6 * (1.0 + want.abs()), "({t}, {d}) dw[{i}]");
            }
        }
    }
}
