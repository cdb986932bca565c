//! The forward pass of training: `runtime`'s block over whole sequences, every intermediate that the backward pass reads kept
//! by name. `backward.rs` is this file read backwards.

use lichen_kernels::ops::activation::{self, Activation};
use lichen_kernels::ops::attention::train::{self as attention, Sequence};
use lichen_kernels::ops::dropout::{self, Key};
use lichen_kernels::ops::matmul::{self, Product};
use lichen_kernels::ops::rope::{self, RopeScaling, RopeTable};
use lichen_kernels::ops::{embedding, lora, residual, rmsnorm};
use lichen_kernels::{Buffer, Device, DeviceError, View, ViewMut};
use lichen_runtime::model::{LayerWeights, Model};
use lichen_runtime::ModelConfig;

use crate::activations::{Activations, Saved, Work};
use crate::batch::Batch;
use crate::lora::Lora;

/// RoPE tables of local and of global layers.
pub struct Rope {
    local: RopeTable,
    global: RopeTable,
}

impl Rope {
    /// Room for `longest` positions.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, c: &ModelConfig, longest: usize) -> Result<Rope, DeviceError> {
        let table = |theta, scaling| RopeTable::new(device, longest, c.head_dim, theta, scaling);
        let local = table(c.rope_theta_local, RopeScaling::NONE)?;
        Ok(Rope { local, global: table(c.rope_theta, c.rope_scaling)? })
    }

    pub fn size_bytes(c: &ModelConfig, longest: usize) -> usize {
        2 * RopeTable::size_bytes(longest, c.head_dim)
    }

    pub fn table(&self, is_global: bool) -> &RopeTable {
        if is_global {
            &self.global
        } else {
            &self.local
        }
    }
}

/// Which elements of an adapter's inputs are dropped: a function of what is here, of the layer and of the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    pub share: f32,
    pub seed: u64,
    /// Optimiser step, and the micro-batch in it.
    pub step: u64,
    pub micro_batch: u64,
}

impl Dropout {
    pub(crate) fn key(&self, layer: usize, target: usize) -> Key {
        Key::new(&[self.seed, self.step, self.micro_batch, layer as u64, target as u64])
    }
}

/// What both passes read and neither changes.
pub struct ForwardPass<'a> {
    pub device: &'a Device,
    pub model: &'a Model,
    /// The adapter and its values.
    pub lora: Option<(&'a Lora, &'a Buffer<f32>)>,
    pub batch: &'a Batch,
    pub rope: &'a Rope,
    /// `None` to evaluate.
    pub dropout: Option<Dropout>,
}

impl ForwardPass<'_> {
    pub(crate) fn config(&self) -> &ModelConfig {
        &self.model.config
    }

    /// T.
    pub(crate) fn rows(&self) -> usize {
        self.batch.n_rows()
    }

    pub(crate) fn activation(&self) -> Activation {
        self.config().block.activation
    }

    /// Takes the tokens to the input of the last norm, the last of `a.inputs`.
    pub fn forward(&self, a: &mut Activations) {
        let c = self.config();
        let x = a.first_input().view_mut([self.rows(), c.dim]);
        embedding::forward(self.device, x, &self.model.embedding, self.batch.step(), c.embedding_scale);
        for i in 0..c.n_layers {
            self.layer(i, a);
        }
    }

    /// One block, from its input to the next one's, its activations saved.
    fn layer(&self, i: usize, a: &mut Activations) {
        let (slot, ffn) = (a.rows.saved_index(i, self.config().n_layers), a.rows.ffn_index(i));
        let (x, out) = stream(&mut a.inputs, &mut a.dx, i, a.rows.first_layer);
        let (saved, work) = (&mut a.saved[slot], &mut a.work);
        self.attention(i, x, saved, work);
        self.gated_product(i, saved, work);
        self.feed_forward(i, out, &mut a.ffn_out[ffn], saved, work);
    }

    /// Recomputes the saved activations of a block from its input.
    pub(crate) fn recompute(&self, i: usize, a: &mut Activations) {
        let slot = a.rows.saved_index(i, self.config().n_layers);
        let (x, saved, work) = (&a.inputs[i - a.rows.first_layer], &mut a.saved[slot], &mut a.work);
        self.attention(i, x, saved, work);
        self.gated_product(i, saved, work);
        // Its low-rank half is one of them; what it would be added to is there already.
        self.adapt(i, 6, &mut work.sub, &work.act, &mut saved.low_rank, &mut work.adapter.dropped);
    }

    /// `middle = x + norm(o(attention(rope(norm(q(h))), ..)))` with `h = norm(x)`.
    fn attention(&self, i: usize, x: &Buffer<f32>, s: &mut Saved, work: &mut Work) {
        let (t, c, device, w) = (self.rows(), self.config(), self.device, &self.model.layers[i]);
        let wide = [t, c.dim];
        rmsnorm::forward(device, work.h.view_mut(wide), x.view(wide), w.attn_norm.all(), c.rms_eps);
        let has_norm = w.qk_norm.is_some();
        let (q, k) = if has_norm { (&mut s.q_raw, &mut s.k_raw) } else { (&mut s.q, &mut s.k) };
        let bias = |i: usize| w.qkv_bias.as_ref().map(|b| b[i].all());
        let products = &mut [
            Product { out: q.view_mut([t, c.q_dim()]), weights: &w.q, bias: bias(0) },
            Product { out: k.view_mut([t, c.kv_dim()]), weights: &w.k, bias: bias(1) },
            Product { out: s.v.view_mut([t, c.kv_dim()]), weights: &w.v, bias: bias(2) },
        ];
        matmul::forward_training(device, products, work.h.view(wide), &mut work.matmul);
        for (target, y) in [q, k, &mut s.v].into_iter().enumerate() {
            self.adapt(i, target, y, &work.h, &mut s.low_rank, &mut work.adapter.dropped);
        }
        self.norm_and_rotate(i, s);
        let (out, stats) = (s.heads.view_mut([t, c.n_heads, c.head_dim]), s.stats.view_mut([t, c.n_heads, 2]));
        attention::forward_batch(device, out, stats, self.sequences(i, &s.q, &s.k, &s.v), self.batch.starts());
        let out = if w.post_attn_norm.is_some() { &mut s.attn_out } else { &mut work.sub };
        let products = &mut [Product { out: out.view_mut(wide), weights: &w.o, bias: None }];
        matmul::forward_training(device, products, s.heads.view([t, c.q_dim()]), &mut work.matmul);
        self.adapt(i, 3, out, &s.heads, &mut s.low_rank, &mut work.adapter.dropped);
        self.add_normed(w.post_attn_norm.as_ref(), &mut s.middle, x, &s.attn_out, &mut work.sub);
    }

    /// QK-norm and RoPE of every sequence.
    fn norm_and_rotate(&self, i: usize, s: &mut Saved) {
        let (t, c, device, w) = (self.rows(), self.config(), self.device, &self.model.layers[i]);
        let planes = [(&s.q_raw, &mut s.q, c.n_heads), (&s.k_raw, &mut s.k, c.n_kv_heads)];
        for (plane, (raw, x, n_heads)) in planes.into_iter().enumerate() {
            if let Some(norms) = &w.qk_norm {
                let shape = [t * n_heads, c.head_dim];
                rmsnorm::forward(device, x.view_mut(shape), raw.view(shape), norms[plane].all(), c.rms_eps);
            }
            let x = x.view_mut([t, n_heads, c.head_dim]);
            rope::forward(device, x, self.rope.table(c.is_global[i]), self.batch.positions());
        }
    }

    /// The queries, keys and values of all samples.
    pub(crate) fn sequences<'b>(
        &self,
        layer: usize,
        q: &'b Buffer<f32>,
        k: &'b Buffer<f32>,
        v: &'b Buffer<f32>,
    ) -> Sequence<'b> {
        let (c, t) = (self.config(), self.rows());
        let kv = [t, c.n_kv_heads, c.head_dim];
        let window = if c.is_global[layer] { None } else { c.sliding_window };
        Sequence {
            q: q.view([t, c.n_heads, c.head_dim]),
            k: k.view(kv),
            v: v.view(kv),
            window: window.unwrap_or(usize::MAX),
            scale: c.query_scale,
        }
    }

    /// `work.act = act(gate(h)) * up(h)` with `h = norm(middle)`.
    fn gated_product(&self, i: usize, s: &mut Saved, work: &mut Work) {
        let (t, c, device, w) = (self.rows(), self.config(), self.device, &self.model.layers[i]);
        let (wide, hidden) = ([t, c.dim], [t, c.hidden_dim]);
        rmsnorm::forward(device, work.h.view_mut(wide), s.middle.view(wide), w.ffn_norm.all(), c.rms_eps);
        let products = &mut [
            Product { out: s.gate.view_mut(hidden), weights: &w.gate, bias: None },
            Product { out: s.up.view_mut(hidden), weights: &w.up, bias: None },
        ];
        matmul::forward_training(device, products, work.h.view(wide), &mut work.matmul);
        self.adapt(i, 4, &mut s.gate, &work.h, &mut s.low_rank, &mut work.adapter.dropped);
        self.adapt(i, 5, &mut s.up, &work.h, &mut s.low_rank, &mut work.adapter.dropped);
        self.activate(s, work);
    }

    /// `out = middle + norm(down(act))`.
    fn feed_forward(&self, i: usize, out: &mut Buffer<f32>, ffn_out: &mut Buffer<f32>, s: &mut Saved, work: &mut Work) {
        let (t, c, device, w) = (self.rows(), self.config(), self.device, &self.model.layers[i]);
        let (wide, hidden) = ([t, c.dim], [t, c.hidden_dim]);
        let sub = if w.post_ffn_norm.is_some() { &mut *ffn_out } else { &mut work.sub };
        let products = &mut [Product { out: sub.view_mut(wide), weights: &w.down, bias: None }];
        matmul::forward_training(device, products, work.act.view(hidden), &mut work.matmul);
        self.adapt(i, 6, sub, &work.act, &mut s.low_rank, &mut work.adapter.dropped);
        self.add_normed(w.post_ffn_norm.as_ref(), out, &s.middle, ffn_out, &mut work.sub);
    }

    /// `work.act = act(gate) * up`.
    pub(crate) fn activate(&self, s: &Saved, work: &mut Work) {
        let n = self.rows() * self.config().hidden_dim;
        let act: ViewMut<'_, f32, 1> = work.act.view_mut([n]);
        activation::forward_to(self.device, self.activation(), act, s.gate.view([n]), s.up.view([n]));
    }

    /// `out = x + norm(y)`, or `out = x + sub` where there is no norm.
    fn add_normed(
        &self,
        norm: Option<&Buffer<f32>>,
        out: &mut Buffer<f32>,
        x: &Buffer<f32>,
        y: &Buffer<f32>,
        sub: &mut Buffer<f32>,
    ) {
        let wide = [self.rows(), self.config().dim];
        if let Some(weight) = norm {
            rmsnorm::forward(self.device, sub.view_mut(wide), y.view(wide), weight.all(), self.config().rms_eps);
        }
        residual::sum(self.device, out.view_mut(wide), x.view(wide), sub.view(wide));
    }

    /// Adds the low-rank product of a target to `y`, its inner half kept in `low_rank`.
    fn adapt(
        &self,
        layer: usize,
        target: usize,
        y: &mut Buffer<f32>,
        x: &Buffer<f32>,
        low_rank: &mut Buffer<f32>,
        dropped: &mut Buffer<f32>,
    ) {
        let Some((lora, values)) = self.lora else { return };
        let Some(pair) = lora.pair(values, layer, target) else { return };
        let ([n, rank], [_, k], t) = (pair.b.shape(), pair.a.shape(), self.rows());
        let u = low_rank.part_mut(target * t * rank, [t * rank]);
        let x = self.dropped(layer, target, x.view([t, k]), dropped);
        lora::forward_training(self.device, y.view_mut([t, n]), x, pair, u);
    }

    /// `x` as the adapter of a target sees it.
    pub(crate) fn dropped<'b>(
        &self,
        layer: usize,
        target: usize,
        x: View<'b, f32, 2>,
        room: &'b mut Buffer<f32>,
    ) -> View<'b, f32, 2> {
        let Some(dropout) = self.dropout.filter(|d| d.share > 0.0) else { return x };
        dropout::forward(self.device, room.view_mut(x.shape()), x, dropout.share, dropout.key(layer, target));
        room.view(x.shape())
    }
}

/// The input of layer `i` and of the next. Those before the first layer that is trained are in `dx` and in that layer's
/// input by turns, so that the last of them lies where it is kept.
fn stream<'a>(
    inputs: &'a mut [Buffer<f32>],
    dx: &'a mut Buffer<f32>,
    i: usize,
    first_layer: usize,
) -> (&'a Buffer<f32>, &'a mut Buffer<f32>) {
    match first_layer.checked_sub(i).filter(|n| *n > 0) {
        None => {
            let (before, after) = inputs.split_at_mut(i - first_layer + 1);
            (&before[i - first_layer], &mut after[0])
        }
        Some(n) if n.is_multiple_of(2) => (&inputs[0], dx),
        Some(_) => (dx, &mut inputs[0]),
    }
}

/// The seven matrices of a layer, in the order of targets.
pub(crate) fn matrix(w: &LayerWeights, target: usize) -> &lichen_kernels::Matrix {
    w.matrices()[target]
}
