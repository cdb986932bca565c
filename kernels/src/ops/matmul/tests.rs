//! Oracles in f64, equal bits across instruction sets, and decode against prefill.

use std::sync::Arc;

use super::*;
use crate::formats::{float, nf4, q4_0, q5_0, q8_0};
use crate::matrix::SharedBytes;
use crate::ops::testing::{assert_same_on_every_isa, random};

pub(super) fn matrix(format: Format, rows: usize, cols: usize, seed: u64) -> Matrix {
    let w = random(rows * cols, 0.5, seed);
    let mut bytes = Vec::new();
    match format {
        Format::F32 => w.iter().for_each(|v| bytes.extend(v.to_le_bytes())),
        Format::F16 => float::encode_f16(&w, &mut bytes),
        Format::BF16 => float::encode_bf16(&w, &mut bytes),
        Format::Q8_0 => q8_0::encode(&w, &mut bytes),
        Format::Q4_0 => q4_0::encode(&w, &mut bytes),
        Format::Q5_0 => q5_0::encode(&w, &mut bytes),
        Format::NF4 => {
            let mut absmax = Vec::new();
            nf4::encode(&w, &mut bytes, &mut absmax);
            return Matrix::new_nf4(rows, cols, SharedBytes::from_vec(bytes), Arc::from(absmax));
        }
        other => panic!("{other}"),
    }
    Matrix::new(format, rows, cols, SharedBytes::from_vec(bytes))
}

fn product(device: &Device, w: &Matrix, x: &[f32], t: usize, bias: Option<&[f32]>) -> Vec<f32> {
    let (n, k) = (w.rows(), w.cols());
    let mut out = vec![f32::NAN; t * n];
    let mut scratch = Scratch::new(device, t, k, n).unwrap();
    let p = Product { out: ViewMut::new(&mut out, [t, n]), weights: w, bias: bias.map(|b| View::new(b, [n])) };
    forward(device, Family::ByRows, &mut [p], Input::Rows(View::new(x, [t, k])), &mut scratch);
    out
}

const FORMATS: [Format; 7] =
    [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0, Format::Q5_0, Format::NF4];

/// (T, N, K in blocks of the format or, for floats, in values).
const SIZES: [(usize, usize, usize); 11] = [
    (1, 1, 1),
    (1, 17, 3),
    (1, 65, 5),
    (2, 31, 2),
    (3, 50, 2),
    (4, 1, 3),
    (5, 33, 1),
    (11, 32, 3),
    (12, 64, 2),
    (13, 40, 4),
    (25, 100, 3),
];

fn cols(format: Format, blocks: usize) -> usize {
    if format.is_float() {
        blocks * 32 - blocks
    } else {
        blocks * format.block_len()
    }
}

#[test]
fn every_format_equals_its_f64_oracle_at_awkward_sizes_on_every_isa() {
    for format in FORMATS {
        for (t, n, blocks) in SIZES {
            let k = cols(format, blocks);
            let w = matrix(format, n, k, 7);
            let (x, bias) = (random(t * k, 2.0, 8), random(n, 1.0, 9));
            let got = assert_same_on_every_isa(|device| product(device, &w, &x, t, Some(&bias)));
            let mut dense = vec![0.0; n * k];
            w.decode_rows(0..n, &mut dense);
            // Per block the codes of x are off by half a step of its largest value.
            let step = if quantize::has_integer_blocks(format) { 0.5 / 32512.0 } else { 0.0 };
            for i in 0..t * n {
                let (row_x, row_w) = (&x[i / n * k..][..k], &dense[i % n * k..][..k]);
                let terms = || row_x.iter().zip(row_w).map(|(a, b)| *a as f64 * *b as f64);
                let want = terms().sum::<f64>() + bias[i % n] as f64;
                let magnitude = terms().map(f64::abs).sum::<f64>() + want.abs();
                let amax = |v: &[f32]| v.iter().fold(0.0f64, |m, v| m.max(v.abs() as f64));
                let bound = 1e-6 * magnitude + step * amax(row_x) * amax(row_w) * k as f64;
                let error = (got[i] as f64 - want).abs();
                assert!(error <= bound, "{format} ({t}, {n}, {k})[{i}]: {} {want}, off {error} > {bound}", got[i]);
            }
        }
    }
}

#[test]
fn a_row_gives_the_same_bits_alone_and_in_any_batch() {
    for format in FORMATS {
        let (t, n, k) = (27, 50, cols(format, 3));
        let w = matrix(format, n, k, 1);
        let x = random(t * k, 1.0, 2);
        let device = Device::cpu(2).unwrap();
        let all = product(&device, &w, &x, t, None);
        // So few that they meet the weights one by one, and the next number.
        for few in 1..=quantize::BY_ROW_MAX + 1 {
            for (rows, want) in x.chunks(few * k).zip(all.chunks(few * n)) {
                assert_eq!(product(&device, &w, rows, rows.len() / k, None), want, "{format}, {few} rows");
            }
        }
    }
}

#[test]
fn several_products_of_different_formats_share_x() {
    let (t, k) = (3, 128);
    let weights: Vec<Matrix> = [Format::Q8_0, Format::NF4, Format::F32]
        .into_iter()
        .zip(1..)
        .map(|(f, s)| matrix(f, 40 + s as usize, k, s))
        .collect();
    let x = random(t * k, 1.0, 3);
    let device = Device::cpu(2).unwrap();
    let mut outs: Vec<Vec<f32>> = weights.iter().map(|w| vec![0.0; t * w.rows()]).collect();
    let mut products: Vec<Product> = outs
        .iter_mut()
        .zip(&weights)
        .map(|(o, w)| Product { out: ViewMut::new(o, [t, w.rows()]), weights: w, bias: None })
        .collect();
    let mut scratch = Scratch::new(&device, t, k, 0).unwrap();
    forward(&device, Family::ByRows, &mut products, Input::Rows(View::new(&x, [t, k])), &mut scratch);
    for (out, w) in outs.iter().zip(&weights) {
        assert_eq!(*out, product(&device, w, &x, t, None), "{}", w.format());
    }
}

#[test]
fn extremes_neither_overflow_nor_vanish() {
    // The largest codes of every format against the largest codes of x: the integer sum stays inside 32 bits.
    for format in [Format::Q8_0, Format::Q4_0, Format::Q5_0, Format::NF4] {
        let k = 2 * format.block_len();
        let n = 17;
        let w = match format {
            Format::Q8_0 => {
                // -128 never comes from our encoder but is a legal byte.
                let block = [&[0x00, 0x3c][..], &[0x80; 32]].concat();
                Matrix::new(format, n, k, SharedBytes::from_vec(block.repeat(n * 2)))
            }
            Format::Q4_0 | Format::Q5_0 => {
                let block = [&[0x00, 0x3c][..], &vec![0x00; format.block_bytes() - 2]].concat();
                Matrix::new(format, n, k, SharedBytes::from_vec(block.repeat(n * 2)))
            }
            _ => Matrix::new_nf4(n, k, SharedBytes::from_vec(vec![0; n * k / 2]), Arc::from(vec![1.0; n * 2])),
        };
        for sign in [1.0f32, -1.0] {
            for t in [1, 2] {
                let x = vec![sign * 3.0; t * k];
                let got = assert_same_on_every_isa(|device| product(device, &w, &x, t, None));
                let weight = match format {
                    Format::Q8_0 => -128.0,
                    Format::Q5_0 => -16.0,
                    Format::Q4_0 => -8.0,
                    _ => -1.0,
                };
                let want = sign * 3.0 * weight * k as f32;
                assert!(got.iter().all(|y| (y - want).abs() <= 1e-5 * want.abs()), "{format}: {} {want}", got[0]);
            }
        }
    }
}

#[test]
fn nan_and_infinity_in_x_reach_the_output_and_zero_rows_give_zero() {
    for format in FORMATS {
        let k = cols(format, 4);
        let w = matrix(format, 20, k, 5);
        for t in [1, 3] {
            for bad in [f32::NAN, f32::INFINITY] {
                let mut x = random(t * k, 1.0, 6);
                x[k - 1] = bad;
                let got = assert_same_on_every_isa(|device| product(device, &w, &x, t, None));
                assert!(got[..20].iter().all(|y| !y.is_finite()), "{format}: {bad}");
                assert!(got[20..].iter().all(|y| y.is_finite()), "{format}: {bad}");
            }
            let zero = assert_same_on_every_isa(|device| product(device, &w, &vec![0.0; t * k], t, None));
            assert!(zero.iter().all(|y| *y == 0.0), "{format}");
        }
    }
}
