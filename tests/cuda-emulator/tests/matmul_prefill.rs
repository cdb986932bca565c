//! Products of many rows on a GPU against f64 models of them.
//!
//! A model rounds what the kernels round (activations, weights, on sm_53 the sums of sixteen products in f16) and sums the
//! rest exactly, so the bound covers f32 sums alone: an error of one misplaced product does not hide in it. Beside that the
//! model itself must be as near to the exact product as its roundings allow.

mod common;
#[path = "matmul_prefill/model.rs"]
mod model;

use std::sync::Arc;

use common::{cuda, devices, download, encode, name, on_gpu, upload, Random};
use lichen_kernels::formats::Format;
use lichen_kernels::ops::matmul::{self, Family, Input, Product, Scratch};
use lichen_kernels::{Buffer, Device, Matrix, SharedBytes};
use model::Model;

const FORMATS: [Format; 5] = [Format::Q8_0, Format::Q4_0, Format::NF4, Format::F16, Format::BF16];

/// (T, N, K): every size of a tile, one less and one more; K is rounded up to blocks of the format.
const SIZES: [(usize, usize, usize); 12] = [
    (9, 1, 32),
    (15, 7, 64),
    (16, 8, 96),
    (17, 33, 128),
    (63, 63, 160),
    (64, 64, 896),
    (65, 65, 1184),
    (127, 127, 128),
    (128, 257, 96),
    (129, 129, 32),
    (200, 257, 160),
    (9, 64, 1184),
];

fn matrix(format: Format, rows: usize, cols: usize, seed: u64) -> Matrix {
    let w: Vec<f32> = Random::new(seed).normals(rows * cols).iter().map(|v| v * 0.05).collect();
    encode(format, rows, cols, &w)
}

/// `out` (T, N) of rows `x` (T, K).
fn product(device: &Device, w: &Matrix, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (n, k) = (w.rows(), w.cols());
    let t = x.len() / k;
    let x = upload(device, x);
    let bias = bias.map(|b| upload(device, b));
    let mut out: Buffer<f32> = upload(device, &vec![f32::NAN; t * n]);
    let mut scratch = Scratch::new(device, t, k, n).unwrap();
    let p = Product { out: out.view_mut([t, n]), weights: w, bias: bias.as_ref().map(|b| b.all()) };
    matmul::forward(device, Family::ByRows, &mut [p], Input::Rows(x.view([t, k])), &mut scratch);
    download(device, &out)
}

/// Rows that a kernel may get wrong alone, among ordinary ones: zeros, one value alone, very large, all equal, very small,
/// one outlier, the largest magnitude negative.
fn rows(t: usize, k: usize, seed: u64) -> Vec<f32> {
    let mut x = Random::new(seed).normals(t * k);
    for (i, row) in x.chunks_exact_mut(k).enumerate() {
        match i {
            1 => row.fill(0.0),
            2 => {
                row.fill(0.0);
                row[k - 1 - k / 3] = 1.0;
            }
            3 => row.iter_mut().for_each(|v| *v *= 1e6),
            4 => row.fill(-3.0),
            5 => row.iter_mut().for_each(|v| *v *= 1e-36),
            6 => row[k / 2] = 3e4,
            7 => row.iter_mut().for_each(|v| *v = -v.abs() * 1e30),
            _ => {}
        }
    }
    x
}

#[test]
fn every_format_equals_its_model_at_awkward_sizes() {
    for device in devices() {
        for format in FORMATS {
            for (i, (t, n, k)) in SIZES.into_iter().enumerate() {
                check(&device, format, t, n, k, i as u64);
            }
        }
    }
}

/// Widths that are no multiple of anything, which the float formats alone can have.
#[test]
fn float_rows_of_any_width() {
    for device in devices() {
        for format in [Format::F16, Format::BF16] {
            for (t, n, k) in [(9, 5, 1), (17, 70, 33), (20, 9, 129)] {
                check_exactly(&device, format, t, n, k, 5);
            }
        }
    }
}

fn check(device: &Device, format: Format, t: usize, n: usize, k: usize, seed: u64) {
    check_exactly(device, format, t, n, k.next_multiple_of(format.block_len().max(32)), seed);
}

fn check_exactly(device: &Device, format: Format, t: usize, n: usize, k: usize, seed: u64) {
    let weights = on_gpu(device, &matrix(format, n, k, seed));
    let x = rows(t, k, seed + 100);
    let bias: Vec<f32> = Random::new(seed + 200).normals(n);
    let got = product(device, &weights, &x, Some(&bias));
    let model = Model::new(cuda(device).arch(), weights.packed());
    let case = format!("{} {format} ({t}, {n}, {k})", name(device));
    for (i, got) in got.iter().enumerate() {
        let (row, column) = (i / n, i % n);
        let x = &x[row * k..(row + 1) * k];
        let e = model.product(x, column);
        let want = e.value + bias[column] as f64;
        let error = (*got as f64 - want).abs();
        let bound = e.bound + (want.abs() + e.value.abs()) * 2f64.powi(-23);
        assert!(error <= bound, "{case} [{row}, {column}]: {got}, model {want}, off {error} > {bound}");
        let off = (e.value - e.exact).abs();
        assert!(
            off <= e.rounding,
            "{case} [{row}, {column}]: model {}, exact {}, {off} > {}",
            e.value,
            e.exact,
            e.rounding
        );
    }
}

/// Whatever tile, and however K is shared between blocks.
#[test]
fn a_row_has_the_same_bits_in_every_batch() {
    for device in devices() {
        for format in FORMATS {
            // K of two splits where the rows are few; rows for the largest tile.
            for (n, k) in [(64usize, 1184usize), (257, 128)] {
                let k = k.next_multiple_of(format.block_len());
                let weights = on_gpu(&device, &matrix(format, n, k, 1));
                let x = Random::new(2).normals(200 * k);
                let all = product(&device, &weights, &x, None);
                for (first, t) in [(0, 9), (3, 65), (60, 128), (100, 100)] {
                    let part = product(&device, &weights, &x[first * k..(first + t) * k], None);
                    let what = format!("{} {format} ({n}, {k}): {t} rows from {first}", name(&device));
                    common::assert_same(&part, &all[first * n..(first + t) * n], what);
                }
            }
        }
    }
}

#[test]
fn nan_and_infinity_reach_their_row_alone() {
    for device in devices() {
        for format in FORMATS {
            let (t, n, k) = (11, 20, 128);
            let weights = on_gpu(&device, &matrix(format, n, k, 5));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = Random::new(6).normals(t * k);
                x[4 * k + 77] = bad;
                let got = product(&device, &weights, &x, None);
                for (i, row) in got.chunks_exact(n).enumerate() {
                    let all =
                        if i == 4 { row.iter().all(|y| !y.is_finite()) } else { row.iter().all(|y| y.is_finite()) };
                    assert!(all, "{} {format} {bad}: row {i}: {row:?}", name(&device));
                }
            }
        }
    }
}

/// The largest codes against the largest activations: nothing overflows on the way.
#[test]
fn the_largest_codes_do_not_overflow() {
    for device in devices() {
        let (t, n, k) = (9, 9, 1024);
        let q8_0 = [&[0x00, 0x3c][..], &[0x80; 32]].concat().repeat(n * k / 32);
        let q4_0 = [&[0x00, 0x3c][..], &[0x00; 16]].concat().repeat(n * k / 32);
        let f16 = [0x00, 0xfb].repeat(n * k);
        let cases = [
            (Matrix::new(Format::Q8_0, n, k, SharedBytes::from_vec(q8_0)), -128.0),
            (Matrix::new(Format::Q4_0, n, k, SharedBytes::from_vec(q4_0)), -8.0),
            (Matrix::new_nf4(n, k, SharedBytes::from_vec(vec![0; n * k / 2]), Arc::from(vec![1.0; n * k / 64])), -1.0),
            (Matrix::new(Format::F16, n, k, SharedBytes::from_vec(f16)), -57344.0),
        ];
        for (weights, value) in cases {
            let got = product(&device, &on_gpu(&device, &weights), &vec![1.9990234f32; t * k], None);
            let want = 1.9990234 * value * k as f32;
            let what = format!("{} {}: {} for {want}", name(&device), weights.format(), got[0]);
            // On sm_53 sixteen equal products are summed in f16.
            assert!(got.iter().all(|y| (y - want).abs() <= 4e-3 * want.abs()), "{what}");
        }
    }
}

#[test]
fn products_of_different_formats_share_their_rows() {
    for device in devices() {
        let (t, k) = (19, 128);
        let weights: Vec<Matrix> = [Format::BF16, Format::Q8_0, Format::F32]
            .into_iter()
            .zip(1..)
            .map(|(f, seed)| on_gpu(&device, &matrix(f, 40 + seed as usize, k, seed)))
            .collect();
        let x = Random::new(3).normals(t * k);
        let rows = upload(&device, &x);
        let mut outs: Vec<Buffer<f32>> = weights.iter().map(|w| Buffer::new(&device, t * w.rows()).unwrap()).collect();
        let mut products: Vec<Product> = outs
            .iter_mut()
            .zip(&weights)
            .map(|(o, w)| Product { out: o.view_mut([t, w.rows()]), weights: w, bias: None })
            .collect();
        let mut scratch = Scratch::new(&device, t, k, 50).unwrap();
        matmul::forward(&device, Family::ByRows, &mut products, Input::Rows(rows.view([t, k])), &mut scratch);
        for (out, w) in outs.iter().zip(&weights) {
            let what = format!("{} {}", name(&device), w.format());
            common::assert_same(&download(&device, out), &product(&device, w, &x, None), what);
        }
    }
}
