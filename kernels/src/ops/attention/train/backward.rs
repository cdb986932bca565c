//! Backward of attention, recomputing the probabilities from the softmax's two saved numbers. Forward, for a query q:
//! `s_j = scale * q . k_j`, `p_j = exp(s_j - max) / sum`, `o = sum of p_j v_j`. So with `dp_j = do . v_j`:
//! `ds_j = scale * p_j * (dp_j - do . o)`, `dq = sum of ds_j k_j`, `dk_j += ds_j q`, `dv_j += p_j do`.
//!
//! A head and a block of queries at a time; heads that share keys, and blocks, are added in order.

use std::ops::Range;

use super::{cuda, host_rows, host_rows_mut, products, with_scores, Block, Sequence, Starts};
use crate::device::{Cpu, Device};
use crate::math;
use crate::ops::matmul::gemm::{gemm, Coefficients, Precision, Rows, Shape};
use crate::ops::Write;
use crate::simd::{dot, per_isa};
use crate::view::{View, ViewMut};

/// What the forward pass left and what comes back.
#[derive(Clone, Copy)]
pub struct SavedForward<'a> {
    /// (T, H, D).
    pub out: View<'a, f32, 3>,
    /// (T, H, D).
    pub dout: View<'a, f32, 3>,
    /// (T, H, 2) of [`super::forward`].
    pub stats: View<'a, f32, 3>,
}

/// Gradients, all replaced: `dq` (T, H, D), `dk` and `dv` (T, Hkv, D).
pub struct Gradients<'a> {
    pub dq: ViewMut<'a, f32, 3>,
    pub dk: ViewMut<'a, f32, 3>,
    pub dv: ViewMut<'a, f32, 3>,
}

impl<'a> SavedForward<'a> {
    /// One of several sequences that lie side by side.
    fn host_rows(&self, rows: &Range<usize>) -> SavedForward<'a> {
        let [out, dout, stats] = [&self.out, &self.dout, &self.stats].map(|x| host_rows(x, rows));
        SavedForward { out, dout, stats }
    }
}

impl Gradients<'_> {
    fn host_rows(&mut self, rows: &Range<usize>) -> Gradients<'_> {
        let (dq, dk) = (host_rows_mut(&mut self.dq, rows), host_rows_mut(&mut self.dk, rows));
        Gradients { dq, dk, dv: host_rows_mut(&mut self.dv, rows) }
    }
}

/// Computes all three.
pub fn backward(device: &Device, gradients: Gradients<'_>, saved: SavedForward<'_>, s: Sequence<'_>) {
    check(&gradients, &saved, &s);
    match device {
        Device::Cpu(cpu) => backward_cpu(cpu, gradients, saved, s),
        Device::Cuda(cuda) => cuda::backward(cuda, gradients, saved, s, None),
    }
}

/// The same for all sequences of a batch, whose rows lie one after the other. Each comes out as it does alone.
pub fn backward_batch(
    device: &Device,
    mut gradients: Gradients<'_>,
    saved: SavedForward<'_>,
    s: Sequence<'_>,
    starts: &Starts,
) {
    check(&gradients, &saved, &s);
    assert_eq!(starts.n_rows(), s.q.shape()[0]);
    match device {
        Device::Cpu(cpu) => {
            for rows in starts.sequences() {
                backward_cpu(cpu, gradients.host_rows(&rows), saved.host_rows(&rows), s.host_rows(&rows));
            }
        }
        Device::Cuda(cuda) => cuda::backward(cuda, gradients, saved, s, Some(starts)),
    }
}

fn check(gradients: &Gradients<'_>, saved: &SavedForward<'_>, s: &Sequence<'_>) {
    s.check();
    let [t, n_heads, _] = s.q.shape();
    assert!(saved.out.shape() == s.q.shape() && saved.dout.shape() == s.q.shape());
    assert!(saved.stats.shape() == [t, n_heads, 2] && gradients.dq.shape() == s.q.shape());
    assert!(gradients.dk.shape() == s.k.shape() && gradients.dv.shape() == s.k.shape());
}

fn backward_cpu(cpu: &Cpu, mut gradients: Gradients<'_>, saved: SavedForward<'_>, s: Sequence<'_>) {
    let n_heads = s.q.shape()[1];
    let (dq, dk, dv) = (gradients.dq.host_mut(), gradients.dk.host_mut(), gradients.dv.host_mut());
    dk.fill(0.0);
    dv.fill(0.0);
    for h in 0..n_heads {
        let (q_start, k_start) = s.starts(h);
        for block in s.blocks() {
            with_scores(&block, |p, ds| {
                products(cpu, p, &s, &block, &s.q.host()[q_start..], &s.k.host()[k_start..]);
                products(cpu, ds, &s, &block, &saved.dout.host()[q_start..], &s.v.host()[k_start..]);
                slopes(cpu, &s, &saved, &block, h, p, ds);
                let part = Part { cpu, s: &s, block: &block, h };
                part.queries(dq, ds);
                part.keys(dk, ds, s.q.host());
                part.keys(dv, p, saved.dout.host());
            });
        }
    }
}

/// From `p` with raw scores and `ds` with dp, both (queries, keys), to probabilities and slopes.
fn slopes(
    cpu: &Cpu,
    s: &Sequence<'_>,
    saved: &SavedForward<'_>,
    block: &Block,
    h: usize,
    p: &mut [f32],
    ds: &mut [f32],
) {
    let ([_, n_heads, d], n_keys) = (s.q.shape(), block.keys.len());
    let ds = &mut ds[..p.len()];
    cpu.pool.for_chunk_pairs(true, (p, n_keys), (ds, n_keys), &|i, p, ds| {
        let t = block.queries.start + i;
        let visible = s.visible(t).start - block.keys.start..t + 1 - block.keys.start;
        for x in [&mut *p, &mut *ds] {
            x[..visible.start].fill(0.0);
            x[visible.end..].fill(0.0);
        }
        let item = t * n_heads + h;
        let head = QueryHead {
            out: &saved.out.host()[item * d..][..d],
            dout: &saved.dout.host()[item * d..][..d],
            max: saved.stats.host()[2 * item],
            sum: saved.stats.host()[2 * item + 1],
            scale: s.scale,
        };
        row(cpu.isa, head, &mut p[visible.clone()], &mut ds[visible]);
    });
}

/// One head of a query: its output and the gradient of that, (D) each, and its softmax.
#[derive(Clone, Copy)]
struct QueryHead<'a> {
    out: &'a [f32],
    dout: &'a [f32],
    max: f32,
    sum: f32,
    scale: f32,
}

per_isa! {
    fn row(head: QueryHead<'_>, p: &mut [f32], ds: &mut [f32]) = row_body;
}

#[inline(always)]
fn row_body(head: QueryHead<'_>, p: &mut [f32], ds: &mut [f32]) {
    let QueryHead { out, dout, max, sum, scale } = head;
    let row_dot = dot(dout, out);
    for (p, ds) in p.iter_mut().zip(ds) {
        *p = math::exp(*p * scale - max) / sum;
        *ds = *p * (*ds - row_dot) * scale;
    }
}

/// One head of one block.
struct Part<'a> {
    cpu: &'a Cpu,
    s: &'a Sequence<'a>,
    block: &'a Block,
    h: usize,
}

impl Part<'_> {
    /// `dq[i] = sum over j of ds[i, j] * k[j]`.
    fn queries(&self, dq: &mut [f32], ds: &[f32]) {
        let (block, (q_stride, k_stride), (q_start, k_start)) = (self.block, self.s.strides(), self.s.starts(self.h));
        let n_keys = block.keys.len();
        let k = &self.s.k.host()[block.keys.start * k_stride + k_start..];
        let out = &mut dq[block.queries.start * q_stride + q_start..];
        let columns = self.s.q.shape()[2];
        let shape = Shape { rows: block.queries.len(), terms: n_keys, columns, out_stride: q_stride };
        let rows = Rows::Floats { data: k, stride: k_stride };
        gemm(self.cpu, out, Coefficients::of(ds, n_keys), rows, shape, Precision::Exact, Write::Replace);
    }

    /// `d[j] += sum over i of a[i, j] * x[i]`.
    fn keys(&self, d: &mut [f32], a: &[f32], x: &[f32]) {
        let (block, (q_stride, k_stride), (q_start, k_start)) = (self.block, self.s.strides(), self.s.starts(self.h));
        let n_keys = block.keys.len();
        let x = &x[block.queries.start * q_stride + q_start..];
        let out = &mut d[block.keys.start * k_stride + k_start..];
        let columns = self.s.q.shape()[2];
        let shape = Shape { rows: n_keys, terms: block.queries.len(), columns, out_stride: k_stride };
        let rows = Rows::Floats { data: x, stride: q_stride };
        gemm(self.cpu, out, Coefficients::transposed(a, n_keys), rows, shape, Precision::Exact, Write::Add);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    /// (T, H, Hkv, D, window).
    const CASES: [(usize, usize, usize, usize, usize); 9] = [
        (1, 1, 1, 2, 1),
        (2, 1, 1, 32, usize::MAX),
        (7, 4, 2, 33, 3),
        (17, 3, 1, 64, 16),
        (33, 2, 2, 16, 1),
        (40, 4, 1, 128, 16),
        (65, 2, 1, 256, usize::MAX),
        (20, 8, 2, 8, 19),
        (300, 2, 1, 16, 100),
    ];

    #[test]
    fn equals_the_f64_oracle_on_every_isa() {
        for case in CASES {
            let (t, h, kv, d, window) = case;
            let scale = 1.0 / (d as f32).sqrt();
            let (q, k, v) = (random(t * h * d, 1.5, 1), random(t * kv * d, 1.5, 2), random(t * kv * d, 1.0, 3));
            let dout = random(t * h * d, 1.0, 4);
            let got = assert_same_on_every_isa(|device| {
                let s = Sequence {
                    q: View::new(&q, [t, h, d]),
                    k: View::new(&k, [t, kv, d]),
                    v: View::new(&v, [t, kv, d]),
                    window,
                    scale,
                };
                let (mut out, mut stats) = (vec![0.0; t * h * d], vec![0.0; t * h * 2]);
                let views = (ViewMut::new(&mut out, [t, h, d]), ViewMut::new(&mut stats, [t, h, 2]));
                super::super::forward(device, views.0, views.1, s);
                let (mut dq, mut dk, mut dv) =
                    (vec![f32::NAN; t * h * d], vec![f32::NAN; t * kv * d], vec![f32::NAN; t * kv * d]);
                let saved = SavedForward {
                    out: View::new(&out, [t, h, d]),
                    dout: View::new(&dout, [t, h, d]),
                    stats: View::new(&stats, [t, h, 2]),
                };
                let gradients = Gradients {
                    dq: ViewMut::new(&mut dq, [t, h, d]),
                    dk: ViewMut::new(&mut dk, [t, kv, d]),
                    dv: ViewMut::new(&mut dv, [t, kv, d]),
                };
                backward(device, gradients, saved, s);
                [out, dq, dk, dv].concat()
            });
            let want = oracle(case, [&q, &k, &v, &dout], scale as f64);
            for (i, (got, (want, magnitude))) in got.iter().zip(&want).enumerate() {
                let error = (*got as f64 - want).abs();
                // Exponents are sums of D products of up to 2.25, scaled by 1 / sqrt(D): off by 1e-6 and a little.
                assert!(error <= 4e-6 * (magnitude + 1e-3), "{case:?}[{i}]: {got} {want}, off {error} of {magnitude}");
            }
        }
    }

    /// out, dq, dk, dv and for each the sum of magnitudes of its terms.
    fn oracle(
        (t, h, kv, d, window): (usize, usize, usize, usize, usize),
        [q, k, v, dout]: [&[f32]; 4],
        scale: f64,
    ) -> Vec<(f64, f64)> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64).sum::<f64>();
        let mut out = vec![(0.0, 0.0); t * h * d];
        let (mut dq, mut dk, mut dv) = (out.clone(), vec![(0.0, 0.0); t * kv * d], vec![(0.0, 0.0); t * kv * d]);
        let add = |cell: &mut (f64, f64), term: f64, size: f64| *cell = (cell.0 + term, cell.1 + size.abs());
        for i in 0..t {
            for head in 0..h {
                let qi = (i * h + head) * d;
                let row = |j: usize| (j * kv + head / (h / kv)) * d;
                let visible = (i + 1).saturating_sub(window)..i + 1;
                let e: Vec<f64> =
                    visible.clone().map(|j| (dot(&q[qi..qi + d], &k[row(j)..row(j) + d]) * scale).exp()).collect();
                let sum: f64 = e.iter().sum();
                let dp: Vec<f64> = visible.clone().map(|j| dot(&dout[qi..qi + d], &v[row(j)..row(j) + d])).collect();
                let mean: f64 = e.iter().zip(&dp).map(|(e, dp)| e / sum * dp).sum();
                for (n, j) in visible.enumerate() {
                    let p = e[n] / sum;
                    // The difference cancels, and its parts' roundings stay.
                    let (ds, size) = (p * (dp[n] - mean) * scale, p * (dp[n].abs() + mean.abs()) * scale);
                    for c in 0..d {
                        add(&mut out[qi + c], p * v[row(j) + c] as f64, p * v[row(j) + c] as f64);
                        add(&mut dq[qi + c], ds * k[row(j) + c] as f64, size * k[row(j) + c] as f64);
                        add(&mut dk[row(j) + c], ds * q[qi + c] as f64, size * q[qi + c] as f64);
                        add(&mut dv[row(j) + c], p * dout[qi + c] as f64, p * dout[qi + c] as f64);
                    }
                }
            }
        }
        [out, dq, dk, dv].concat()
    }
}
