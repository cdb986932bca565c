//! F32, F16, BF16 and NF4 weights: f32 arithmetic by the sixteen-lane dot product of [`crate::simd::dot`].
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::ops::Range;

use crate::formats::{float, Format};
use crate::matrix::Matrix;
use crate::ops::matmul::nf4;
use crate::ops::matmul::quantize::BY_ROW_MAX;
use crate::simd::{dot, per_isa, Isa};
#[cfg(target_arch = "x86_64")]
use crate::simd::{fold_lanes, LANES};
use crate::view::View;

/// Weight rows and rows of `x` whose products are summed side by side: 4 x 6 accumulators of sixteen lanes fill the
/// AVX-512 register file.
const W_ROWS: usize = 4;
const X_ROWS: usize = 6;

thread_local! {
    /// Weight rows of one tile as f32, grown to the widest matrix once.
    static DECODED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Calls `store(t, y)` for each row `t` of `x`, with `y[i] = w[rows.start + i] . x[t]`.
pub fn matmul(
    isa: Isa,
    weights: &Matrix,
    rows: Range<usize>,
    x: View<'_, f32, 2>,
    store: &mut dyn FnMut(usize, &[f32]),
) {
    let cols = weights.cols();
    let [n_rows, _] = x.shape();
    let n = rows.len();
    DECODED.with_borrow_mut(|buffer| {
        let w_rows = if n_rows == 1 { W_ROWS } else { n };
        let needed = w_rows * cols + n * n_rows.min(X_ROWS);
        if buffer.len() < needed {
            buffer.resize(needed, 0.0);
        }
        let (decoded, sums) = buffer.split_at_mut(w_rows * cols);
        let mut direct = |(t, x): (usize, &[f32])| {
            let sums = &mut sums[..n];
            let is_done = nf4_matvec(isa, weights, rows.clone(), x, &mut decoded[..cols], sums);
            if is_done {
                store(t, sums);
            }
            is_done
        };
        if n_rows <= BY_ROW_MAX && x.host().chunks_exact(cols).enumerate().all(&mut direct) {
            return;
        }
        if n_rows == 1 {
            // A few rows at a time: what was decoded is still in the first-level cache when it is multiplied.
            for (first, y) in rows.clone().step_by(W_ROWS).zip(sums[..n].chunks_mut(W_ROWS)) {
                let decoded = &mut decoded[..y.len() * cols];
                decode(isa, weights, first..first + y.len(), decoded);
                products(isa, cols, decoded, x.host(), y);
            }
            return store(0, &sums[..n]);
        }
        decode(isa, weights, rows, decoded);
        for (i, x) in x.host().chunks(X_ROWS * cols).enumerate() {
            let t = x.len() / cols;
            let sums = &mut sums[..t * n];
            products(isa, cols, decoded, x, sums);
            for (j, y) in sums.chunks_exact(n).enumerate() {
                store(i * X_ROWS + j, y);
            }
        }
    });
}

/// Products of NF4 rows straight from their nibbles; false when this is not NF4 or the instruction set has no such kernel.
fn nf4_matvec(isa: Isa, weights: &Matrix, rows: Range<usize>, x: &[f32], scratch: &mut [f32], out: &mut [f32]) -> bool {
    weights.format() == Format::NF4 && {
        let (row_bytes, blocks) = (weights.cols() / 2, weights.cols() / crate::formats::nf4::BLOCK);
        let nibbles = &weights.bytes()[rows.start * row_bytes..rows.end * row_bytes];
        nf4::matvec(isa, nibbles, &weights.absmax()[rows.start * blocks..rows.end * blocks], x, scratch, out)
    }
}

/// Rows as f32.
fn decode(isa: Isa, weights: &Matrix, rows: Range<usize>, out: &mut [f32]) {
    let row_bytes = weights.format().row_bytes(weights.cols()).expect("floats have whole blocks");
    let bytes = &weights.bytes()[rows.start * row_bytes..rows.end * row_bytes];
    if weights.format() == Format::NF4 {
        let blocks = weights.cols() / crate::formats::nf4::BLOCK;
        return nf4::decode(isa, bytes, &weights.absmax()[rows.start * blocks..rows.end * blocks], out);
    }
    decode_floats(isa, weights.format(), bytes, out);
}

per_isa! {
    fn decode_floats(format: Format, bytes: &[u8], out: &mut [f32]) = decode_body;
}

#[inline(always)]
fn decode_body(format: Format, bytes: &[u8], out: &mut [f32]) {
    match format {
        Format::F32 => float::decode_f32(bytes, out),
        Format::F16 => float::decode_f16(bytes, out),
        Format::BF16 => float::decode_bf16(bytes, out),
        other => unreachable!("{other} is not a float format"),
    }
}

/// `sums[t, n] = w[n] . x[t]` for `w` (N, K) and `x` (T, K), both f32.
pub fn products(isa: Isa, cols: usize, w: &[f32], x: &[f32], sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        // SAFETY:
        // - This instruction set is only chosen where `Isa::is_available` found it.
        return unsafe { products_avx512(cols, w, x, sums) };
    }
    if !super::simd::float::products(isa, cols, w, x, sums) {
        products_plain(isa, cols, w, x, sums);
    }
}

per_isa! {
    fn products_plain(cols: usize, w: &[f32], x: &[f32], sums: &mut [f32]) = products_body;
}

#[inline(always)]
fn products_body(cols: usize, w: &[f32], x: &[f32], sums: &mut [f32]) {
    let n = w.len() / cols;
    for (x, sums) in x.chunks_exact(cols).zip(sums.chunks_exact_mut(n)) {
        for (w, y) in w.chunks_exact(cols).zip(sums) {
            *y = dot(w, x);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn products_avx512(cols: usize, w: &[f32], x: &[f32], sums: &mut [f32]) {
    let (n, t) = (w.len() / cols, x.len() / cols);
    assert!(sums.len() == n * t);
    for n0 in (0..n).step_by(W_ROWS) {
        let w = &w[n0 * cols..];
        let width = W_ROWS.min(n - n0);
        let mut at = 0;
        while at < t {
            let x = &x[at * cols..];
            let sums = &mut sums[at * n + n0..];
            // SAFETY:
            // - `x` holds at least the rows of the tile, `w` at least `width`.
            at += match (t - at, width) {
                (6.., W_ROWS) => tile::<W_ROWS, 6>(cols, w, x, n, sums),
                (3.., W_ROWS) => tile::<W_ROWS, 3>(cols, w, x, n, sums),
                (_, W_ROWS) => tile::<W_ROWS, 1>(cols, w, x, n, sums),
                _ => (0..width).map(|i| tile::<1, 1>(cols, &w[i * cols..], x, n, &mut sums[i..])).last().unwrap_or(1),
            };
        }
    }
}

/// `N` rows of weights by `T` rows of `x`, and how many rows of `x` that were.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
unsafe fn tile<const N: usize, const T: usize>(
    cols: usize,
    w: &[f32],
    x: &[f32],
    stride: usize,
    sums: &mut [f32],
) -> usize {
    use std::arch::x86_64::*;
    assert!(w.len() >= N * cols && x.len() >= T * cols && sums.len() >= (T - 1) * stride + N);
    let mut acc = [[_mm512_setzero_ps(); T]; N];
    for k in (0..cols).step_by(LANES) {
        let left = cols - k;
        let mask = if left >= LANES { u16::MAX } else { (1u16 << left) - 1 };
        let mut xs = [_mm512_setzero_ps(); T];
        for (t, v) in xs.iter_mut().enumerate() {
            *v = _mm512_maskz_loadu_ps(mask, x.as_ptr().add(t * cols + k));
        }
        for (i, acc) in acc.iter_mut().enumerate() {
            let wv = _mm512_maskz_loadu_ps(mask, w.as_ptr().add(i * cols + k));
            for (a, v) in acc.iter_mut().zip(&xs) {
                *a = _mm512_fmadd_ps(wv, *v, *a);
            }
        }
    }
    for (i, acc) in acc.iter().enumerate() {
        for (t, a) in acc.iter().enumerate() {
            let mut lanes = [0.0f32; LANES];
            _mm512_storeu_ps(lanes.as_mut_ptr(), *a);
            sums[t * stride + i] = fold_lanes(lanes);
        }
    }
    T
}
