//! Matrix products with weights in any format: `out[t, n] = sum over k of w[n, k] * x[t, k] + bias[n]`.
//!
//! Shapes: `x` (T, K), `w` (N, K), `out` (T, N). T = 1 is the decode step (memory-bound: weights stream once in the
//! file's layout), T > 1 the prefill (compute-bound: weights are widened into panels that stay in the cache). On the CPU up
//! to [`quantize::BY_ROW_MAX`] rows of a batch's step are as many decode steps over the same few rows of weights.
//!
//! Numerical contract, equal bits for every instruction set, thread count and T:
//! - Q8_0 and Q4_0: each block of a row of `x` becomes 16-bit integers and one f32 scale ([`quantize`]). Within a block
//!   the integer sum is exact. Blocks are added in order of k: `acc = fma(sum as f32, w_scale * x_scale, acc)`.
//! - Float weights and NF4: [`crate::simd::dot`] in f32, whatever the storage; an NF4 weight is `level * absmax`, rounded
//!   once.
//!
//! On a GPU that contract is the decode's alone, and its T is up to eight. More rows go to the prefill, where activations
//! and weights are 16-bit floats; among those the bits again do not depend on T. F32 weights never do. Who needs the same
//! bits for any T, a batch whose sequences come and go, asks for one [`Family`].

pub mod backward;
pub(crate) mod batch;
mod cpu;
mod cuda;
pub(crate) mod decode;
pub(crate) mod float;
pub(crate) mod gemm;
mod nf4;
pub(crate) mod prefill;
pub mod quantize;
mod scratch;
mod simd;

use std::ops::Range;

use crate::device::{Cpu, Device};
use crate::formats::Format;
use crate::matrix::Matrix;
use crate::ops::activation::{self, Activation};
use crate::ops::rmsnorm::{self, Normed};
use crate::pool::{Disjoint, WORTH_SHARING};
use crate::view::{View, ViewMut};

pub use crate::ops::Write;
use quantize::BY_ROW_MAX;

pub use backward::cuda::Extent;
pub use scratch::Scratch;

/// Tasks per thread of a decode step. Long runs of rows: a kernel prefetches the rows after the ones it computes, so every
/// task starts cold once. With 64 rows a task (78 kB) a quarter of Gemma 3 1B was read cold.
const DECODE_TASKS_PER_THREAD: usize = 6;
/// Decode tasks are multiples of the widest group of rows a kernel takes.
const DECODE_ROW_GROUP: usize = 16;
/// Rows of one packed panel: two AVX-512 registers of 32-bit lanes.
pub(crate) const PANEL_ROWS: usize = 32;

/// Which of a GPU's kernels multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Decode's for up to eight rows, the prefill's for more.
    ByRows,
    /// Those of batches (`matmul/batch`): a row has the same bits alone and among any others.
    Batch,
}

/// One product of a [`forward`] call: several may share `x` (q, k, v; gate and up).
pub struct Product<'a> {
    /// (T, N).
    pub out: ViewMut<'a, f32, 2>,
    /// (N, K).
    pub weights: &'a Matrix,
    /// (N).
    pub bias: Option<View<'a, f32, 1>>,
}

/// What is multiplied: (T, K).
pub enum Input<'a> {
    /// As it is.
    Rows(View<'a, f32, 2>),
    /// The norm of the residual stream. A GPU's decode step computes it inside the product's kernel, a batch's while rows
    /// become 16-bit floats.
    Normed(Normed<'a>),
    /// `gate = act(gate) * up`, both (T, K): what [`forward_gated`] leaves to the product after it.
    Gated { gate: ViewMut<'a, f32, 2>, up: View<'a, f32, 2>, activation: Activation },
}

impl Input<'_> {
    /// (T, K).
    pub fn shape(&self) -> [usize; 2] {
        match self {
            Input::Rows(x) => x.shape(),
            Input::Normed(n) => n.h.shape(),
            Input::Gated { gate, .. } => gate.shape(),
        }
    }
}

/// Bytes each thread keeps for a widened panel of the widest matrix.
pub fn worker_scratch_bytes(max_cols: usize) -> usize {
    PANEL_ROWS * max_cols * 4
}

/// Computes every product; on a GPU with the kernels of `family`. Panics when shapes disagree or two outputs overlap (they
/// cannot: `&mut`).
pub fn forward(device: &Device, family: Family, products: &mut [Product<'_>], input: Input<'_>, scratch: &mut Scratch) {
    let [n_rows, cols] = input.shape();
    check_shapes(products, [n_rows, cols]);
    if n_rows == 0 {
        return;
    }
    match device {
        Device::Cpu(cpu) => with_rows(device, input, |x| forward_cpu(cpu, products, x, scratch)),
        Device::Cuda(cuda) => cuda::forward(cuda, family, products, input, scratch),
    }
}

fn check_shapes(products: &[Product<'_>], [n_rows, cols]: [usize; 2]) {
    for p in products.iter() {
        assert_eq!(p.weights.cols(), cols, "weights (N, K) against x (T, K)");
        assert_eq!(p.out.shape(), [n_rows, p.weights.rows()]);
        assert!(p.bias.is_none_or(|b| b.len() == p.weights.rows()));
    }
}

/// [`forward`] for training: where the CPU multiplies pairs of bf16, weights that were rounded before are multiplied so, as
/// the backward pass does; twice as fast as 16-bit integers with a scale for each block. Elsewhere, and for F32 and F16
/// weights, it is [`forward`].
pub fn forward_training(device: &Device, products: &mut [Product<'_>], x: View<'_, f32, 2>, scratch: &mut Scratch) {
    let cpu = match device {
        Device::Cpu(cpu) => cpu,
        Device::Cuda(cuda) => return cuda::forward_training(cuda, products, x, scratch),
    };
    for p in products {
        let precision = backward::precision(p.weights.format());
        if precision == gemm::Precision::Exact || !gemm::has_bf16(cpu) {
            forward(device, Family::ByRows, std::slice::from_mut(p), Input::Rows(x), scratch);
            continue;
        }
        let [n_rows, cols] = x.shape();
        assert!(p.weights.cols() == cols && p.out.shape() == [n_rows, p.weights.rows()]);
        let shape = gemm::Shape::new(n_rows, cols, p.weights.rows());
        let (a, b) = (gemm::Coefficients::of(x.host(), cols), gemm::Rows::MatrixTransposed(p.weights));
        gemm::gemm(cpu, p.out.host_mut(), a, b, shape, precision, Write::Replace);
        if let Some(bias) = p.bias {
            for row in p.out.host_mut().chunks_exact_mut(p.weights.rows()) {
                row.iter_mut().zip(bias.host()).for_each(|(y, b)| *y += b);
            }
        }
    }
}

/// A gated feed-forward layer's first half: `out = act(x gate) * (x up)`.
pub struct Gated<'a> {
    /// (T, N).
    pub out: ViewMut<'a, f32, 2>,
    /// (N, K) each.
    pub gate: &'a Matrix,
    pub up: &'a Matrix,
    pub activation: Activation,
    /// At least (T, N): for the second product where it is not kept in registers.
    pub spare: ViewMut<'a, f32, 2>,
}

/// Computes both products and the activation. Returns the result as the input of a product; a batch on a GPU leaves the
/// activation to that.
#[must_use]
pub fn forward_gated<'a>(
    device: &Device,
    family: Family,
    mut g: Gated<'a>,
    input: Input<'_>,
    scratch: &mut Scratch,
) -> Input<'a> {
    let [n_rows, cols] = input.shape();
    assert!(g.gate.cols() == cols && g.up.cols() == cols && g.gate.rows() == g.up.rows());
    assert!(g.out.shape() == [n_rows, g.gate.rows()] && g.spare.shape() == g.out.shape());
    if n_rows == 0 {
        return Input::Rows(g.out.into_view());
    }
    if let Device::Cuda(cuda) = device {
        return cuda::forward_gated(cuda, family, g, input, scratch);
    }
    let products = &mut [
        Product { out: g.out.reborrow(), weights: g.gate, bias: None },
        Product { out: g.spare.reborrow(), weights: g.up, bias: None },
    ];
    forward(device, family, products, input, scratch);
    activation::forward(device, g.activation, g.out.reborrow(), g.spare.as_view());
    Input::Rows(g.out.into_view())
}

/// Calls `then` with the input's rows, the norm or the activation computed first where there is one.
fn with_rows(device: &Device, input: Input<'_>, then: impl FnOnce(View<'_, f32, 2>)) {
    match input {
        Input::Rows(x) => then(x),
        Input::Gated { mut gate, up, activation } => {
            activation::forward(device, activation, gate.reborrow(), up);
            then(gate.as_view());
        }
        Input::Normed(mut n) => {
            let h = n.h.reborrow();
            rmsnorm::add_norm(device, Normed { h, ..n });
            then(n.h.as_view());
        }
    }
}

fn forward_cpu(cpu: &Cpu, products: &mut [Product<'_>], x: View<'_, f32, 2>, scratch: &mut Scratch) {
    if products.iter().any(|p| quantize::has_integer_blocks(p.weights.format())) {
        scratch.rows.quantize(cpu, x);
    }
    let [n_rows, _] = x.shape();
    let are_streamed =
        n_rows <= BY_ROW_MAX && products.iter().all(|p| quantize::has_integer_blocks(p.weights.format()));
    let rows_per_task = if n_rows == 1 || are_streamed {
        let all_rows: usize = products.iter().map(|p| p.weights.rows()).sum();
        all_rows.div_ceil(cpu.pool.n_threads() * DECODE_TASKS_PER_THREAD).next_multiple_of(DECODE_ROW_GROUP)
    } else {
        PANEL_ROWS
    };
    let n_tasks = |p: &Product<'_>| p.weights.rows().div_ceil(rows_per_task);
    let total = products.iter().map(n_tasks).sum();
    let work: usize = products.iter().map(|p| p.weights.rows() * p.weights.cols() * n_rows).sum();
    let jobs = Jobs::new(products, rows_per_task);
    cpu.pool.run_if(work >= WORTH_SHARING, total, &|task| {
        let (job, rows) = jobs.find(task);
        let tile = Tile { cpu, weights: job.weights, bias: job.bias, rows, out: &job.out, x, scratch };
        tile.compute();
    });
}

/// The products as tasks see them: at most [`Jobs::MAX`], so that no list is allocated.
struct Jobs<'a> {
    jobs: [Option<Job<'a>>; Jobs::MAX],
    rows_per_task: usize,
}

struct Job<'a> {
    weights: &'a Matrix,
    bias: Option<&'a [f32]>,
    out: Disjoint<'a, f32>,
}

impl<'a> Jobs<'a> {
    const MAX: usize = 3;

    fn new(products: &'a mut [Product<'_>], rows_per_task: usize) -> Self {
        assert!(products.len() <= Self::MAX);
        let mut jobs = [const { None }; Self::MAX];
        for (slot, p) in jobs.iter_mut().zip(products) {
            *slot =
                Some(Job { weights: p.weights, bias: p.bias.map(|b| b.host()), out: Disjoint::new(p.out.host_mut()) });
        }
        Jobs { jobs, rows_per_task }
    }

    fn find(&self, mut task: usize) -> (&Job<'a>, Range<usize>) {
        for job in self.jobs.iter().flatten() {
            let n = job.weights.rows().div_ceil(self.rows_per_task);
            if task < n {
                let start = task * self.rows_per_task;
                return (job, start..(start + self.rows_per_task).min(job.weights.rows()));
            }
            task -= n;
        }
        unreachable!("task beyond the last product")
    }
}

/// What one task computes: `out[.., rows]`.
struct Tile<'a> {
    cpu: &'a Cpu,
    weights: &'a Matrix,
    bias: Option<&'a [f32]>,
    rows: Range<usize>,
    out: &'a Disjoint<'a, f32>,
    x: View<'a, f32, 2>,
    scratch: &'a Scratch,
}

impl Tile<'_> {
    fn compute(&self) {
        let isa = self.cpu.isa;
        let [n_rows, _] = self.x.shape();
        let (weights, rows) = (self.weights, self.rows.clone());
        let first = rows.start;
        if !quantize::has_integer_blocks(weights.format()) {
            float::matmul(isa, weights, rows, self.x, &mut |t, y| self.store(t, first, y));
        } else if n_rows <= BY_ROW_MAX {
            simd::matvec(isa, weights, rows, &self.scratch.rows, &mut |t, first, y| self.store(t, first, y));
        } else {
            simd::matmul(isa, weights, rows, &self.scratch.rows, &mut |t, y| self.store(t, first, y));
        }
    }

    /// Takes `y`, outputs `first ..` of row `t`, and adds the bias.
    #[allow(unsafe_code)]
    fn store(&self, t: usize, first: usize, y: &[f32]) {
        let n = self.weights.rows();
        assert!(self.rows.start <= first && first + y.len() <= self.rows.end);
        // SAFETY:
        // - Tasks hold disjoint row ranges of one product, and this part lies inside the task's, so parts never overlap.
        let out = unsafe { self.out.part(t * n + first, y.len()) };
        out.copy_from_slice(y);
        if let Some(bias) = self.bias {
            for (y, b) in out.iter_mut().zip(&bias[first..]) {
                *y += b;
            }
        }
    }
}

/// True when [`forward`] can multiply by a matrix of this format and width.
pub fn supports(format: Format, cols: usize) -> bool {
    format.is_computed() && cols.is_multiple_of(format.block_len())
}

#[cfg(test)]
mod tests;
