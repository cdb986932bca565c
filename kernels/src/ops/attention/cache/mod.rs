//! Attention over stored keys and values, decode and prefill alike:
//! `out[t, h] = sum over j of softmax_j(q[t, h] . k[j] * scale) * v[j]`, j in `(p - window, p]` for position p.
//! A session's are a ring; a batch's lie in pages, and its rows may belong to different sequences.
//!
//! Each (t, h) is computed alone and in order of position, so a token's result does not depend on what it was batched
//! with. Scores are 16-lane dot products, the sum of exponentials too; values are added key by key.

mod cuda;
mod kv_store;
mod pages;
mod simd;

pub use kv_store::{KvFormat, KvStore};
pub use pages::{PageTable, PAGE};

use std::ops::Range;

use crate::cuda::{Cuda, DeviceError};
use crate::device::{Cpu, Device};
use crate::ops::kernel_module::{KernelModule, Role};
use crate::ops::rmsnorm;
use crate::ops::rope::{self, RopeTable};
use crate::pool::{Disjoint, WORTH_SHARING};
use crate::simd::per_isa;
use crate::step::Step;
use crate::view::{Buffer, View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[
    KernelModule::one("prepare", Role::Answers),
    KernelModule::per_cache("prefill_rows", Role::Answers),
    KernelModule::per_cache("prefill_mma", Role::Answers),
    KernelModule::per_cache("decode", Role::Sessions),
    KernelModule::per_cache("pages", Role::Batches),
    KernelModule::per_cache("pages_mma", Role::Batches),
];

/// One call: T rows of queries, keys and values as the projections gave them.
pub struct Attention<'a> {
    /// (T, H, D).
    pub out: ViewMut<'a, f32, 3>,
    /// (T, H, D); changed: normed and rotated.
    pub q: ViewMut<'a, f32, 3>,
    /// (T, Hkv, D); changed likewise.
    pub k: ViewMut<'a, f32, 3>,
    /// (T, Hkv, D).
    pub v: View<'a, f32, 3>,
    /// Holds the keys and values of every visible position before; those of the rows are added.
    pub cache: &'a mut KvStore,
    /// Where in the cache the slots of a batch have their positions; `None` for a ring.
    pub pages: Option<&'a PageTable>,
    /// The positions of the rows; in a batch also their slots.
    pub step: &'a Step,
    pub rope: &'a RopeTable,
    pub qk_norm: Option<QkNorm<'a>>,
    /// Positions a query sees, its own included; `usize::MAX` for all.
    pub window: usize,
    /// What scores are multiplied by.
    pub scale: f32,
}

/// The norms over the heads of queries and keys, before they are rotated (Gemma 3).
#[derive(Clone, Copy)]
pub struct QkNorm<'a> {
    /// (D).
    pub q: View<'a, f32, 1>,
    /// (D).
    pub k: View<'a, f32, 1>,
    pub eps: f32,
}

/// Where the rows are, and what they see.
#[derive(Clone, Copy)]
struct Span<'a> {
    step: &'a Step,
    pages: Option<&'a PageTable>,
    window: usize,
}

impl<'a> Span<'a> {
    /// Positions row `t` attends to.
    fn visible(&self, t: usize) -> Range<usize> {
        let end = self.step.position(t) + 1;
        end.saturating_sub(self.window)..end
    }

    /// Most positions any of the rows sees.
    fn widest(&self) -> usize {
        (0..self.step.n_rows()).map(|t| self.visible(t).len()).max().unwrap_or(0)
    }

    /// The pages of row `t`'s slot.
    fn pages_of(&self, t: usize) -> Option<&'a [u32]> {
        self.pages.map(|table| table.of_slot(self.step.slots()[t] as usize))
    }
}

/// Scores of one (t, h) per thread on the CPU; on a GPU the partial results of a decode step's splits. Allocated once for
/// the longest span.
pub struct Scratch {
    scores: Buffer<f32>,
    longest: usize,
    /// Of a decode step.
    max_rows: usize,
}

impl Scratch {
    /// Room for `n_tasks` threads on the CPU, or for `n_heads` heads of `head_dim` on a GPU, with at most `longest` visible
    /// positions.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(
        device: &Device,
        n_tasks: usize,
        longest: usize,
        n_heads: usize,
        head_dim: usize,
    ) -> Result<Self, DeviceError> {
        let len = match device {
            Device::Cpu(_) => n_tasks * longest,
            Device::Cuda(cuda) => cuda::scratch_len(cuda, n_heads, head_dim),
        };
        Ok(Scratch { scores: Buffer::new(device, len)?, longest, max_rows: 1 })
    }

    /// The same for a batch of at most `max_rows` rows of several sequences.
    ///
    /// # Errors
    /// The device has no room.
    pub fn of_batch(
        device: &Device,
        n_tasks: usize,
        longest: usize,
        n_heads: usize,
        head_dim: usize,
        max_rows: usize,
    ) -> Result<Self, DeviceError> {
        let len = match device {
            Device::Cpu(_) => n_tasks * longest,
            Device::Cuda(_) => cuda::batch_scratch_len(max_rows, n_heads, head_dim, longest),
        };
        Ok(Scratch { scores: Buffer::new(device, len)?, longest, max_rows })
    }

    /// Bytes [`Scratch::new`] takes on the CPU.
    pub fn size_bytes(n_tasks: usize, longest: usize) -> usize {
        4 * n_tasks * longest
    }

    /// Bytes [`Scratch::new`] takes on this GPU.
    pub fn device_bytes(cuda: &Cuda, n_heads: usize, head_dim: usize) -> usize {
        4 * cuda::scratch_len(cuda, n_heads, head_dim)
    }

    /// Bytes [`Scratch::of_batch`] takes on a GPU.
    pub fn batch_device_bytes(longest: usize, n_heads: usize, head_dim: usize, max_rows: usize) -> usize {
        4 * cuda::batch_scratch_len(max_rows, n_heads, head_dim, longest)
    }

    fn n_tasks(&self) -> usize {
        self.scores.len().checked_div(self.longest).unwrap_or(0)
    }
}

/// Norms and rotates queries and keys, stores keys and values, and attends.
pub fn forward(device: &Device, a: Attention<'_>, scratch: &mut Scratch) {
    let ([n_rows, n_heads, head_dim], [_, n_kv_heads, _]) = (a.q.shape(), a.k.shape());
    assert!(a.out.shape() == a.q.shape() && n_rows == a.step.n_rows());
    assert!(a.k.shape() == [n_rows, n_kv_heads, head_dim] && a.v.shape() == a.k.shape());
    assert!(head_dim == a.cache.head_dim() && n_kv_heads == a.cache.n_kv_heads() && n_heads % n_kv_heads == 0);
    assert!(a.rope.head_dim() == head_dim && (0..n_rows).all(|t| a.step.position(t) < a.rope.n_positions()));
    assert_eq!(a.pages.is_some(), a.step.is_batch(), "pages are for the rows of a batch");
    let span = Span { step: a.step, pages: a.pages, window: a.window };
    let widest = span.widest();
    assert!(widest <= scratch.longest && widest <= a.cache.n_slots(), "{widest} visible positions");
    match device {
        Device::Cpu(cpu) => {
            let mut a = a;
            prepare_cpu(cpu, &mut a, span);
            attend_cpu(cpu, a.out, a.q.as_view(), a.cache, span, a.scale, scratch);
        }
        Device::Cuda(cuda) => cuda::forward(cuda, a, scratch),
    }
}

/// QK-norm, RoPE, and the rows' keys and values into the cache.
fn prepare_cpu(cpu: &Cpu, a: &mut Attention<'_>, span: Span<'_>) {
    if let Some(QkNorm { q, k, eps }) = a.qk_norm {
        rmsnorm::in_place_cpu(cpu, a.q.host_mut(), q.host(), eps);
        rmsnorm::in_place_cpu(cpu, a.k.host_mut(), k.host(), eps);
    }
    let ([n_rows, n_heads, head_dim], [_, n_kv_heads, _]) = (a.q.shape(), a.k.shape());
    // Rows that follow each other are rotated at once.
    let n_at_once = if a.step.is_batch() { 1 } else { n_rows.max(1) };
    for (x, n_heads) in [(a.q.host_mut(), n_heads), (a.k.host_mut(), n_kv_heads)] {
        for (i, rows) in x.chunks_mut(n_at_once * n_heads * head_dim).enumerate() {
            rope::forward_cpu(cpu, rows, n_heads, a.rope, a.step.position(i * n_at_once));
        }
    }
    let n_slots = a.cache.n_slots();
    a.cache.write(a.k.as_view(), a.v, |t| {
        let position = span.step.position(t);
        span.pages_of(t).map_or(position % n_slots, |pages| pages::slot(pages, position))
    });
}

fn attend_cpu(
    cpu: &Cpu,
    mut out: ViewMut<'_, f32, 3>,
    q: View<'_, f32, 3>,
    cache: &KvStore,
    span: Span<'_>,
    scale: f32,
    scratch: &mut Scratch,
) {
    let [n_rows, n_heads, head_dim] = q.shape();
    // Each task takes its own part of the scores, and rows from a shared list of (t, h).
    let n_items = n_rows * n_heads;
    // Scores and sums: two products for every head, visible position and value.
    let worth_it = 2 * n_items * span.widest() * head_dim >= WORTH_SHARING;
    let n_tasks = if worth_it { scratch.n_tasks().min(n_items).min(cpu.pool.n_threads()) } else { 1 };
    let longest = scratch.longest;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let q = q.host();
    let (scores, out) = (Disjoint::new(scratch.scores.host_mut()), Disjoint::new(out.host_mut()));
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
        let (scores, out) = unsafe { (scores.part(task * longest, longest), out.part(item * head_dim, head_dim)) };
        let head = Head {
            q: &q[item * head_dim..(item + 1) * head_dim],
            cache,
            pages: span.pages_of(t),
            kv_head: h / (n_heads / cache.n_kv_heads()),
            visible: span.visible(t),
            scale,
        };
        head.attend(cpu.isa, scores, out);
    });
}

/// One query head at one position.
struct Head<'a> {
    q: &'a [f32],
    cache: &'a KvStore,
    /// `None` for a ring.
    pages: Option<&'a [u32]>,
    kv_head: usize,
    visible: Range<usize>,
    scale: f32,
}

impl Head<'_> {
    fn attend(&self, isa: crate::Isa, scores: &mut [f32], out: &mut [f32]) {
        let scores = &mut scores[..self.visible.len()];
        self.each_run(|part, slots| {
            simd::scores(isa, self.q, self.cache.keys(self.kv_head, slots), &mut scores[part]);
        });
        let denominator = softmax(isa, scores, self.scale);
        out.fill(0.0);
        self.each_run(|part, slots| {
            simd::accumulate(isa, &scores[part], self.cache.values(self.kv_head, slots), out);
        });
        out.iter_mut().for_each(|v| *v /= denominator);
    }

    /// The visible positions in order, by runs of neighbouring slots: which of them, and their slots.
    fn each_run(&self, mut f: impl FnMut(Range<usize>, Range<usize>)) {
        let mut at = 0;
        let mut run = |slots: Range<usize>| {
            let part = at..at + slots.len();
            at = part.end;
            f(part, slots);
        };
        match self.pages {
            None => self.cache.segments(&self.visible).for_each(&mut run),
            Some(pages) => pages::segments(pages, &self.visible).for_each(&mut run),
        }
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
    super::exponentials(scores, max)
}

#[cfg(test)]
mod tests;
