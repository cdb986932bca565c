//! What the forward pass keeps for the backward pass, allocated once for the longest micro-batch.
//!
//! Always kept: the input of every layer, and what its feed-forward half gave. The insides of the last layers are kept too, of as many as there is memory for; the
//! backward pass computes the others again before it walks back through them, in memory that they share.

use lichen_kernels::ops::attention::train as attention;
use lichen_kernels::ops::matmul;
use lichen_kernels::ops::matmul::Extent;
use lichen_kernels::{Buffer, Device, DeviceError, Format, Readback};
use lichen_runtime::memory_plan::Place;
use lichen_runtime::{Architecture, ModelConfig};

use crate::machine::Machine;

/// Rows whose logits exist at once on a CPU, at most: 134 MB over 262,144 entries. The head is decoded once for them: with 64
/// that was an eighth of the loss's time.
pub const LOSS_ROWS: usize = 128;

/// What everything is sized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rows {
    /// Rows of a micro-batch, T.
    pub rows: usize,
    /// Positions of the longest sample.
    pub longest: usize,
    /// Rank of the adapter; 0 without one.
    pub rank: usize,
    pub has_dropout: bool,
    /// The format of the matrices where they are trained, and not adapters beside them.
    pub trained_weights: Option<Format>,
    /// Rows whose logits exist at once, at most: [`Machine::loss_rows`].
    pub loss_rows: usize,
    /// Layers whose insides are kept: the last ones. The others are computed again on the way back.
    pub kept_layers: usize,
}

impl Rows {
    /// Where the inside of layer `i` of `n_layers` lies in [`Activations::saved`].
    pub(crate) fn slot(&self, i: usize, n_layers: usize) -> usize {
        let n_shared = n_layers - self.kept_layers.min(n_layers);
        (i + 1).saturating_sub(n_shared.max(1))
    }

    /// True when the inside of layer `i` has been written over by a later one, once the forward pass is through.
    pub(crate) fn is_gone(&self, i: usize, n_layers: usize) -> bool {
        i + 1 < n_layers - self.kept_layers.min(n_layers)
    }

    /// Rows whose logits exist at once: a micro-batch has no more of them than rows.
    fn loss_rows(&self) -> usize {
        self.loss_rows.min(self.rows)
    }

    fn n_slots(&self, n_layers: usize) -> usize {
        self.slot(n_layers - 1, n_layers) + 1
    }
}

/// Names and elements of the buffers of a layer's inside.
fn saved_sizes(c: &ModelConfig, r: &Rows) -> [usize; 11] {
    let (t, gemma) = (r.rows, usize::from(c.architecture == Architecture::Gemma3));
    [
        t * c.q_dim() * gemma,
        t * c.kv_dim() * gemma,
        t * c.q_dim(),
        t * c.kv_dim(),
        t * c.kv_dim(),
        t * c.n_heads * 2,
        t * c.q_dim(),
        t * c.dim * gemma,
        t * c.dim,
        t * c.hidden_dim,
        t * c.hidden_dim,
    ]
}

/// Elements of a layer's feed-forward output, where a norm comes after it.
fn ffn_out_size(c: &ModelConfig, r: &Rows) -> usize {
    r.rows * c.dim * usize::from(c.architecture == Architecture::Gemma3)
}

/// The inside of one layer.
pub struct Saved {
    /// (T, H, D) and (T, Hkv, D) as the projections gave them, before the QK-norm; empty without one.
    pub q_raw: Buffer<f32>,
    pub k_raw: Buffer<f32>,
    /// Normed and rotated.
    pub q: Buffer<f32>,
    pub k: Buffer<f32>,
    pub v: Buffer<f32>,
    /// (T, H, 2): the two numbers of each softmax.
    pub stats: Buffer<f32>,
    /// (T, H, D): attention's output.
    pub heads: Buffer<f32>,
    /// (T, dim): its projection, before the norm after attention; empty without one.
    pub attn_out: Buffer<f32>,
    /// (T, dim): the stream between the two halves of the layer.
    pub middle: Buffer<f32>,
    /// (T, hidden_dim) each; replaced by their gradients on the way back.
    pub gate: Buffer<f32>,
    pub up: Buffer<f32>,
    /// (7, T, rank): `scale * A x` of each target.
    pub low_rank: Buffer<f32>,
}

impl Saved {
    fn new(device: &Device, c: &ModelConfig, r: &Rows) -> Result<Saved, DeviceError> {
        let mut sizes = saved_sizes(c, r).into_iter();
        let mut next = || Buffer::new(device, sizes.next().expect("one for each buffer"));
        Ok(Saved {
            q_raw: next()?,
            k_raw: next()?,
            q: next()?,
            k: next()?,
            v: next()?,
            stats: next()?,
            heads: next()?,
            attn_out: next()?,
            middle: next()?,
            gate: next()?,
            up: next()?,
            low_rank: Buffer::new(device, 7 * r.rows * r.rank)?,
        })
    }
}

/// Memory that every layer uses in turn.
pub struct Work {
    /// (T, dim): the norm of the stream, and what comes back to it.
    pub h: Buffer<f32>,
    pub dh: Buffer<f32>,
    /// (T, dim): output of a sub-layer, and its gradient.
    pub sub: Buffer<f32>,
    /// (T, hidden_dim): the gated product, and its gradient.
    pub act: Buffer<f32>,
    pub dact: Buffer<f32>,
    /// (T, H, D), (T, Hkv, D) twice: gradients of what attention took.
    pub dq: Buffer<f32>,
    pub dk: Buffer<f32>,
    pub dv: Buffer<f32>,
    pub dheads: Buffer<f32>,
    /// (T, H): the factor of each row of a norm, while gradients of its weight are summed; empty for an adapter.
    pub rstd: Buffer<f32>,
    pub adapter: AdapterWork,
    pub matmul: matmul::Scratch,
}

/// What an adapter's products need beside.
pub struct AdapterWork {
    /// (T, rank): `scale * dy B`.
    pub v: Buffer<f32>,
    /// (T, widest) twice: an adapter's input with some of it dropped, and what comes back through that.
    pub dropped: Buffer<f32>,
    pub ddropped: Buffer<f32>,
}

/// What the loss needs for one chunk of labelled rows.
pub struct LossWork {
    /// (C, dim): rows of the stream, their norm, and their gradients.
    pub x: Buffer<f32>,
    pub h: Buffer<f32>,
    pub dh: Buffer<f32>,
    /// (C, vocab_size).
    pub logits: Buffer<f32>,
    /// C.
    pub max_rows: usize,
    /// -ln p of every target of the micro-batch, (T).
    pub losses: Readback<f64>,
}

/// All of it.
pub struct Activations {
    /// The input of each layer, (T, dim), and of the last norm.
    pub inputs: Vec<Buffer<f32>>,
    /// The feed-forward output of each layer, (T, dim), before the norm after it; empty without one. It spares the layers that
    /// are computed again a third of their work.
    pub ffn_out: Vec<Buffer<f32>>,
    /// One that the first layers share, and one for each that is kept.
    pub saved: Vec<Saved>,
    pub rows: Rows,
    pub work: Work,
    pub loss: LossWork,
    /// (T, dim): the gradient of the stream.
    pub dx: Buffer<f32>,
}

fn widest(c: &ModelConfig) -> usize {
    c.dim.max(c.hidden_dim).max(c.q_dim())
}

/// The products of a micro-batch.
fn extents(c: &ModelConfig, r: &Rows) -> [Extent; 6] {
    let product = |rows, inputs, outputs| Extent { rows, inputs, outputs };
    [
        product(r.rows, c.dim, c.q_dim()),
        product(r.rows, c.dim, c.kv_dim()),
        product(r.rows, c.q_dim(), c.dim),
        product(r.rows, c.dim, c.hidden_dim),
        product(r.rows, c.hidden_dim, c.dim),
        product(r.loss_rows(), c.dim, c.vocab_size),
    ]
}

fn work_sizes(c: &ModelConfig, r: &Rows) -> [usize; 13] {
    let t = r.rows;
    let dropped = if r.has_dropout { t * widest(c) } else { 0 };
    let (wide, hidden, q, kv) = (t * c.dim, t * c.hidden_dim, t * c.q_dim(), t * c.kv_dim());
    let rstd = if r.trained_weights.is_some() { t * c.n_heads } else { 0 };
    [wide, wide, wide, hidden, hidden, q, kv, kv, q, rstd, t * r.rank, dropped, dropped]
}

impl Activations {
    /// # Errors: the device has no room.
    pub fn new(device: &Device, c: &ModelConfig, r: &Rows) -> Result<Activations, DeviceError> {
        let buffer = |n: usize| Buffer::new(device, n);
        let (stream, loss_rows) = (r.rows * c.dim, r.loss_rows());
        let mut sizes = work_sizes(c, r).into_iter();
        let mut next = || buffer(sizes.next().expect("one for each buffer"));
        let work = Work {
            h: next()?,
            dh: next()?,
            sub: next()?,
            act: next()?,
            dact: next()?,
            dq: next()?,
            dk: next()?,
            dv: next()?,
            dheads: next()?,
            rstd: next()?,
            adapter: AdapterWork { v: next()?, dropped: next()?, ddropped: next()? },
            matmul: matmul::Scratch::for_training(device, &extents(c, r), r.trained_weights)?,
        };
        Ok(Activations {
            inputs: (0..=c.n_layers).map(|_| buffer(stream)).collect::<Result<_, _>>()?,
            ffn_out: (0..c.n_layers).map(|_| buffer(ffn_out_size(c, r))).collect::<Result<_, _>>()?,
            saved: (0..r.n_slots(c.n_layers)).map(|_| Saved::new(device, c, r)).collect::<Result<_, _>>()?,
            rows: *r,
            work,
            loss: LossWork {
                x: buffer(loss_rows * c.dim)?,
                h: buffer(loss_rows * c.dim)?,
                dh: buffer(loss_rows * c.dim)?,
                logits: buffer(loss_rows * c.vocab_size)?,
                max_rows: loss_rows,
                losses: Readback::new(device, r.rows)?,
            },
            dx: buffer(stream)?,
        })
    }

    /// Lines of the bill: what [`Activations::new`] takes, and the threads of a CPU beside it.
    pub fn bill(c: &ModelConfig, r: &Rows, machine: &Machine) -> Vec<(&'static str, usize, Place)> {
        let place = if machine.gpu.is_some() { Place::Device } else { Place::Host };
        let n_saved = r.n_slots(c.n_layers);
        let saved: usize = saved_sizes(c, r).iter().sum::<usize>() + 7 * r.rows * r.rank;
        let work: usize = work_sizes(c, r).iter().sum();
        let mut items = vec![
            ("inputs of the layers", 4 * (c.n_layers + 2) * r.rows * c.dim, place),
            ("outputs of the layers", 4 * c.n_layers * ffn_out_size(c, r), place),
            ("insides of layers", 4 * n_saved * saved, place),
            ("gradients of activations", 4 * work, place),
            ("logits of a chunk", 4 * r.loss_rows() * (c.vocab_size + 3 * c.dim), place),
        ];
        if let Some(gpu) = machine.gpu {
            let (extents, trained) = (extents(c, r), r.trained_weights);
            let workspace = matmul::Scratch::training_device_bytes(gpu.total_bytes, gpu.has_bf16, &extents, trained);
            items.push(("matrix workspace", workspace, place));
            return items;
        }
        let quantised = matmul::Scratch::size_bytes(r.rows, widest(c));
        let threads = matmul::worker_scratch_bytes(widest(c)) + matmul::backward::worker_bytes(r.rows);
        let rounded = [(r.rows, widest(c)), (r.loss_rows(), c.vocab_size)];
        let rounded =
            rounded.map(|(rows, terms)| matmul::backward::caller_scratch_bytes(rows, terms)).into_iter().max();
        items.extend([
            ("quantised activations", quantised, place),
            ("attention scores", attention::scratch_bytes(r.longest), place),
            ("threads", machine.n_threads * threads + rounded.unwrap_or(0), place),
        ]);
        items
    }

    /// Buffers of [`Activations::new`], at most: on a GPU each is rounded up.
    pub fn n_buffers(c: &ModelConfig, r: &Rows) -> usize {
        2 * c.n_layers + 1 + 12 * r.n_slots(c.n_layers) + 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layers_have_a_place_of_their_own_and_the_first_share_one() {
        let rows = |kept_layers| Rows {
            rows: 1,
            longest: 1,
            rank: 0,
            has_dropout: false,
            trained_weights: Some(Format::F32),
            loss_rows: 1,
            kept_layers,
        };
        let slots = |kept| (0..4).map(|i| rows(kept).slot(i, 4)).collect::<Vec<_>>();
        assert_eq!(slots(0), [0, 0, 0, 0]);
        assert_eq!(slots(1), [0, 0, 0, 1]);
        assert_eq!(slots(2), [0, 0, 1, 2]);
        assert_eq!(slots(3), [0, 1, 2, 3]);
        assert_eq!(slots(4), [0, 1, 2, 3]);
        let gone = |kept| (0..4).filter(|i| rows(kept).is_gone(*i, 4)).count();
        assert_eq!((0..5).map(gone).collect::<Vec<_>>(), [3, 2, 1, 0, 0]);
    }
}
