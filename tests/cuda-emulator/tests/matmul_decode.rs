//! Products of one to eight rows: every format on every architecture, against twins in the kernels' order of sums and
//! against f64.

mod common;
mod decode;

use decode::{assert_same, cuda, dense, for_each_arch, matrix, product, products, random, twin, upload, FORMATS};
use lichen_kernels::formats::Format;
use lichen_kernels::Matrix;

/// (N, K, T): awkward ones, and the widths of Gemma 3 1B and Qwen 2.5 0.5B.
const SIZES: [(usize, usize, usize); 12] = [
    (1, 32, 1),
    (3, 64, 2),
    (8, 96, 1),
    (9, 128, 3),
    (33, 160, 5),
    (257, 128, 1),
    (33, 896, 4),
    (9, 1152, 8),
    (40, 1152, 1),
    (17, 1184, 7),
    (8, 3584, 8),
    (3, 9728, 6),
];

/// K that the format has: NF4 wants whole blocks; floats have none.
fn cols(format: Format, k: usize) -> usize {
    match format {
        Format::NF4 => k.next_multiple_of(64),
        _ if format.is_float() => k - 1,
        _ => k,
    }
}

/// What a product may be off, as a share of the sum of magnitudes, and as a share of the largest x times the sum of the
/// weights' magnitudes.
fn tolerance(format: Format, k: usize, arch: u32) -> (f64, f64) {
    match format {
        // Half a step of 32512 for each x; a rounding for each of K / 128 blocks of a lane and few more.
        Format::Q8_0 | Format::Q4_0 => ((k as f64 / 128.0 + 16.0) * 2f64.powi(-24), 0.5 / 32512.0),
        // x and the level rounded to f16, sums of f32 in an order that is the tensor core's.
        Format::NF4 if arch >= 80 => (2.0 * 2f64.powi(-11) + (k as f64 / 16.0 + 24.0) * 2f64.powi(-23), 2f64.powi(-35)),
        // Eight roundings of a chain in f16 at most, those of x and of the level, each 2^-11; x far below the row's
        // largest is rounded to 2^-25 of 1024.
        Format::NF4 => (10.0 * 2f64.powi(-11), 2f64.powi(-35)),
        // A lane's share of K in turn, then five folds and the splits.
        _ => ((k as f64 / 16.0 + 24.0) * 2f64.powi(-24), 0.0),
    }
}

fn assert_near(got: &[f32], on_gpu: &Matrix, x: &[f32], bias: Option<&[f32]>, what: &str) {
    let (n, k) = (on_gpu.rows(), on_gpu.cols());
    let w = dense(on_gpu);
    let (share, of_largest) = tolerance(on_gpu.format(), k, on_gpu.packed().codes.cuda().arch());
    for (i, got) in got.iter().enumerate() {
        let (x, w) = (&x[i / n * k..][..k], &w[i % n * k..][..k]);
        let terms = || x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64);
        let b = bias.map_or(0.0, |b| b[i % n] as f64);
        let want = terms().sum::<f64>() + b;
        let largest = x.iter().fold(0.0f64, |m, v| m.max(v.abs() as f64));
        let weights: f64 = w.iter().map(|w| w.abs() as f64).sum();
        let bound =
            share * terms().map(f64::abs).sum::<f64>() + of_largest * largest * weights + 2f64.powi(-23) * want.abs();
        let error = (*got as f64 - want).abs();
        assert!(error <= bound, "{what}[{i}]: {got}, f64 has {want}: off {error:e}, allowed {bound:e}");
    }
}

#[test]
fn every_format_at_awkward_sizes_equals_its_twin_and_is_near_f64() {
    for_each_arch(|device| {
        let arch = cuda(device).arch();
        for format in FORMATS {
            for (n, k, t) in SIZES {
                let k = cols(format, k);
                let what = format!("sm_{arch} {format} N {n}, K {k}, T {t}");
                let w = upload(device, &matrix(format, n, k, 7));
                let (x, bias) = (random(t * k, 2.0, 8), random(n, 1.0, 9));
                let got = product(device, &w, &x, t, Some(&bias));
                assert_near(&got, &w, &x, Some(&bias), &what);
                let splits = twin::splits(cuda(device).n_sms(), format, &[n], k, false);
                if let Some(want) = twin::product(&w, &x, Some(&bias), splits) {
                    assert_same(&got, &want, &what);
                }
            }
        }
    });
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for_each_arch(|device| {
        for format in FORMATS {
            let (t, n, k) = (8, 50, cols(format, 1152));
            let w = upload(device, &matrix(format, n, k, 1));
            let x = random(t * k, 1.0, 2);
            let all = product(device, &w, &x, t, None);
            for rows in [1, 2, 3, 5, 6] {
                let got = product(device, &w, &x[k..(1 + rows) * k], rows, None);
                let what = format!("sm_{} {format}: rows 1..{} of {t}", cuda(device).arch(), 1 + rows);
                assert_same(&got, &all[n..(1 + rows) * n], &what);
            }
        }
    });
}

#[test]
fn many_rows_of_f32_go_through_in_groups() {
    for_each_arch(|device| {
        let (t, n, k) = (19, 20, 200);
        let w = upload(device, &matrix(Format::F32, n, k, 1));
        let x = random(t * k, 1.0, 2);
        let got = product(device, &w, &x, t, None);
        assert_near(&got, &w, &x, None, "F32, 19 rows");
        assert_same(&got[11 * n..12 * n], &product(device, &w, &x[11 * k..12 * k], 1, None), "row 11 of 19");
    });
}

#[test]
fn rows_longer_than_shared_memory_are_cut_into_chunks() {
    for_each_arch(|device| {
        for (format, k) in FORMATS.into_iter().zip([29568, 29568, 29568, 18944, 18944, 18944]) {
            for t in [1, 2] {
                let what = format!("sm_{} {format}, K {k}, T {t}", cuda(device).arch());
                let w = upload(device, &matrix(format, 9, k, 3));
                let x = random(t * k, 1.0, 4);
                let got = product(device, &w, &x, t, None);
                assert_near(&got, &w, &x, None, &what);
                let splits = twin::splits(cuda(device).n_sms(), format, &[9], k, false);
                if let Some(want) = twin::product(&w, &x, None, splits) {
                    assert_same(&got, &want, &what);
                }
            }
        }
    });
}

#[test]
fn several_products_share_x_in_one_launch_or_by_format() {
    for_each_arch(|device| {
        for formats in [[Format::Q8_0; 3], [Format::NF4; 3], [Format::Q8_0, Format::F16, Format::Q4_0]] {
            let (t, k, rows) = (2, 256, [70, 24, 9]);
            let weights: Vec<Matrix> =
                formats.iter().zip(rows).map(|(f, n)| upload(device, &matrix(*f, n, k, n as u64))).collect();
            let biases: Vec<Vec<f32>> = rows.iter().map(|n| random(*n, 1.0, 5)).collect();
            let biases: Vec<Option<&[f32]>> = vec![Some(&biases[0]), None, Some(&biases[2])];
            let x = random(t * k, 1.0, 3);
            let got = products(device, &weights.iter().collect::<Vec<_>>(), &x, t, &biases);
            for ((got, w), bias) in got.iter().zip(&weights).zip(&biases) {
                let what = format!("sm_{} {} of {formats:?}", cuda(device).arch(), w.format());
                assert_near(got, w, &x, *bias, &what);
                let shared = if formats[0] == formats[1] { &rows[..] } else { &[w.rows()] };
                let splits = twin::splits(cuda(device).n_sms(), w.format(), shared, k, false);
                if let Some(want) = twin::product(w, &x, *bias, splits) {
                    assert_same(got, &want, &what);
                }
            }
        }
    });
}

#[test]
fn extremes_neither_overflow_nor_vanish() {
    for_each_arch(|device| {
        for format in FORMATS {
            let (n, k) = (9, 256);
            let what = |case: &str| format!("sm_{} {format}: {case}", cuda(device).arch());
            // The largest weights and the largest x of a sign; then x that f16 cannot hold, next to one it can.
            let largest = upload(
                device,
                &decode::encode(format, n, k, &vec![if format == Format::F16 { 6e4 } else { 1e5 }; n * k]),
            );
            for x in [1e30f32, -60000.0, 1e-25] {
                let x = vec![x; k];
                assert_near(&product(device, &largest, &x, 1, None), &largest, &x, None, &what("constant"));
            }
            let w = upload(device, &matrix(format, n, k, 6));
            for spike in [0, 31, 32, 127, 128, 255] {
                let mut x = vec![0.0; k];
                x[spike] = 3.0e5;
                assert_near(&product(device, &w, &x, 1, None), &w, &x, None, &what("one-hot"));
                x.fill(1e-3);
                x[spike] = 2.0e5;
                assert_near(&product(device, &w, &x, 1, None), &w, &x, None, &what("outlier"));
            }
            assert!(product(device, &w, &vec![0.0; k], 1, None).iter().all(|y| *y == 0.0), "{}", what("zeros"));
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = random(2 * k, 1.0, 3);
                x[77] = bad;
                let y = product(device, &w, &x, 2, None);
                assert!(y[..n].iter().all(|y| !y.is_finite()), "{}: {bad} gave {:?}", what("lost"), &y[..n]);
                assert!(y[n..].iter().all(|y| y.is_finite()), "{}: {bad} reached another row", what("spread"));
            }
        }
    });
}

#[test]
fn legal_bytes_that_no_encoder_writes() {
    for_each_arch(|device| {
        // -128 in Q8_0 against the largest codes of x: the sum stays inside 32 bits.
        let block = [&[0x00, 0x3c][..], &[0x80; 32]].concat();
        let data = lichen_kernels::SharedBytes::from_vec(block.repeat(8));
        let w = upload(device, &Matrix::new(Format::Q8_0, 1, 256, data));
        let got = product(device, &w, &[1.0; 256], 1, None);
        assert_same(&got, &[-128.0 * 256.0], &format!("sm_{}", cuda(device).arch()));
    });
}

#[test]
fn nf4_in_halves_is_as_good_as_its_x_in_halves() {
    for_each_arch(|device| {
        let (n, k) = (64, 1152);
        let w = upload(device, &matrix(Format::NF4, n, k, 21));
        let values = dense(&w);
        // As it is after a norm: most values near 1, some outliers of a hundred times that.
        let mut x = random(k, 2.0, 22);
        x.iter_mut().step_by(97).for_each(|v| *v *= 100.0);
        let got = product(device, &w, &x, 1, None);
        let mut worst = 0.0f64;
        for (got, w) in got.iter().zip(values.chunks(k)) {
            let terms = || x.iter().zip(w).map(|(x, w)| *x as f64 * *w as f64);
            let norm = terms().map(|t| t * t).sum::<f64>().sqrt();
            worst = worst.max((*got as f64 - terms().sum::<f64>()).abs() / norm);
        }
        println!("sm_{}: off by {worst:.1e} of the norm of the products", cuda(device).arch());
        // Roundings are independent, so they add as squares. Those of x and of the level are 2^-11 at most each, those of a
        // chain up to seven times that for the products beside an outlier.
        let allowed = if cuda(device).arch() >= 80 { 7e-4 } else { 2e-3 };
        assert!(worst <= allowed, "off by {worst}");
    });
}
