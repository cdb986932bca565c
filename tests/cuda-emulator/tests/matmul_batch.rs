//! Products of batches on a GPU: against f64 models of what the kernels round (matmul_prefill/model.rs), and the same bits
//! for a row whatever the number of rows.

mod common;
#[path = "matmul_prefill/model.rs"]
mod model;

use common::{assert_same, cuda, devices, download, encode, name, on_gpu, upload, Random};
use lichen_kernels::formats::Format;
use lichen_kernels::ops::matmul::{self, Family, Input, Product, Scratch};
use lichen_kernels::{Buffer, Device, Matrix};
use model::Model;

const FORMATS: [Format; 5] = [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16];

/// (T, N, K): every number of columns of a kernel, one less and one more; K is rounded up to blocks of the format. A warp
/// has 32 rows, a block four or eight of them; 1,184 has splits.
const SIZES: [(usize, usize, usize); 9] = [
    (1, 1, 32),
    (3, 31, 128),
    (8, 33, 160),
    (9, 127, 64),
    (16, 129, 896),
    (17, 8, 1184),
    (33, 65, 96),
    (64, 40, 256),
    (65, 7, 128),
];

fn weights(device: &Device, format: Format, n: usize, k: usize, seed: u64) -> Matrix {
    let w: Vec<f32> = Random::new(seed).normals(n * k).iter().map(|v| v * 0.05).collect();
    on_gpu(device, &encode(format, n, k, &w))
}

fn product(device: &Device, w: &Matrix, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (n, k) = (w.rows(), w.cols());
    let t = x.len() / k;
    let (x, bias) = (upload(device, x), bias.map(|b| upload(device, b)));
    let mut out: Buffer<f32> = upload(device, &vec![f32::NAN; t * n]);
    let mut scratch = Scratch::new(device, t, k, n).unwrap();
    let p = Product { out: out.view_mut([t, n]), weights: w, bias: bias.as_ref().map(|b| b.all()) };
    matmul::forward(device, Family::Batch, &mut [p], Input::Rows(x.view([t, k])), &mut scratch);
    download(device, &out)
}

/// Among ordinary rows: zeros, very large and very small ones, one outlier.
fn rows(t: usize, k: usize, seed: u64) -> Vec<f32> {
    let mut x = Random::new(seed).normals(t * k);
    for (i, row) in x.chunks_exact_mut(k).enumerate() {
        match i % 8 {
            1 => row.fill(0.0),
            2 => row.iter_mut().for_each(|v| *v *= 1e6),
            3 => row.iter_mut().for_each(|v| *v *= 1e-30),
            4 => row[k / 2] = 3e4,
            _ => {}
        }
    }
    x
}

#[test]
fn every_format_equals_its_model_at_awkward_sizes() {
    // Before sm_80 these are the kernels of decoding, which have tests of their own.
    for device in devices().iter().filter(|device| cuda(device).arch() >= 80) {
        for format in FORMATS {
            for (i, (t, n, k)) in SIZES.into_iter().enumerate() {
                let k = k.next_multiple_of(format.block_len().max(32));
                let w = weights(device, format, n, k, i as u64);
                let (x, bias) = (rows(t, k, i as u64 + 100), Random::new(i as u64 + 200).normals(n));
                let got = product(device, &w, &x, Some(&bias));
                let model = Model::new(cuda(device).arch(), w.packed());
                for (at, got) in got.iter().enumerate() {
                    let (row, column) = (at / n, at % n);
                    let e = model.product(&x[row * k..(row + 1) * k], column);
                    let want = e.value + f64::from(bias[column]);
                    let bound = e.bound + (want.abs() + e.value.abs()) * 2f64.powi(-23);
                    let error = (f64::from(*got) - want).abs();
                    let case = format!("{} {format} ({t}, {n}, {k})[{row}, {column}]", name(device));
                    assert!(error <= bound, "{case}: {got}, model {want}, off {error} > {bound}");
                    let off = (e.value - e.exact).abs();
                    assert!(off <= e.rounding, "{case}: model {}, exact {}, {off} > {}", e.value, e.exact, e.rounding);
                }
            }
        }
    }
}

/// Four of one format are two launches, another format is one more; the first three are enough for blocks of eight warps on
/// a small device. A bias for every other.
#[test]
fn matrices_that_meet_the_same_rows_each_equal_their_model() {
    let (t, k) = (17, 1184);
    let x = rows(t, k, 1);
    for device in devices().iter().filter(|device| cuda(device).arch() >= 80) {
        for format in FORMATS {
            let other = if format == Format::Q8_0 { Format::NF4 } else { Format::Q8_0 };
            let k = k.next_multiple_of(format.block_len().max(64));
            let x = if x.len() == t * k { x.clone() } else { rows(t, k, 1) };
            let shapes = [(1100, format), (300, format), (7, format), (64, format), (33, other)];
            let w: Vec<Matrix> = shapes.iter().map(|(n, format)| weights(device, *format, *n, k, *n as u64)).collect();
            let biases: Vec<Vec<f32>> = shapes.iter().map(|(n, _)| Random::new(*n as u64 + 9).normals(*n)).collect();
            let biases_there: Vec<Buffer<f32>> = biases.iter().map(|b| upload(device, b)).collect();
            let nothing = |(n, _): &(usize, Format)| upload(device, &vec![f32::NAN; t * n]);
            let mut out: Vec<Buffer<f32>> = shapes.iter().map(nothing).collect();
            let mut products: Vec<Product<'_>> = Vec::new();
            for (i, out) in out.iter_mut().enumerate() {
                let bias = (i % 2 == 0).then(|| biases_there[i].all());
                products.push(Product { out: out.view_mut([t, shapes[i].0]), weights: &w[i], bias });
            }
            let mut scratch = Scratch::new(device, t, k, 1100).unwrap();
            let there = upload(device, &x);
            matmul::forward(device, Family::Batch, &mut products, Input::Rows(there.view([t, k])), &mut scratch);
            for (i, (n, format)) in shapes.into_iter().enumerate() {
                let (got, model) = (download(device, &out[i]), Model::new(cuda(device).arch(), w[i].packed()));
                for (at, got) in got.iter().enumerate() {
                    let (row, column) = (at / n, at % n);
                    let e = model.product(&x[row * k..(row + 1) * k], column);
                    let want = e.value + if i % 2 == 0 { f64::from(biases[i][column]) } else { 0.0 };
                    let bound = e.bound + (want.abs() + e.value.abs()) * 2f64.powi(-23);
                    let error = (f64::from(*got) - want).abs();
                    let case = format!("{} {format} of {i} [{row}, {column}]", name(device));
                    assert!(error <= bound, "{case}: {got}, model {want}, off {error} > {bound}");
                }
            }
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_every_batch() {
    for device in devices() {
        for format in [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16, Format::F32] {
            let (n, k) = (70, 1152);
            let w = weights(&device, format, n, k, 1);
            let x = rows(64, k, 2);
            let all = product(&device, &w, &x, None);
            for t in [1, 3, 9, 16, 40] {
                let got = product(&device, &w, &x[..t * k], None);
                assert_same(&got, &all[..t * n], (name(&device), format, t));
            }
            let last = product(&device, &w, &x[63 * k..], None);
            assert_same(&last, &all[63 * n..], (name(&device), format, "the last alone"));
        }
    }
}

#[test]
fn an_infinity_reaches_its_own_row_alone() {
    for device in devices() {
        let (n, k) = (40, 128);
        let w = weights(&device, Format::NF4, n, k, 1);
        let mut x = rows(5, k, 3);
        let clean = product(&device, &w, &x, None);
        x[2 * k + 7] = f32::INFINITY;
        let got = product(&device, &w, &x, None);
        assert!(got[2 * n..3 * n].iter().all(|v| !v.is_finite()), "{}", name(&device));
        assert_same(&got[..2 * n], &clean[..2 * n], name(&device));
        assert_same(&got[3 * n..], &clean[3 * n..], name(&device));
    }
}
