//! Causal attention with grouped query heads over a ring of keys and values, decode and prefill alike:
//! `out[t, h] = sum over j of softmax_j(q[t, h] . k[j] * scale) * v[j]`, j in `(p - window, p]` for position p.
//!
//! Each (t, h) is computed alone and in order of position, so a token's result does not depend on what it was batched
//! with. Scores are 16-lane dot products, the sum of exponentials too; values are added key by key.

mod kv_store;
mod simd;

pub use kv_store::{KvFormat, KvStore};

use std::ops::Range;

use crate::device::Device;
use crate::math;
use crate::pool::{Disjoint, WORTH_SHARING};
use crate::simd::{fold_lanes, per_isa, LANES};
use crate::view::{View, ViewMut};

/// What the queries see.
pub struct Span {
    /// Position of the first query row.
    pub first_position: usize,
    /// Positions a query sees, its own included; `usize::MAX` for all.
    pub window: usize,
}

impl Span {
    /// Positions row `t` attends to.
    fn visible(&self, t: usize) -> Range<usize> {
        let end = self.first_position + t + 1;
        end.saturating_sub(self.window)..end
    }
}

/// Scores of one (t, h), one buffer per thread at most: allocated once for the longest span.
pub struct Scratch {
    scores: Vec<f32>,
    longest: usize,
}

impl Scratch {
    /// Room for `rows` rows of `n_heads` heads that see at most `longest` positions.
    pub fn new(n_tasks: usize, longest: usize) -> Self {
        Scratch { scores: vec![0.0; n_tasks * longest], longest }
    }

    /// Bytes [`Scratch::new`] takes.
    pub fn size_bytes(n_tasks: usize, longest: usize) -> usize {
        4 * n_tasks * longest
    }

    fn n_tasks(&self) -> usize {
        self.scores.len().checked_div(self.longest).unwrap_or(0)
    }
}

/// Shapes: `out`, `q` (T, H, D); `cache` holds the keys and values of every visible position, those of the rows
/// themselves included ([`KvStore::write`] comes first).
pub fn forward(
    device: &Device,
    mut out: ViewMut<'_, f32, 3>,
    q: View<'_, f32, 3>,
    cache: &KvStore,
    span: Span,
    scale: f32,
    scratch: &mut Scratch,
) {
    let [n_rows, n_heads, head_dim] = q.shape();
    assert_eq!(out.shape(), q.shape());
    assert!(head_dim == cache.head_dim() && n_heads % cache.n_kv_heads() == 0);
    let widest = (0..n_rows).map(|t| span.visible(t).len()).max().unwrap_or(0);
    assert!(widest <= scratch.longest && widest <= cache.n_slots(), "{widest} visible positions");
    match device {
        Device::Cpu(cpu) => {
            // Each task takes its own part of the scores, and rows from a shared list of (t, h).
            let n_items = n_rows * n_heads;
            // Scores and sums: two products for every head, visible position and value.
            let worth_it = 2 * n_items * widest * head_dim >= WORTH_SHARING;
            let n_tasks = if worth_it { scratch.n_tasks().min(n_items).min(cpu.pool.n_threads()) } else { 1 };
            let longest = scratch.longest;
            let next = std::sync::atomic::AtomicUsize::new(0);
            let (scores, out) = (Disjoint::new(&mut scratch.scores), Disjoint::new(out.host_mut()));
            cpu.pool.run(n_tasks, &|task| loop {
                let item = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if item >= n_items {
                    return;
                }
                let (t, h) = (item / n_heads, item % n_heads);
                // SAFETY:
                // - Task numbers differ, so do their parts of the scores.
                // - An item is claimed by one task, and items are disjoint rows of `out`.
                #[allow(unsafe_code)]
                let (scores, out) =
                    unsafe { (scores.part(task * longest, longest), out.part(item * head_dim, head_dim)) };
                let head = Head {
                    q: &q.host()[item * head_dim..(item + 1) * head_dim],
                    cache,
                    kv_head: h / (n_heads / cache.n_kv_heads()),
                    visible: span.visible(t),
                    scale,
                };
                head.attend(cpu.isa, scores, out);
            });
        }
    }
}

/// One query head at one position.
struct Head<'a> {
    q: &'a [f32],
    cache: &'a KvStore,
    kv_head: usize,
    visible: Range<usize>,
    scale: f32,
}

impl Head<'_> {
    fn attend(&self, isa: crate::Isa, scores: &mut [f32], out: &mut [f32]) {
        let scores = &mut scores[..self.visible.len()];
        let mut at = 0;
        for slots in self.cache.segments(&self.visible) {
            let n = slots.len();
            simd::scores(isa, self.q, self.cache.keys(self.kv_head, slots), &mut scores[at..at + n]);
            at += n;
        }
        let denominator = softmax(isa, scores, self.scale);
        out.fill(0.0);
        let mut at = 0;
        for slots in self.cache.segments(&self.visible) {
            let n = slots.len();
            simd::accumulate(isa, &scores[at..at + n], self.cache.values(self.kv_head, slots), out);
            at += n;
        }
        out.iter_mut().for_each(|v| *v /= denominator);
    }
}

per_isa! {
    /// Replaces scores by `exp(scale * score - max)` and returns their sum.
    fn softmax(scores: &mut [f32], scale: f32) -> f32 = softmax_body;
}

#[inline(always)]
fn softmax_body(scores: &mut [f32], scale: f32) -> f32 {
    let mut max = f32::NEG_INFINITY;
    for s in scores.iter_mut() {
        *s *= scale;
        max = if *s > max { *s } else { max };
    }
    let mut acc = [0.0f32; LANES];
    let mut chunks = scores.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (s, a) in chunk.iter_mut().zip(&mut acc) {
            *s = math::exp(*s - max);
            *a += *s;
        }
    }
    for (s, a) in chunks.into_remainder().iter_mut().zip(&mut acc) {
        *s = math::exp(*s - max);
        *a += *s;
    }
    fold_lanes(acc)
}

#[cfg(test)]
mod tests;
