//! Backward of attention, recomputing the probabilities from the softmax's two saved numbers. Forward, for a query q:
//! `s_j = scale * q . k_j`, `p_j = exp(s_j - max) / sum`, `o = sum of p_j v_j`. So with `dp_j = do . v_j`:
//! `ds_j = p_j * (dp_j - do . o)`, `dq = scale * sum of ds_j k_j`, `dk_j += scale * ds_j q`, `dv_j += p_j do`.
//!
//! Two passes, each with one writer for every row: the first over queries gives dq and `do . o`; the second over keys takes
//! the queries that see them in order. Memory is a few rows whatever the length (Dao et al. 2022, arXiv 2205.14135).

use super::train::{with_scores, Heads, Sequence};
use crate::device::Device;
use crate::math;
use crate::ops::matmul::backward::cpu;
use crate::simd::{dot, per_isa};
use crate::view::{View, ViewMut};

/// What the forward pass left and what comes back.
pub struct Given<'a> {
    /// (T, H, D).
    pub out: View<'a, f32, 3>,
    /// (T, H, D).
    pub dout: View<'a, f32, 3>,
    /// (T, H, 2) of [`super::train::forward`].
    pub stats: View<'a, f32, 3>,
    /// (T, H): room for `do . o`.
    pub row_dots: ViewMut<'a, f32, 2>,
}

/// Gradients, all replaced: `dq` (T, H, D), `dk` and `dv` (T, Hkv, D).
pub struct Gradients<'a> {
    pub dq: ViewMut<'a, f32, 3>,
    pub dk: ViewMut<'a, f32, 3>,
    pub dv: ViewMut<'a, f32, 3>,
}

/// Computes all three.
pub fn backward(device: &Device, mut gradients: Gradients<'_>, mut given: Given<'_>, s: Sequence<'_>) {
    s.check();
    let ([t, n_heads, d], [_, n_kv, _]) = (s.q.shape(), s.k.shape());
    assert!(given.out.shape() == s.q.shape() && given.dout.shape() == s.q.shape());
    assert!(given.stats.shape() == [t, n_heads, 2] && given.row_dots.shape() == [t, n_heads]);
    assert!(gradients.dq.shape() == s.q.shape());
    assert!(gradients.dk.shape() == s.k.shape() && gradients.dv.shape() == s.k.shape());
    let cpu = cpu(device);
    let (out, dout, stats) = (given.out.host(), given.dout.host(), given.stats.host());
    let (dq, dots) = ((gradients.dq.host_mut(), d), (given.row_dots.host_mut(), 1));
    cpu.pool.for_chunk_pairs(s.is_worth_sharing(3), dq, dots, &|item, dq, dots| {
        let heads = Heads::new(&s, item / n_heads, item % n_heads);
        let rows = [&out[item * d..][..d], &dout[item * d..][..d]];
        let stats = [stats[2 * item], stats[2 * item + 1]];
        dots[0] = with_scores(heads.visible.len(), |scratch| query(cpu.isa, &heads, rows, stats, scratch, dq));
    });
    let dots = given.row_dots.as_view();
    let rest = Rest { s, dout, stats, dots: dots.host() };
    let (dk, dv) = ((gradients.dk.host_mut(), d), (gradients.dv.host_mut(), d));
    cpu.pool.for_chunk_pairs(s.is_worth_sharing(4), dk, dv, &|item, dk, dv| {
        key(cpu.isa, &rest, item / n_kv, item % n_kv, dk, dv);
    });
}

per_isa! {
    /// dq of one query from o and do; returns `do . o`.
    fn query(
        heads: &Heads<'_>, rows: [&[f32]; 2], stats: [f32; 2], scratch: &mut [f32], dq: &mut [f32],
    ) -> f32 = query_body;
}

#[inline(always)]
fn query_body(heads: &Heads<'_>, [o, d_o]: [&[f32]; 2], [max, sum]: [f32; 2], ds: &mut [f32], dq: &mut [f32]) -> f32 {
    let d = heads.q.len();
    let row_dot = dot(d_o, o);
    for (ds, j) in ds.iter_mut().zip(heads.visible.clone()) {
        let at = j * heads.stride;
        let p = math::exp(dot(heads.q, &heads.k[at..][..d]) * heads.scale - max) / sum;
        *ds = p * (dot(d_o, &heads.v[at..][..d]) - row_dot) * heads.scale;
    }
    dq.fill(0.0);
    for (ds, j) in ds.iter().zip(heads.visible.clone()) {
        for (y, k) in dq.iter_mut().zip(&heads.k[j * heads.stride..][..d]) {
            *y = ds.mul_add(*k, *y);
        }
    }
    row_dot
}

/// What the pass over keys reads.
struct Rest<'a> {
    s: Sequence<'a>,
    dout: &'a [f32],
    stats: &'a [f32],
    dots: &'a [f32],
}

per_isa! {
    /// dk and dv of one key: queries in order of position, then of head.
    fn key(rest: &Rest<'_>, j: usize, kv_head: usize, dk: &mut [f32], dv: &mut [f32]) = key_body;
}

#[inline(always)]
fn key_body(rest: &Rest<'_>, j: usize, kv_head: usize, dk: &mut [f32], dv: &mut [f32]) {
    let s = &rest.s;
    let ([_, n_heads, d], [_, n_kv, _]) = (s.q.shape(), s.k.shape());
    let group = n_heads / n_kv;
    let at = (j * n_kv + kv_head) * d;
    let (k, v) = (&s.k.host()[at..][..d], &s.v.host()[at..][..d]);
    dk.fill(0.0);
    dv.fill(0.0);
    for t in s.seen_by(j) {
        for h in kv_head * group..(kv_head + 1) * group {
            let item = t * n_heads + h;
            let (q, d_o) = (&s.q.host()[item * d..][..d], &rest.dout[item * d..][..d]);
            let p = math::exp(dot(q, k) * s.scale - rest.stats[2 * item]) / rest.stats[2 * item + 1];
            let ds = p * (dot(d_o, v) - rest.dots[item]) * s.scale;
            for (y, q) in dk.iter_mut().zip(q) {
                *y = ds.mul_add(*q, *y);
            }
            for (y, d_o) in dv.iter_mut().zip(d_o) {
                *y = p.mul_add(*d_o, *y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::train;
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    /// (T, H, Hkv, D, window).
    const CASES: [(usize, usize, usize, usize, usize); 8] = [
        (1, 1, 1, 2, 1),
        (2, 1, 1, 32, usize::MAX),
        (7, 4, 2, 33, 3),
        (17, 3, 1, 64, 16),
        (33, 2, 2, 16, 1),
        (40, 4, 1, 128, 16),
        (65, 2, 1, 256, usize::MAX),
        (20, 8, 2, 8, 19),
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
                train::forward(device, views.0, views.1, s);
                let (mut dq, mut dk, mut dv) =
                    (vec![f32::NAN; t * h * d], vec![f32::NAN; t * kv * d], vec![f32::NAN; t * kv * d]);
                let mut dots = vec![0.0; t * h];
                let given = Given {
                    out: View::new(&out, [t, h, d]),
                    dout: View::new(&dout, [t, h, d]),
                    stats: View::new(&stats, [t, h, 2]),
                    row_dots: ViewMut::new(&mut dots, [t, h]),
                };
                let gradients = Gradients {
                    dq: ViewMut::new(&mut dq, [t, h, d]),
                    dk: ViewMut::new(&mut dk, [t, kv, d]),
                    dv: ViewMut::new(&mut dv, [t, kv, d]),
                };
                backward(device, gradients, given, s);
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
