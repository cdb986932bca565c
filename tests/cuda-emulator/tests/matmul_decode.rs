//! Products of one to eight rows: every format on every architecture, against twins in the kernels' order of sums and
//! against f64.

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
fn tolerance(format: Format, k: usize) -> (f64, f64) {
    match format {
        // Half a step of 32512 for each x; a rounding for each of K / 128 blocks of a lane and few more.
        Format::Q8_0 | Format::Q4_0 => ((k as f64 / 128.0 + 16.0) * 2f64.powi(-24), 0.5 / 32512.0),
        // Eight roundings of a chain in halves at most, those of x and of the level, each 2^-11; x far below the row's
        // largest is rounded to 2^-25 of 1024.
        Format::NF4 => (10.0 * 2f64.powi(-11), 2f64.powi(-35)),
        // A lane's share of K in turn, then five folds and the splits.
        _ => ((k as f64 / 16.0 + 24.0) * 2f64.powi(-24), 0.0),
    }
}

fn assert_near(got: &[f32], on_gpu: &Matrix, x: &[f32], bias: Option<&[f32]>, what: &str) {
    let (n, k) = (on_gpu.rows(), on_gpu.cols());
    let w = dense(on_gpu);
    let (share, of_largest) = tolerance(on_gpu.format(), k);
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
