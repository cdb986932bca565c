//! Attention of whole sequences for training: no cache, and the softmax's two numbers kept for the backward pass
//! ([`backward`]). A head and a block of queries at a time: memory grows with the length, not with its square (Dao et
//! al. 2022, arXiv 2205.14135). On the CPU as products of matrices (`matmul/gemm`).

pub mod backward;
mod cuda;

use std::cell::RefCell;
use std::ops::Range;

use crate::cuda::DeviceError;
use crate::device::{Cpu, Device};
use crate::ops::kernel_module::{KernelModule, Role};
use crate::ops::matmul::gemm::{gemm, Coefficients, Precision, Rows, Shape};
use crate::ops::Write;
use crate::simd::per_isa;
use crate::staged::Staged;
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[
    KernelModule::one("forward", Role::Training),
    KernelModule::one("forward_mma", Role::Training),
    KernelModule::one("backward", Role::Training),
    KernelModule::one("backward_mma", Role::Training),
];

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

    /// One of several sequences that lie side by side.
    pub(super) fn host_rows(&self, rows: &Range<usize>) -> Self {
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|x| host_rows(x, rows));
        Sequence { q, k, v, ..*self }
    }

    /// Positions that position `t` sees.
    pub(super) fn visible(&self, t: usize) -> Range<usize> {
        (t + 1).saturating_sub(self.window)..t + 1
    }

    /// Queries by the block, each with the keys that any of it sees.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        let n = self.q.shape()[0];
        (0..n).step_by(QUERIES).map(move |first| {
            let queries = first..(first + QUERIES).min(n);
            Block { keys: self.visible(first).start..queries.end, queries }
        })
    }

    /// Where head `h` of the queries begins, and its key-value head of keys and values.
    pub(super) fn starts(&self, h: usize) -> (usize, usize) {
        let ([_, n_heads, d], [_, n_kv, _]) = (self.q.shape(), self.k.shape());
        (h * d, h / (n_heads / n_kv) * d)
    }

    /// Numbers from one position to the next, of queries and of keys.
    pub(super) fn strides(&self) -> (usize, usize) {
        let ([_, n_heads, d], [_, n_kv, _]) = (self.q.shape(), self.k.shape());
        (n_heads * d, n_kv * d)
    }
}

/// Where the sequences of a batch lie in its rows, side by side. Allocated once, for the most sequences of a batch.
pub struct Starts {
    /// Sequence `i` has rows `host[i]..host[i + 1]`.
    host: Vec<u32>,
    device: Staged<u32>,
}

impl Starts {
    /// Room for `n_max` sequences.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, n_max: usize) -> Result<Self, DeviceError> {
        let mut host = Vec::with_capacity(n_max + 1);
        host.push(0);
        Ok(Starts { host, device: Staged::new(device, n_max + 1)? })
    }

    /// The sequences of the next batch, each beginning where the one before ends, the first with row 0. The device must
    /// have finished with the batch before.
    pub fn set(&mut self, sequences: &[Range<usize>]) {
        assert!(sequences.len() < self.device.max_len(), "{} sequences", sequences.len());
        self.host.clear();
        self.host.push(0);
        for rows in sequences {
            assert!(self.host.last() == Some(&(rows.start as u32)) && rows.start <= rows.end, "rows {rows:?}");
            self.host.push(rows.end as u32);
        }
        self.device.set(&self.host);
    }

    pub(super) fn sequences(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.host.windows(2).map(|pair| pair[0] as usize..pair[1] as usize)
    }

    pub(super) fn n_rows(&self) -> usize {
        self.host.last().map_or(0, |end| *end as usize)
    }

    pub(super) fn on_device(&self) -> View<'_, u32, 1> {
        self.device.view([self.device.max_len()])
    }
}

/// Rows of an array in host memory.
pub(super) fn host_rows<'a>(x: &View<'a, f32, 3>, rows: &Range<usize>) -> View<'a, f32, 3> {
    let [_, n, d] = x.shape();
    View::new(&x.host()[rows.start * n * d..rows.end * n * d], [rows.len(), n, d])
}

/// The same, mutable.
pub(super) fn host_rows_mut<'a>(x: &'a mut ViewMut<'_, f32, 3>, rows: &Range<usize>) -> ViewMut<'a, f32, 3> {
    let [_, n, d] = x.shape();
    ViewMut::new(&mut x.host_mut()[rows.start * n * d..rows.end * n * d], [rows.len(), n, d])
}

/// Some queries and the keys that any of them sees.
pub(super) struct Block {
    pub queries: Range<usize>,
    pub keys: Range<usize>,
}

/// Queries whose scores exist at once.
const QUERIES: usize = 128;

thread_local! {
    /// Scores of a block and their gradients, of the thread that asked; grown to the longest sequence once.
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Bytes kept for sequences of at most `longest` positions.
pub fn scratch_bytes(longest: usize) -> usize {
    4 * 2 * QUERIES * longest
}

/// Calls `then` with room for the scores of a block, twice.
pub(super) fn with_scores(block: &Block, then: impl FnOnce(&mut [f32], &mut [f32])) {
    let (n_queries, n_keys) = (block.queries.len(), block.keys.len());
    let n = n_queries * n_keys;
    // The softmax leaves two numbers for each query, and a block may see one key.
    let room = n + n.max(2 * n_queries);
    SCORES.with_borrow_mut(|scores| {
        if scores.len() < room {
            scores.resize(room, 0.0);
        }
        let (first, second) = scores[..room].split_at_mut(n);
        then(first, second);
    })
}

/// `out[i, j] = a[i] . b[j]` for queries `a` and keys `b` of a block, both beginning at their head.
pub(super) fn products(cpu: &Cpu, out: &mut [f32], s: &Sequence<'_>, block: &Block, a: &[f32], b: &[f32]) {
    let (q_stride, k_stride) = s.strides();
    let d = s.q.shape()[2];
    let a = Coefficients { data: &a[block.queries.start * q_stride..], row_stride: q_stride, column_stride: 1 };
    let b = Rows::Transposed { data: &b[block.keys.start * k_stride..], stride: k_stride };
    let shape = Shape::new(block.queries.len(), d, block.keys.len());
    gemm(cpu, out, a, b, shape, Precision::Exact, Write::Replace);
}

/// `out` (T, H, D), and for each (t, h) the largest score and the sum of exponentials, `stats` (T, H, 2).
pub fn forward(device: &Device, out: ViewMut<'_, f32, 3>, stats: ViewMut<'_, f32, 3>, s: Sequence<'_>) {
    check(&out, &stats, &s);
    match device {
        Device::Cpu(cpu) => forward_cpu(cpu, out, stats, s),
        Device::Cuda(cuda) => cuda::forward(cuda, out, stats, s, None),
    }
}

/// The same for all sequences of a batch, whose rows `s` has one after the other. Each comes out as it does alone.
pub fn forward_batch(
    device: &Device,
    mut out: ViewMut<'_, f32, 3>,
    mut stats: ViewMut<'_, f32, 3>,
    s: Sequence<'_>,
    starts: &Starts,
) {
    check(&out, &stats, &s);
    assert_eq!(starts.n_rows(), s.q.shape()[0]);
    match device {
        Device::Cpu(cpu) => {
            for rows in starts.sequences() {
                let (out, stats) = (host_rows_mut(&mut out, &rows), host_rows_mut(&mut stats, &rows));
                forward_cpu(cpu, out, stats, s.host_rows(&rows));
            }
        }
        Device::Cuda(cuda) => cuda::forward(cuda, out, stats, s, Some(starts)),
    }
}

fn check(out: &ViewMut<'_, f32, 3>, stats: &ViewMut<'_, f32, 3>, s: &Sequence<'_>) {
    s.check();
    let [t, n_heads, _] = s.q.shape();
    assert!(out.shape() == s.q.shape() && stats.shape() == [t, n_heads, 2]);
}

fn forward_cpu(cpu: &Cpu, mut out: ViewMut<'_, f32, 3>, mut stats: ViewMut<'_, f32, 3>, s: Sequence<'_>) {
    let [_, n_heads, d] = s.q.shape();
    let (out, stats) = (out.host_mut(), stats.host_mut());
    let (q_stride, k_stride) = s.strides();
    for h in 0..n_heads {
        let (q_start, k_start) = s.starts(h);
        for block in s.blocks() {
            with_scores(&block, |scores, sums| {
                products(cpu, scores, &s, &block, &s.q.host()[q_start..], &s.k.host()[k_start..]);
                let n_keys = block.keys.len();
                let sums = &mut sums[..2 * block.queries.len()];
                cpu.pool.for_chunk_pairs(true, (scores, n_keys), (sums, 2), &|i, scores, sums| {
                    let t = block.queries.start + i;
                    let visible = s.visible(t).start - block.keys.start..t + 1 - block.keys.start;
                    scores[..visible.start].fill(0.0);
                    scores[visible.end..].fill(0.0);
                    (sums[0], sums[1]) = softmax(cpu.isa, &mut scores[visible], s.scale);
                });
                for (t, sums) in block.queries.clone().zip(sums.chunks_exact(2)) {
                    stats[(t * n_heads + h) * 2..][..2].copy_from_slice(sums);
                }
                let out = &mut out[block.queries.start * q_stride + q_start..];
                let v = &s.v.host()[block.keys.start * k_stride + k_start..];
                let shape = Shape { rows: block.queries.len(), terms: n_keys, columns: d, out_stride: q_stride };
                let v = Rows::Floats { data: v, stride: k_stride };
                gemm(cpu, out, Coefficients::of(scores, n_keys), v, shape, Precision::Exact, Write::Replace);
                for (i, t) in block.queries.clone().enumerate() {
                    let sum = stats[(t * n_heads + h) * 2 + 1];
                    out[i * q_stride..][..d].iter_mut().for_each(|y| *y /= sum);
                }
            });
        }
    }
}

per_isa! {
    /// Replaces scores by `exp(scale * score - max)`; returns the largest scaled score and the sum.
    fn softmax(scores: &mut [f32], scale: f32) -> (f32, f32) = softmax_body;
}

#[inline(always)]
fn softmax_body(scores: &mut [f32], scale: f32) -> (f32, f32) {
    let mut max = f32::NEG_INFINITY;
    for s in scores.iter_mut() {
        *s *= scale;
        max = if *s > max { *s } else { max };
    }
    (max, super::exponentials(scores, max))
}
