//! The backward pass through a norm. Sums over a row are folded in another order than the CPU's.

use lichen_kernels::ops::matmul::Write;
use lichen_kernels::ops::rmsnorm::backward;
use lichen_kernels::{Buffer, Device};

use crate::common::{download, upload};
use crate::oracle::{assert_same_bits, cpu, for_each_arch, random};
use crate::support::{assert_within, Array, ROUNDING, STARTS};

const EPS: f32 = 1e-6;

/// (T, D): rows of a warp and of a block, of whole groups of four and not; more rows than a block has warps; columns that do
/// not fill eight.
const SHAPES: [(usize, usize); 11] =
    [(1, 1), (3, 15), (9, 16), (2, 33), (7, 256), (1, 511), (2, 512), (3, 513), (2, 516), (5, 1152), (2, 2305)];

/// Roundings of a sum over D on either device, in its longest chain: a sixteenth of the row on the CPU, a thirty-second at
/// most on a GPU, and the folds.
fn chain(dim: usize) -> f64 {
    (dim as f64 / 16.0 + dim as f64 / 32.0 + 24.0) * ROUNDING
}

#[test]
fn the_gradient_of_the_input() {
    let cpu = cpu();
    for_each_arch(|device, arch| {
        for (t, d) in SHAPES {
            let (dy, x, w) = (random(t * d, 1.0, 3), random(t * d, 3.0, 1), random(d, 1.0, 2));
            let before = random(t * d, 1.0, 4);
            let run = |device: &Device, start: usize| {
                let [dy, x, w] = [&dy, &x, &w].map(|values| Array::new(device, start, values));
                let mut replaced = Array::unwritten(device, start, t * d);
                let mut added = Array::new(device, start, &before);
                let (shape, weight) = ([t, d], w.view([d]));
                let (dys, xs) = (dy.view(shape), x.view(shape));
                backward::input(device, replaced.view_mut(shape), dys, xs, weight, EPS, Write::Replace);
                backward::input(device, added.view_mut(shape), dys, xs, weight, EPS, Write::Add);
                let mut in_place = Array::new(device, start, &dy.read(device));
                backward::input_in_place(device, in_place.view_mut(shape), x.view(shape), weight, EPS);
                [replaced, added, in_place].map(|a| a.read(device))
            };
            let bounds = input_bounds(&dy, &x, &w, d);
            for start in STARTS {
                let what = format!("sm_{arch} ({t}, {d}) from {start}");
                let ([got, added, in_place], [want, ..]) = (run(device, start), run(&cpu, start));
                assert_within(&got, &want, |i| bounds[i], &what);
                assert_same_bits(&in_place, &got, &format!("{what}, in place"));
                let sums: Vec<f32> = before.iter().zip(&got).map(|(a, b)| a + b).collect();
                assert_same_bits(&added, &sums, &format!("{what}, added"));
                assert_same_bits(&run(device, start)[0], &got, &format!("{what}, again"));
            }
        }
    });
}

/// `dx = r (dy w - r^2 mean(dy w x) x)`: r is off by half a chain, so the second term by two and a half.
fn input_bounds(dy: &[f32], x: &[f32], w: &[f32], d: usize) -> Vec<f64> {
    let mut bounds = Vec::new();
    for (dy, x) in dy.chunks(d).zip(x.chunks(d)) {
        let wide = |v: &f32| f64::from(*v);
        let r = 1.0 / (x.iter().map(|v| wide(v).powi(2)).sum::<f64>() / d as f64 + f64::from(EPS)).sqrt();
        let products = dy.iter().zip(w).map(|(dy, w)| (wide(dy) * wide(w)).abs());
        let mean = products.clone().zip(x).map(|(p, x)| p * wide(x).abs()).sum::<f64>() / d as f64;
        bounds.extend(
            products.zip(x).map(|(p, x)| (chain(d) + 8.0 * ROUNDING) * r * (p + 2.5 * r * r * mean * wide(x).abs())),
        );
    }
    bounds
}

#[test]
fn the_gradient_of_the_weight_is_added() {
    let cpu = cpu();
    // Rows around the 64 that are summed side by side, and four times as many.
    let shapes = [(1, 1), (3, 15), (63, 8), (65, 9), (2, 512), (193, 16), (257, 7), (5, 1152), (300, 33)];
    for_each_arch(|device, arch| {
        for (t, d) in shapes {
            let (dy, x, before) = (random(t * d, 1.0, 3), random(t * d, 3.0, 1), random(d, 1.0, 4));
            let run = |device: &Device, start: usize| {
                let [dy, x] = [&dy, &x].map(|values| Array::new(device, start, values));
                let mut dweight = Array::new(device, start, &before);
                let mut rstd: Buffer<f32> = upload(device, &vec![f32::NAN; t]);
                let out = (dweight.view_mut([d]), rstd.view_mut([t]));
                backward::weight(device, out.0, out.1, dy.view([t, d]), x.view([t, d]), EPS);
                (dweight.read(device), download(device, &rstd))
            };
            for start in STARTS {
                let what = format!("sm_{arch} ({t}, {d}) from {start}");
                let ((got, rstd), (want, want_rstd)) = (run(device, start), run(&cpu, start));
                assert_within(&rstd, &want_rstd, |i| chain(d) * f64::from(want_rstd[i]), &format!("{what}, r"));
                let bound = |i: usize| {
                    let term = |row: usize| f64::from((dy[row * d + i] * x[row * d + i] * want_rstd[row]).abs());
                    let magnitude = f64::from(before[i].abs()) + (0..t).map(term).sum::<f64>();
                    // One chain of T on the CPU, a 64th of it and the folds on the GPU, and both r.
                    let chains = (t as f64 + t as f64 / 64.0 + 24.0) * ROUNDING + chain(d);
                    chains * magnitude
                };
                assert_within(&got, &want, bound, &what);
                assert_same_bits(&run(device, start).0, &got, &format!("{what}, again"));
            }
        }
    });
}

#[test]
fn what_is_not_a_number_stays() {
    for_each_arch(|device, arch| {
        for d in [16, 600] {
            let mut dy = random(2 * d, 1.0, 3);
            dy[d + 3] = f32::NAN;
            let (x, w) = (random(2 * d, 3.0, 1), random(d, 1.0, 2));
            let [dys, xs, ws] = [&dy, &x, &w].map(|values| Array::new(device, 0, values));
            let mut dx = Array::unwritten(device, 0, 2 * d);
            let (shape, weight) = ([2, d], ws.view([d]));
            backward::input(device, dx.view_mut(shape), dys.view(shape), xs.view(shape), weight, EPS, Write::Replace);
            let got = dx.read(device);
            assert!(got[..d].iter().all(|v| v.is_finite()), "sm_{arch} {d}: the row before");
            assert!(got[d..].iter().all(|v| v.is_nan()), "sm_{arch} {d}: {:?}", &got[d..d + 8]);
        }
    });
}
