//! Attention of one whole sequence for training: no cache, and the softmax's two numbers kept for the backward pass
//! ([`super::backward`]). Order of operations, and so every bit, as in inference with a cache of f32.

use std::cell::RefCell;
use std::ops::Range;

use crate::device::Device;
use crate::ops::matmul::backward::cpu;
use crate::pool::WORTH_SHARING;
use crate::simd::per_isa;
use crate::view::{View, ViewMut};

/// Queries, keys and values of T positions that see nothing but each other, normed and rotated.
#[derive(Clone, Copy)]
pub struct Sequence<'a> {
    /// (T, H, D).
    pub q: View<'a, f32, 3>,
    /// (T, Hkv, D).
    pub k: View<'a, f32, 3>,
    /// (T, Hkv, D).
    pub v: View<'a, f32, 3>,
    /// Positions a query sees, its own included.
    pub window: usize,
    /// What scores are multiplied by.
    pub scale: f32,
}

impl Sequence<'_> {
    pub(super) fn check(&self) {
        let ([t, h, d], [kt, kv, kd]) = (self.q.shape(), self.k.shape());
        assert!(kt == t && kd == d && self.v.shape() == self.k.shape() && h % kv == 0 && self.window > 0);
    }

    /// Positions that position `t` sees.
    pub(super) fn visible(&self, t: usize) -> Range<usize> {
        (t + 1).saturating_sub(self.window)..t + 1
    }

    /// Positions that see position `j`.
    pub(super) fn seen_by(&self, j: usize) -> Range<usize> {
        let n = self.q.shape()[0];
        j..j.saturating_add(self.window).min(n)
    }

    /// True when the work of `n_products` products for each query and visible key is worth waking others for.
    pub(super) fn is_worth_sharing(&self, n_products: usize) -> bool {
        let [t, h, d] = self.q.shape();
        n_products * t * t.min(self.window) * h * d / 2 >= WORTH_SHARING
    }
}

thread_local! {
    /// Scores of one query, grown to the longest sequence once.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Bytes each thread keeps for sequences of at most `longest` positions.
pub fn worker_bytes(longest: usize) -> usize {
    4 * longest
}

/// Calls `then` with room for `n` scores.
pub(super) fn with_scores<R>(n: usize, then: impl FnOnce(&mut [f32]) -> R) -> R {
    SCORES.with_borrow_mut(|scores| {
        if scores.len() < n {
            scores.resize(n, 0.0);
        }
        then(&mut scores[..n])
    })
}

/// `out` (T, H, D), and for each (t, h) the largest score and the sum of exponentials, `stats` (T, H, 2).
pub fn forward(device: &Device, mut out: ViewMut<'_, f32, 3>, mut stats: ViewMut<'_, f32, 3>, s: Sequence<'_>) {
    s.check();
    let [t, n_heads, d] = s.q.shape();
    assert!(out.shape() == s.q.shape() && stats.shape() == [t, n_heads, 2]);
    let cpu = cpu(device);
    let (out, stats) = ((out.host_mut(), d), (stats.host_mut(), 2));
    cpu.pool.for_chunk_pairs(s.is_worth_sharing(2), out, stats, &|item, out, stats| {
        let heads = Heads::new(&s, item / n_heads, item % n_heads);
        (stats[0], stats[1]) = with_scores(heads.visible.len(), |scores| attend(cpu.isa, &heads, scores, out));
    });
}

/// One query, and the keys and values that it sees: row j of a head starts at `j * stride`.
pub(super) struct Heads<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
    pub stride: usize,
    pub visible: Range<usize>,
    pub scale: f32,
}

impl<'a> Heads<'a> {
    pub fn new(s: &Sequence<'a>, t: usize, h: usize) -> Self {
        let ([_, n_heads, d], [_, n_kv, _]) = (s.q.shape(), s.k.shape());
        let at = h / (n_heads / n_kv) * d;
        Heads {
            q: &s.q.host()[(t * n_heads + h) * d..][..d],
            k: &s.k.host()[at..],
            v: &s.v.host()[at..],
            stride: n_kv * d,
            visible: s.visible(t),
            scale: s.scale,
        }
    }
}

per_isa! {
    fn attend(heads: &Heads<'_>, scores: &mut [f32], out: &mut [f32]) -> (f32, f32) = attend_body;
}

#[inline(always)]
fn attend_body(heads: &Heads<'_>, scores: &mut [f32], out: &mut [f32]) -> (f32, f32) {
    let d = heads.q.len();
    let mut max = f32::NEG_INFINITY;
    for (s, j) in scores.iter_mut().zip(heads.visible.clone()) {
        *s = crate::simd::dot(heads.q, &heads.k[j * heads.stride..][..d]) * heads.scale;
        max = if *s > max { *s } else { max };
    }
    let sum = super::exponentials(scores, max);
    out.fill(0.0);
    for (p, j) in scores.iter().zip(heads.visible.clone()) {
        for (y, v) in out.iter_mut().zip(&heads.v[j * heads.stride..][..d]) {
            *y = p.mul_add(*v, *y);
        }
    }
    out.iter_mut().for_each(|y| *y /= sum);
    (max, sum)
}
