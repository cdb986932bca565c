//! The backward products against f64, and the rounding to bf16.

use super::*;
use crate::device::Device;
use crate::matrix::SharedBytes;
use crate::ops::lora::{self, LoraPair};
use crate::ops::matmul::{backward, tests::matrix, Scratch, Write};
use crate::ops::testing::{assert_same_on_every_isa, random};
use crate::view::{View, ViewMut};

const FORMATS: [Format; 7] =
    [Format::F32, Format::F16, Format::BF16, Format::Q8_0, Format::Q4_0, Format::Q5_0, Format::NF4];

/// (T, N, K in blocks of 64).
const SIZES: [(usize, usize, usize); 9] =
    [(1, 1, 1), (1, 129, 2), (2, 7, 1), (5, 128, 1), (6, 127, 3), (7, 300, 2), (25, 33, 5), (13, 2, 1), (2, 8193, 1)];

/// The CPU's backward products need none.
fn no_scratch(device: &Device) -> Scratch {
    Scratch::for_training(device, &[], None).unwrap()
}

/// `out[i, k]` and the sum of the magnitudes of its terms.
fn product(a: impl Fn(usize, usize) -> f32, b: &[f32], shape: Shape) -> Vec<(f64, f64)> {
    let cell = |i: usize, k: usize| {
        let terms = (0..shape.terms).map(|j| f64::from(a(i, j)) * f64::from(b[j * shape.columns + k]));
        terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
    };
    (0..shape.rows).flat_map(|i| (0..shape.columns).map(move |k| (i, k))).map(|(i, k)| cell(i, k)).collect()
}

fn check(what: &str, got: &[f32], want: &[(f64, f64)], relative: f64) {
    assert_eq!(got.len(), want.len());
    for (i, (got, (want, size))) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*got) - want).abs();
        assert!(error <= relative * (size + 1e-30), "{what}[{i}]: {got} {want}, off {error} of {size}");
    }
}

fn rounded(v: f32) -> f32 {
    from_bf16(to_bf16(v))
}

#[test]
fn the_gradient_of_the_input_equals_f64_for_every_format_on_every_isa() {
    for format in FORMATS {
        for (t, n, blocks) in SIZES {
            let k = if format.is_float() { blocks * 64 - 5 } else { blocks * format.block_len() };
            let w = matrix(format, n, k, 7);
            let (dy, before) = (random(t * n, 2.0, 8), random(t * k, 1.0, 9));
            let got = assert_same_on_every_isa(|device| {
                let scratch = &mut no_scratch(device);
                let (mut replaced, mut added) = (vec![f32::NAN; t * k], before.clone());
                let dy = View::new(&dy, [t, n]);
                backward::input(device, ViewMut::new(&mut replaced, [t, k]), dy, &w, Write::Replace, scratch);
                backward::input(device, ViewMut::new(&mut added, [t, k]), dy, &w, Write::Add, scratch);
                [replaced, added].concat()
            });
            let mut dense = vec![0.0; n * k];
            w.decode_rows(0..n, &mut dense);
            let exact = matches!(format, Format::F32 | Format::F16);
            let round = |v: f32| if exact { v } else { rounded(v) };
            dense.iter_mut().for_each(|v| *v = round(*v));
            let shape = Shape::new(t, n, k);
            let mut want = product(|i, j| round(dy[i * n + j]), &dense, shape);
            // 128 fused steps and the sum of blocks.
            check(&format!("{format} {t} {n} {k}"), &got[..t * k], &want, 1e-5);
            for (cell, before) in want.iter_mut().zip(&before) {
                *cell = (cell.0 + f64::from(*before), cell.1 + f64::from(before.abs()));
            }
            check(&format!("{format} {t} {n} {k} added"), &got[t * k..], &want, 1e-5);
        }
    }
}

#[test]
fn the_forward_product_of_training_equals_f64_for_every_format_on_every_isa() {
    for format in FORMATS {
        for (t, n, blocks) in SIZES {
            let k = if format.is_float() { blocks * 64 - 5 } else { blocks * format.block_len() };
            let w = matrix(format, n, k, 7);
            let (x, bias) = (random(t * k, 2.0, 8), random(n, 1.0, 9));
            let mut dense = vec![0.0; n * k];
            w.decode_rows(0..n, &mut dense);
            for isa in crate::Isa::ALL {
                let Some(device) = Device::cpu_with_isa(3, isa) else { continue };
                let Device::Cpu(cpu) = &device else { unreachable!("instruction sets are the CPU's") };
                let is_rounded = has_bf16(cpu) && !matches!(format, Format::F32 | Format::F16);
                let is_integer = crate::ops::matmul::quantize::has_integer_blocks(format);
                let round = |v: f32| if is_rounded { rounded(v) } else { v };
                let mut got = vec![f32::NAN; t * n];
                let mut scratch = crate::ops::matmul::Scratch::new(&device, t, k, n).unwrap();
                let (out, bias) = (ViewMut::new(&mut got, [t, n]), Some(View::new(&bias, [n])));
                let p = crate::ops::matmul::Product { out, weights: &w, bias };
                crate::ops::matmul::forward_training(&device, &mut [p], View::new(&x, [t, k]), &mut scratch);
                let transposed: Vec<f32> = (0..k * n).map(|i| round(dense[i % n * k + i / n])).collect();
                let shape = Shape::new(t, k, n);
                let mut want = product(|i, j| round(x[i * k + j]), &transposed, shape);
                for (i, cell) in want.iter_mut().enumerate() {
                    let b = f64::from(bias.unwrap().host()[i % n]);
                    // Integer codes of x are off by half a step of its block's largest value.
                    *cell =
                        (cell.0 + b, cell.1 + b.abs() + if !is_rounded && is_integer { 3.0 * k as f64 } else { 0.0 });
                }
                check(&format!("{format} {t} {n} {k} {}", isa.name()), &got, &want, 1e-5);
            }
        }
    }
}

/// What a quantised base gives is what its decoded copy gives, but for the rounding of both factors to bf16.
#[test]
fn a_quantised_base_gives_the_gradient_of_its_decoded_copy() {
    let (t, n, k) = (9, 260, 128);
    let dy = random(t * n, 1.0, 3);
    let device = Device::cpu(2).unwrap();
    let scratch = &mut no_scratch(&device);
    for format in [Format::BF16, Format::Q8_0, Format::Q4_0, Format::Q5_0, Format::NF4] {
        let w = matrix(format, n, k, 4);
        let mut dense = vec![0.0; n * k];
        w.decode_rows(0..n, &mut dense);
        let bytes: Vec<u8> = dense.iter().flat_map(|v| v.to_le_bytes()).collect();
        let copy = Matrix::new(Format::F32, n, k, SharedBytes::from_vec(bytes));
        let mut gradient = |w: &Matrix| {
            let mut dx = vec![0.0; t * k];
            backward::input(&device, ViewMut::new(&mut dx, [t, k]), View::new(&dy, [t, n]), w, Write::Replace, scratch);
            dx
        };
        let (got, want) = (gradient(&w), gradient(&copy));
        let sizes = product(|i, j| dy[i * n + j], &dense, Shape::new(t, n, k));
        for ((got, want), (_, size)) in got.iter().zip(&want).zip(sizes) {
            // Each factor by at most 2^-9 of itself.
            assert!((got - want).abs() as f64 <= size * 2.02 / 512.0, "{format}: {got} {want}");
        }
    }
}

#[test]
fn gradients_of_weights_and_biases_equal_f64_and_accumulate() {
    for (t, n, k) in [(1, 1, 1), (3, 65, 7), (129, 6, 64), (200, 31, 130), (256, 5, 1)] {
        let (dy, x, before) = (random(t * n, 2.0, 1), random(t * k, 1.0, 2), random(n * k + n, 1.0, 3));
        let got = assert_same_on_every_isa(|device| {
            let scratch = &mut no_scratch(device);
            let mut out = before.clone();
            let (dw, db) = out.split_at_mut(n * k);
            let dy = View::new(&dy, [t, n]);
            backward::weight(device, ViewMut::new(dw, [n, k]), dy, View::new(&x, [t, k]), Format::F32, scratch);
            backward::bias(device, ViewMut::new(db, [n]), dy);
            out
        });
        let mut want = product(|i, j| dy[j * n + i], &x, Shape::new(n, t, k));
        want.extend(product(|_, _| 1.0, &dy, Shape::new(1, t, n)));
        for (cell, before) in want.iter_mut().zip(&before) {
            *cell = (cell.0 + f64::from(*before), cell.1 + f64::from(before.abs()));
        }
        check(&format!("{t} {n} {k}"), &got, &want, 1e-5);
    }
}

#[test]
fn low_rank_gradients_equal_f64_and_accumulate() {
    for (t, k, n, r) in [(1, 1, 1, 1), (3, 33, 5, 4), (130, 64, 17, 16), (7, 100, 131, 7), (2, 5, 3, 129)] {
        let (x, a, b) = (random(t * k, 1.0, 1), random(r * k, 0.3, 2), random(n * r, 0.3, 3));
        let (dy, scale) = (random(t * n, 1.0, 4), 2.0);
        let got = assert_same_on_every_isa(|device| {
            let scratch = &mut no_scratch(device);
            let pair = LoraPair { a: View::new(&a, [r, k]), b: View::new(&b, [n, r]), scale };
            let (mut y, mut u, mut v) = (vec![0.0; t * n], vec![0.0; t * r], vec![0.0; t * r]);
            let x = View::new(&x, [t, k]);
            lora::forward(device, ViewMut::new(&mut y, [t, n]), x, pair, ViewMut::new(&mut u, [t * r]));
            let (mut da, mut db, mut dx) = (vec![1.0; r * k], vec![1.0; n * r], vec![1.0; t * k]);
            let gradients =
                lora::backward::LoraGradients { da: ViewMut::new(&mut da, [r, k]), db: ViewMut::new(&mut db, [n, r]) };
            let (dy, u) = (View::new(&dy, [t, n]), View::new(&u, [t, r]));
            let saved = lora::backward::SavedForward { dy, x, u };
            lora::backward::parameters(device, gradients, saved, pair, ViewMut::new(&mut v, [t, r]), scratch);
            lora::backward::input(device, ViewMut::new(&mut dx, [t, k]), View::new(&v, [t, r]), pair, Write::Add);
            [da, db, dx].concat()
        });
        let at = |m: &[f32], i: usize, j: usize, columns: usize| f64::from(m[i * columns + j]) * f64::from(scale);
        let u = |t: usize, c: usize| (0..k).map(|l| at(&a, c, l, k) * f64::from(x[t * k + l])).sum::<f64>();
        let v = |t: usize, c: usize| (0..n).map(|l| at(&dy, t, l, n) * f64::from(b[l * r + c])).sum::<f64>();
        let (us, vs): (Vec<f64>, Vec<f64>) = (0..t * r).map(|i| (u(i / r, i % r), v(i / r, i % r))).unzip();
        let cell = |terms: &mut dyn Iterator<Item = f64>| terms.fold((1.0, 1.0), |(s, m), v| (s + v, m + v.abs()));
        let mut want = Vec::new();
        want.extend((0..r * k).map(|i| cell(&mut (0..t).map(|t| vs[t * r + i / k] * f64::from(x[t * k + i % k])))));
        want.extend((0..n * r).map(|i| cell(&mut (0..t).map(|t| us[t * r + i % r] * f64::from(dy[t * n + i / r])))));
        want.extend((0..t * k).map(|i| cell(&mut (0..r).map(|c| vs[i / k * r + c] * f64::from(a[c * k + i % k])))));
        check(&format!("{t} {k} {n} {r}"), &got, &want, 2e-5);
    }
}

#[test]
fn rounding_to_bf16_is_to_nearest_even_without_subnormals() {
    for bits in (0..=u32::MAX).step_by(65_521) {
        let v = f32::from_bits(bits);
        let got = from_bf16(to_bf16(v));
        if v.is_nan() {
            assert!(got.is_nan());
        } else if v.abs() < f32::MIN_POSITIVE {
            assert_eq!(got, 0.0);
        } else {
            assert_eq!(got.to_bits(), half::bf16::from_f32(v).to_f32().to_bits(), "{v:e}");
        }
    }
}
