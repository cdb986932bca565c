//! What the forward pass keeps for the backward pass, allocated once for the longest micro-batch.
//!
//! Always kept: the input of every layer, and what its feed-forward half gave. The activations inside the last layers are
//! saved too, of as many layers as there is memory for; the backward pass recomputes those of the others, in memory that they
//! share. Of layers before the first that is trained nothing is kept: the backward pass ends there.

use lichen_kernels::ops::attention::train as attention;
use lichen_kernels::ops::matmul;
use lichen_kernels::ops::matmul::Extent;
use lichen_kernels::{Buffer, Device, DeviceError, Format, Readback};
use lichen_runtime::memory_plan::Place;
use lichen_runtime::ModelConfig;

use crate::machine::Machine;

/// What everything is sized by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationSizes {
    /// ActivationSizes of a micro-batch, T.
    pub rows: usize,
    /// Positions of the longest sample.
    pub longest: usize,
    /// Rank of the adapter; 0 without one.
    pub rank: usize,
    pub has_dropout: bool,
    /// The format of the matrices where they are trained, and not adapters beside them.
    pub trained_weights: Option<Format>,
    /// ActivationSizes whose logits exist at once, at most: [`Machine::loss_rows`].
    pub loss_rows: usize,
    /// Layers whose activations stay saved: the last ones. Those of the others are recomputed in the backward pass.
    pub kept_layers: usize,
    /// The first layer that gradients reach.
    pub first_layer: usize,
}

impl ActivationSizes {
    /// Where the saved activations of layer `i` of `n_layers` lie in [`Activations::saved`].
    pub(crate) fn saved_index(&self, i: usize, n_layers: usize) -> usize {
        let n_walked = n_layers - self.first_layer;
        let n_shared = n_walked - self.kept_layers.min(n_walked);
        (i + 1).saturating_sub(self.first_layer + n_shared.max(1))
    }

    /// Where the feed-forward output of layer `i` lies in [`Activations::ffn_out`]: those before the first that is trained
    /// write where that one will.
    pub(crate) fn ffn_index(&self, i: usize) -> usize {
        i.saturating_sub(self.first_layer)
    }

    /// True when a later layer has written over the saved activations of layer `i`, once the forward pass is through.
    pub(crate) fn needs_recompute(&self, i: usize, n_layers: usize) -> bool {
        let n_walked = n_layers - self.first_layer;
        i >= self.first_layer && i + 1 < n_layers - self.kept_layers.min(n_walked)
    }

    /// ActivationSizes whose logits exist at once: a micro-batch has no more of them than rows.
    fn loss_rows(&self) -> usize {
        self.loss_rows.min(self.rows)
    }

    fn n_saved_layers(&self, n_layers: usize) -> usize {
        self.saved_index(n_layers - 1, n_layers) + 1
    }
}

/// Elements of the buffers of a layer's [`Saved`] activations, under their names.
struct SavedSizes {
    q_raw: usize,
    k_raw: usize,
    q: usize,
    k: usize,
    v: usize,
    stats: usize,
    heads: usize,
    attn_out: usize,
    middle: usize,
    gate: usize,
    up: usize,
    low_rank: usize,
}

impl SavedSizes {
    fn new(c: &ModelConfig, r: &ActivationSizes) -> SavedSizes {
        let (t, q, kv) = (r.rows, r.rows * c.q_dim(), r.rows * c.kv_dim());
        let where_normed = |n: usize| if c.block.has_qk_norm { n } else { 0 };
        SavedSizes {
            q_raw: where_normed(q),
            k_raw: where_normed(kv),
            q,
            k: kv,
            v: kv,
            stats: t * c.n_heads * 2,
            heads: q,
            attn_out: if c.block.has_post_norms { t * c.dim } else { 0 },
            middle: t * c.dim,
            gate: t * c.hidden_dim,
            up: t * c.hidden_dim,
            low_rank: 7 * t * r.rank,
        }
    }

    fn total(&self) -> usize {
        let attention = self.q_raw + self.k_raw + self.q + self.k + self.v + self.stats + self.heads + self.attn_out;
        attention + self.middle + self.gate + self.up + self.low_rank
    }
}

/// Elements of a layer's feed-forward output, where a norm comes after it.
fn ffn_out_size(c: &ModelConfig, r: &ActivationSizes) -> usize {
    if c.block.has_post_norms {
        r.rows * c.dim
    } else {
        0
    }
}

/// The saved activations of one layer: what its backward pass reads and its input does not give at once.
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
    /// (T, hidden_dim) each; replaced by their gradients in the backward pass.
    pub gate: Buffer<f32>,
    pub up: Buffer<f32>,
    /// (7, T, rank): `scale * A x` of each target.
    pub low_rank: Buffer<f32>,
}

impl Saved {
    fn new(device: &Device, c: &ModelConfig, r: &ActivationSizes) -> Result<Saved, DeviceError> {
        let n = SavedSizes::new(c, r);
        let buffer = |n: usize| Buffer::new(device, n);
        Ok(Saved {
            q_raw: buffer(n.q_raw)?,
            k_raw: buffer(n.k_raw)?,
            q: buffer(n.q)?,
            k: buffer(n.k)?,
            v: buffer(n.v)?,
            stats: buffer(n.stats)?,
            heads: buffer(n.heads)?,
            attn_out: buffer(n.attn_out)?,
            middle: buffer(n.middle)?,
            gate: buffer(n.gate)?,
            up: buffer(n.up)?,
            low_rank: buffer(n.low_rank)?,
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
    /// The input of each layer from the first that is trained, (T, dim), and of the last norm.
    pub inputs: Vec<Buffer<f32>>,
    /// The feed-forward output of each layer that is walked back, (T, dim), before the norm after it; empty without one. It spares the layers that
    /// are recomputed a third of their work.
    pub ffn_out: Vec<Buffer<f32>>,
    /// One that the first layers share, and one for each that is kept.
    pub saved: Vec<Saved>,
    pub rows: ActivationSizes,
    pub work: Work,
    pub loss: LossWork,
    /// (T, dim): the gradient of the stream; in the forward pass, every second input of the layers that are not kept.
    pub dx: Buffer<f32>,
}

fn widest(c: &ModelConfig) -> usize {
    c.dim.max(c.hidden_dim).max(c.q_dim())
}

/// The products of a micro-batch.
fn extents(c: &ModelConfig, r: &ActivationSizes) -> [Extent; 6] {
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

/// Elements of the buffers of [`Work`], under their names; `stream` is each of h, dh and sub.
struct WorkSizes {
    stream: usize,
    hidden: usize,
    q: usize,
    kv: usize,
    rstd: usize,
    low_rank: usize,
    dropped: usize,
}

impl WorkSizes {
    fn new(c: &ModelConfig, r: &ActivationSizes) -> WorkSizes {
        let t = r.rows;
        WorkSizes {
            stream: t * c.dim,
            hidden: t * c.hidden_dim,
            q: t * c.q_dim(),
            kv: t * c.kv_dim(),
            rstd: if r.trained_weights.is_some() { t * c.n_heads } else { 0 },
            low_rank: t * r.rank,
            dropped: if r.has_dropout { t * widest(c) } else { 0 },
        }
    }

    fn total(&self) -> usize {
        let layer = 3 * self.stream + 2 * self.hidden + 2 * self.q + 2 * self.kv + self.rstd;
        layer + self.low_rank + 2 * self.dropped
    }
}

impl Activations {
    /// # Errors: the device has no room.
    pub fn new(device: &Device, c: &ModelConfig, r: &ActivationSizes) -> Result<Activations, DeviceError> {
        let buffer = |n: usize| Buffer::new(device, n);
        let (stream, loss_rows) = (r.rows * c.dim, r.loss_rows());
        let n = WorkSizes::new(c, r);
        let work = Work {
            h: buffer(n.stream)?,
            dh: buffer(n.stream)?,
            sub: buffer(n.stream)?,
            act: buffer(n.hidden)?,
            dact: buffer(n.hidden)?,
            dq: buffer(n.q)?,
            dk: buffer(n.kv)?,
            dv: buffer(n.kv)?,
            dheads: buffer(n.q)?,
            rstd: buffer(n.rstd)?,
            adapter: AdapterWork { v: buffer(n.low_rank)?, dropped: buffer(n.dropped)?, ddropped: buffer(n.dropped)? },
            matmul: matmul::Scratch::for_training(device, &extents(c, r), r.trained_weights)?,
        };
        Ok(Activations {
            inputs: (r.first_layer..=c.n_layers).map(|_| buffer(stream)).collect::<Result<_, _>>()?,
            ffn_out: (r.first_layer..c.n_layers).map(|_| buffer(ffn_out_size(c, r))).collect::<Result<_, _>>()?,
            saved: (0..r.n_saved_layers(c.n_layers)).map(|_| Saved::new(device, c, r)).collect::<Result<_, _>>()?,
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

    /// The input of layer `i`, the first of them: where the embedding is written.
    pub fn first_input(&mut self) -> &mut Buffer<f32> {
        match self.rows.first_layer.is_multiple_of(2) {
            true => &mut self.inputs[0],
            false => &mut self.dx,
        }
    }

    /// Lines of the memory plan: what [`Activations::new`] takes, and the threads of a CPU beside it.
    pub fn plan_lines(c: &ModelConfig, r: &ActivationSizes, machine: &Machine) -> Vec<(&'static str, usize, Place)> {
        let place = if machine.gpu.is_some() { Place::Device } else { Place::Host };
        let (n_saved, n_walked) = (r.n_saved_layers(c.n_layers), c.n_layers - r.first_layer);
        let (saved, work) = (SavedSizes::new(c, r).total(), WorkSizes::new(c, r).total());
        let mut items = vec![
            ("inputs of the layers", 4 * (n_walked + 2) * r.rows * c.dim, place),
            ("outputs of the layers", 4 * n_walked * ffn_out_size(c, r), place),
            ("saved activations", 4 * n_saved * saved, place),
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
    pub fn n_buffers(c: &ModelConfig, r: &ActivationSizes) -> usize {
        2 * (c.n_layers - r.first_layer) + 1 + 12 * r.n_saved_layers(c.n_layers) + 20
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layers_have_a_place_of_their_own_and_the_first_share_one() {
        let rows = |kept_layers, first_layer| ActivationSizes {
            rows: 1,
            longest: 1,
            rank: 0,
            has_dropout: false,
            trained_weights: Some(Format::F32),
            loss_rows: 1,
            kept_layers,
            first_layer,
        };
        let slots = |kept| (0..4).map(|i| rows(kept, 0).saved_index(i, 4)).collect::<Vec<_>>();
        assert_eq!(slots(0), [0, 0, 0, 0]);
        assert_eq!(slots(1), [0, 0, 0, 1]);
        assert_eq!(slots(2), [0, 0, 1, 2]);
        assert_eq!(slots(3), [0, 1, 2, 3]);
        assert_eq!(slots(4), [0, 1, 2, 3]);
        let gone = |kept| (0..4).filter(|i| rows(kept, 0).needs_recompute(*i, 4)).count();
        assert_eq!((0..5).map(gone).collect::<Vec<_>>(), [3, 2, 1, 0, 0]);
        // Of six layers the first two are not walked back, and share the place of the others'.
        let of_six = |kept| (0..6).map(|i| rows(kept, 2).saved_index(i, 6)).collect::<Vec<_>>();
        assert_eq!((of_six(0), of_six(2)), (vec![0; 6], vec![0, 0, 0, 0, 1, 2]));
        assert_eq!((of_six(4), of_six(usize::MAX)), (vec![0, 0, 0, 1, 2, 3], vec![0, 0, 0, 1, 2, 3]));
        let gone = |kept| (0..6).filter(|i| rows(kept, 2).needs_recompute(*i, 6)).collect::<Vec<_>>();
        assert_eq!((gone(0), gone(2), gone(4)), (vec![2, 3, 4], vec![2], vec![]));
        assert_eq!((0..6).map(|i| rows(0, 2).ffn_index(i)).collect::<Vec<_>>(), [0, 0, 0, 1, 2, 3]);
    }
}
