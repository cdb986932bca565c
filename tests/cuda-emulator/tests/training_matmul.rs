//! Training's matrix products on a GPU against f64: the forward pass, the gradients of inputs, weights, biases and adapters.
//!
//! Bounds follow from what is rounded. S is the sum of the magnitudes of an element's terms: factors of f16 are off by 2^-11
//! each, of bf16 by 2^-8, and sm_53 sums sixteen products in f16, 2^-11 of a partial sum at each. f16 has no more than 2^-24
//! of a row's largest value below it. f32 sums of n terms are off by n 2^-24.

mod common;

use common::{cuda, devices, download, encode, name, on_gpu, upload, Random};
use lichen_kernels::formats::Format;
use lichen_kernels::ops::lora::{self, backward::LoraGradients, LoraPair};
use lichen_kernels::ops::matmul::{self, backward, Extent, Family, Input, Product, Scratch, Write};
use lichen_kernels::{Buffer, Device, Matrix};

const FORMATS: [Format; 6] = [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16, Format::F32];

/// (T, N, K); a slab of a transpose has 128 rows.
const SIZES: [(usize, usize, usize); 7] =
    [(1, 1, 64), (9, 127, 64), (17, 129, 128), (33, 300, 192), (65, 64, 320), (130, 65, 64), (5, 385, 128)];

const SLAB_ROWS: usize = 128;

fn matrix(format: Format, rows: usize, cols: usize, seed: u64) -> Matrix {
    let w: Vec<f32> = Random::new(seed).normals(rows * cols).iter().map(|v| v * 0.05).collect();
    encode(format, rows, cols, &w)
}

/// What the device holds: NF4's absmax is rounded there.
fn exact(w: &Matrix) -> Vec<f32> {
    let host = w.packed().download().expect("the device reads");
    let mut values = vec![0.0; w.rows() * w.cols()];
    host.decode_rows(0..w.rows(), &mut values);
    values
}

/// Exactly what training weights of this format bills.
fn scratch(device: &Device, format: Format, [t, n, k]: [usize; 3], slab_rows: usize) -> Scratch {
    let extents = [Extent { rows: t, inputs: k, outputs: n }];
    Scratch::with_slabs(cuda(device), &extents, Some(format), 2 * k * slab_rows).unwrap()
}

fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |m, v| m.max(v.abs() as f64))
}

/// Relative to S, of a product of 16-bit factors.
fn rounding(arch: u32, format: Format, terms: usize) -> f64 {
    let factors = match (arch, format) {
        (_, Format::F32) => 0.0,
        (53, _) => 18.0 * 2f64.powi(-11),
        (80.., Format::BF16) => 2.1 * 2f64.powi(-8),
        _ => 2.1 * 2f64.powi(-11),
    };
    factors + terms as f64 * 2f64.powi(-24)
}

#[test]
fn the_gradient_of_the_input_is_that_of_f64_in_one_slab_and_in_several() {
    for device in devices() {
        for format in FORMATS {
            for (i, (t, n, k)) in SIZES.into_iter().enumerate() {
                let w = on_gpu(&device, &matrix(format, n, k, i as u64));
                let mut dy = Random::new(i as u64 + 50).normals(t * n);
                // Gradients of one token may be far smaller than those of another.
                dy.chunks_exact_mut(n)
                    .enumerate()
                    .for_each(|(i, row)| row.iter_mut().for_each(|v| *v *= [1.0, 1e-9][i % 2]));
                let before = Random::new(7).normals(t * k);
                for (write, slab_rows) in
                    [(Write::Replace, n.max(128)), (Write::Add, SLAB_ROWS), (Write::Replace, SLAB_ROWS)]
                {
                    let got = gradient_of_input(&device, &w, &dy, &before, write, slab_rows);
                    check_input(&device, &w, &dy, &before, write, &got);
                }
            }
        }
    }
}

fn gradient_of_input(
    device: &Device,
    w: &Matrix,
    dy: &[f32],
    before: &[f32],
    write: Write,
    slab_rows: usize,
) -> Vec<f32> {
    let (n, k) = (w.rows(), w.cols());
    let t = dy.len() / n;
    let (mut dx, dy) = (upload(device, before), upload(device, dy));
    let mut scratch = scratch(device, w.format(), [t, n, k], slab_rows);
    backward::input(device, dx.view_mut([t, k]), dy.view([t, n]), w, write, &mut scratch);
    download(device, &dx)
}

fn check_input(device: &Device, w: &Matrix, dy: &[f32], before: &[f32], write: Write, got: &[f32]) {
    let (n, k, weights, arch) = (w.rows(), w.cols(), exact(w), cuda(device).arch());
    let relative = rounding(arch, w.format(), n);
    let w_largest = largest(&weights);
    for (i, got) in got.iter().enumerate() {
        let (t, c) = (i / k, i % k);
        let row = &dy[t * n..(t + 1) * n];
        let start = if write == Write::Add { before[i] as f64 } else { 0.0 };
        let (mut want, mut size, mut w_size) = (start, 0.0, 0.0);
        for (j, dy) in row.iter().enumerate() {
            let term = *dy as f64 * weights[j * k + c] as f64;
            (want, size, w_size) = (want + term, size + term.abs(), w_size + weights[j * k + c].abs() as f64);
        }
        let dy_size: f64 = row.iter().map(|v| v.abs() as f64).sum();
        let below = 2f64.powi(-24) * (largest(row) * w_size + w_largest * dy_size);
        let bound = relative * size + below + 4.0 * 2f64.powi(-24) * (start.abs() + want.abs());
        let error = (*got as f64 - want).abs();
        let case = format!("{} {} ({}, {n}, {k}) {write:?}", name(device), w.format(), dy.len() / n);
        assert!(error <= bound, "{case} [{t}, {c}]: {got}, expected {want}, off {error} > {bound}");
    }
}

#[test]
fn gradients_of_weights_and_biases_are_those_of_f64_and_accumulate() {
    for device in devices() {
        for (i, (t, n, k)) in SIZES.into_iter().enumerate() {
            for format in [Format::F32, Format::BF16] {
                let (dy, x) = (Random::new(i as u64).normals(t * n), Random::new(i as u64 + 9).normals(t * k));
                let (mut dw, mut db) = (upload(&device, &vec![1.0f32; n * k]), upload(&device, &vec![1.0f32; n]));
                let (dys, xs) = (upload(&device, &dy), upload(&device, &x));
                let mut scratch = scratch(&device, format, [t, n, k], SLAB_ROWS);
                let views = (dys.view([t, n]), xs.view([t, k]));
                backward::weight(&device, dw.view_mut([n, k]), views.0, views.1, format, &mut scratch);
                backward::bias(&device, db.view_mut([n]), views.0);
                let case = format!("{} {format} ({t}, {n}, {k})", name(&device));
                let is_exact = format == Format::F32 || cuda(&device).arch() < 80;
                let relative = if is_exact { 0.0 } else { 2.1 * 2f64.powi(-8) } + (t + 2) as f64 * 2f64.powi(-24);
                let at = |j: usize, t: usize| dy[t * n + j] as f64;
                let of_weight = |i: usize, t: usize| at(i / k, t) * x[t * k + i % k] as f64;
                check_sums(&case, &download(&device, &dw), t, of_weight, relative);
                check_sums(&case, &download(&device, &db), t, at, (t + 2) as f64 * 2f64.powi(-24));
            }
        }
    }
}

/// `got[i]` is 1 and the sum of `term(i, 0..n)`.
fn check_sums(case: &str, got: &[f32], n: usize, term: impl Fn(usize, usize) -> f64, relative: f64) {
    for (i, got) in got.iter().enumerate() {
        let (want, size) = (0..n).map(|t| term(i, t)).fold((1.0, 1.0), |(w, s), v| (w + v, s + v.abs()));
        let error = (*got as f64 - want).abs();
        assert!(error <= relative * size, "{case} [{i}]: {got}, expected {want}, off {error} of {size}");
    }
}

#[test]
fn forward_products_of_training_have_the_bits_of_inference_and_f32_is_exact() {
    for device in devices() {
        // 1,030 tokens are enough to decode weights once.
        for (format, t) in
            [(Format::NF4, 1030), (Format::Q8_0, 1030), (Format::Q4_0, 1030), (Format::BF16, 20), (Format::F32, 20)]
        {
            let (n, k) = (9, 64);
            let w = on_gpu(&device, &matrix(format, n, k, 3));
            let (x, bias) = (Random::new(4).normals(t * k), Random::new(5).normals(n));
            let run = |is_training: bool| {
                let (x, bias) = (upload(&device, &x), upload(&device, &bias));
                let mut out: Buffer<f32> = upload(&device, &vec![f32::NAN; t * n]);
                let mut scratch = scratch(&device, format, [t, n, k], 1 << 10);
                let product = Product { out: out.view_mut([t, n]), weights: &w, bias: Some(bias.all()) };
                match is_training {
                    true => matmul::forward_training(&device, &mut [product], x.view([t, k]), &mut scratch),
                    false => matmul::forward(
                        &device,
                        Family::ByRows,
                        &mut [product],
                        Input::Rows(x.view([t, k])),
                        &mut scratch,
                    ),
                }
                download(&device, &out)
            };
            let got = run(true);
            let case = format!("{} {format}", name(&device));
            if format != Format::F32 {
                common::assert_same(&got, &run(false), &case);
                continue;
            }
            let weights = exact(&w);
            for (i, got) in got.iter().enumerate() {
                let term = |c: usize| x[i / n * k + c] as f64 * weights[i % n * k + c] as f64;
                let (want, size) = (0..k).map(term).fold((0.0, 0.0f64), |(w, s), v| (w + v, s + v.abs()));
                let (want, size) = (want + bias[i % n] as f64, size + bias[i % n].abs() as f64);
                assert!(
                    (*got as f64 - want).abs() <= (k + 2) as f64 * 2f64.powi(-24) * size,
                    "{case} [{i}] {got} {want}"
                );
            }
        }
    }
}

#[test]
fn adapters_and_their_gradients_are_those_of_f64() {
    for device in devices() {
        for (t, n, k, r) in [
            (9, 5, 33, 3),
            (40, 72, 64, 8),
            (130, 33, 129, 16),
            (20, 17, 64, 32),
            (300, 20, 40, 40),
            (133, 260, 132, 32),
        ] {
            let case = format!("{} ({t}, {n}, {k}) rank {r}", name(&device));
            let (x, a, b) = (normals(t * k, 1.0, 1), normals(r * k, 0.3, 2), normals(n * r, 0.3, 3));
            let (dy, y, dx) = (normals(t * n, 1.0, 4), normals(t * n, 1.0, 5), normals(t * k, 1.0, 6));
            let [xs, a_s, bs, dys] = [&x, &a, &b, &dy].map(|v| upload(&device, v));
            let [mut ys, mut dxs] = [&y, &dx].map(|v| upload(&device, v));
            let mut u: Buffer<f32> = Buffer::new(&device, t * r).unwrap();
            let mut v: Buffer<f32> = Buffer::new(&device, t * r).unwrap();
            let [mut da, mut db] = [r * k, n * r].map(|n| upload(&device, &vec![1.0f32; n]));
            let pair = LoraPair { a: a_s.view([r, k]), b: bs.view([n, r]), scale: 2.0 };
            lora::forward_training(&device, ys.view_mut([t, n]), xs.view([t, k]), pair, u.view_mut([t * r]));
            let gradients = LoraGradients { da: da.view_mut([r, k]), db: db.view_mut([n, r]) };
            let mut scratch = scratch(&device, Format::F32, [t, n, k], SLAB_ROWS);
            let saved = lora::backward::SavedForward { dy: dys.view([t, n]), x: xs.view([t, k]), u: u.view([t, r]) };
            lora::backward::parameters(&device, gradients, saved, pair, v.view_mut([t, r]), &mut scratch);
            lora::backward::input(&device, dxs.view_mut([t, k]), v.view([t, r]), pair, Write::Add);

            let low = products(t, k, r, |i, l| x[i * k + l], |l, j| 2.0 * a[j * k + l]);
            let back = products(t, n, r, |i, l| dy[i * n + l], |l, j| 2.0 * b[l * r + j]);
            let steps = [(t, n, r), (n, r, t), (r, k, t), (t, k, r)];
            let got = [&ys, &db, &da, &dxs].map(|buffer| download(&device, buffer));
            let value = |which: usize, i: usize, l: usize, j: usize| match which {
                0 => (low[i * r + l], f64::from(b[j * r + l])),
                1 => (low[l * r + j], f64::from(dy[l * n + i])),
                2 => (back[l * r + i], f64::from(x[l * k + j])),
                _ => (back[i * r + l], f64::from(a[l * k + j])),
            };
            for (which, ((rows, columns, terms), got)) in steps.into_iter().zip(&got).enumerate() {
                for (at, got) in got.iter().enumerate() {
                    let (i, j) = (at / columns, at % columns);
                    let before = [f64::from(y[at.min(t * n - 1)]), 1.0, 1.0, f64::from(dx[at.min(t * k - 1)])][which];
                    let (mut want, mut size) = (before, before.abs());
                    for l in 0..terms {
                        let ((sum, sum_size), factor) = value(which, i, l, j);
                        (want, size) = (want + sum * factor, size + sum_size * factor.abs());
                    }
                    // Two roundings to tf32 in each of two products where there are tensor cores.
                    let factors = if cuda(&device).arch() >= 80 { 4.1 * 2f64.powi(-11) } else { 0.0 };
                    let bound = (factors + (t + n + k + r) as f64 * 2f64.powi(-24)) * size;
                    let error = (f64::from(*got) - want).abs();
                    assert!(
                        i < rows && error <= bound,
                        "{case} {which}[{i}, {j}]: {got} {want}, off {error} > {bound}"
                    );
                }
            }
        }
    }
}

/// A row of activations with an infinity counts once, a weight beyond 65504 where bf16 has to become f16; the largest finite
/// activations fit.
#[test]
fn what_f16_cannot_hold_is_counted() {
    let [t, n, k] = [5, 70, 64];
    for device in &devices() {
        let mut values: Vec<f32> = Random::new(1).normals(n * k);
        (values[3], values[n * k - 1]) = (1e5, -2e38);
        let mut dy = Random::new(2).normals(t * n);
        dy[7] = 3e38;
        for (format, of_weights) in [(Format::BF16, 2 * u32::from(cuda(device).arch() < 80)), (Format::NF4, 0)] {
            let w = on_gpu(
                device,
                &if format == Format::NF4 { matrix(format, n, k, 3) } else { encode(format, n, k, &values) },
            );
            let mut scratch = scratch(device, format, [t, n, k], SLAB_ROWS);
            let mut count = |dy: &[f32]| {
                let (dy, mut dx) = (upload(device, dy), upload(device, &vec![0.0f32; t * k]));
                let (dy, dx) = (dy.view([t, n]), dx.view_mut([t, k]));
                backward::input(device, dx, dy, &w, Write::Replace, &mut scratch);
                scratch.overflows().unwrap()
            };
            let case = format!("{} {format}", name(device));
            assert_eq!(count(&dy), of_weights, "{case}: finite activations");
            let mut bad = dy.clone();
            (bad[n], bad[n + 1], bad[3 * n]) = (f32::INFINITY, f32::NAN, f32::NEG_INFINITY);
            // bf16 has the range of f32.
            let of_rows = if format == Format::BF16 && cuda(device).arch() >= 80 { 0 } else { 2 };
            assert_eq!(count(&bad), 2 * of_weights + of_rows, "{case}: two bad rows");
        }
    }
}

fn normals(n: usize, size: f32, seed: u64) -> Vec<f32> {
    Random::new(seed).normals(n).iter().map(|v| v * size).collect()
}

/// Values and the sums of the magnitudes of their terms.
fn products(
    rows: usize,
    terms: usize,
    columns: usize,
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<(f64, f64)> {
    let cell = |i: usize, j: usize| {
        let terms = (0..terms).map(|l| f64::from(a(i, l)) * f64::from(b(l, j)));
        terms.fold((0.0, 0.0), |(sum, size), v| (sum + v, size + v.abs()))
    };
    (0..rows).flat_map(|i| (0..columns).map(move |j| (i, j))).map(|(i, j)| cell(i, j)).collect()
}
