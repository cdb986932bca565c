//! One transformer block, read like the paper: norm, attention, residual, norm, feed-forward, residual.

use std::ops::Range;

use lichen_kernels::ops::attention::{self, Attention, KvStore, PageTable, QkNorm};
use lichen_kernels::ops::lora::{self, LoraPair};
use lichen_kernels::ops::matmul::{self, Family, Gated, Input, Product};
use lichen_kernels::ops::residual::Residual;
use lichen_kernels::ops::rmsnorm::Normed;
use lichen_kernels::ops::rope::RopeTable;
use lichen_kernels::{Buffer, Device, DeviceError, Step, View, ViewMut};

use crate::limits::Limits;
use crate::model::adapter::{AdapterRows, TargetModule};
use crate::model::LayerWeights;
use crate::model_config::ModelConfig;

/// Every activation of a chunk of `T <= chunk` rows, allocated once.
pub struct Activations {
    /// (T, dim): the residual stream, and the sub-layer output that is yet to be added to it.
    pub residual: Residual,
    /// (T, dim): normed input of a sub-layer.
    pub h: Buffer<f32>,
    /// (T, n_heads, head_dim).
    q: Buffer<f32>,
    /// (T, n_kv_heads, head_dim) each.
    k: Buffer<f32>,
    v: Buffer<f32>,
    /// (T, n_heads, head_dim): attention output.
    heads: Buffer<f32>,
    /// (T, hidden_dim) each.
    gate: Buffer<f32>,
    up: Buffer<f32>,
    /// (T, rank).
    low_rank: Buffer<f32>,
    max_rank: usize,
    pub matmul: matmul::Scratch,
    attention: attention::Scratch,
}

impl Activations {
    /// # Errors: the device has no room.
    pub fn new(device: &Device, config: &ModelConfig, limits: &Limits) -> Result<Self, DeviceError> {
        let (n_heads, head_dim) = (config.n_heads, config.head_dim);
        let scratch = attention::Scratch::new(device, limits.n_threads, limits.context, n_heads, head_dim)?;
        Activations::with(device, config, limits, scratch)
    }

    /// The same for a batch whose decode steps have at most `max_rows` rows.
    ///
    /// # Errors
    /// The device has no room.
    pub fn of_batch(
        device: &Device,
        config: &ModelConfig,
        limits: &Limits,
        max_rows: usize,
    ) -> Result<Self, DeviceError> {
        let (n_threads, context) = (limits.n_threads, limits.context);
        let (n_heads, head_dim) = (config.n_heads, config.head_dim);
        let scratch = attention::Scratch::of_batch(device, n_threads, context, n_heads, head_dim, max_rows)?;
        Activations::with(device, config, limits, scratch)
    }

    fn with(
        device: &Device,
        config: &ModelConfig,
        limits: &Limits,
        attention: attention::Scratch,
    ) -> Result<Self, DeviceError> {
        let n = ActivationSizes::new(config, limits);
        Ok(Activations {
            residual: Residual::new(device, limits.chunk, config.dim)?,
            h: Buffer::new(device, n.h)?,
            q: Buffer::new(device, n.q)?,
            k: Buffer::new(device, n.kv)?,
            v: Buffer::new(device, n.kv)?,
            heads: Buffer::new(device, n.q)?,
            gate: Buffer::new(device, n.hidden)?,
            up: Buffer::new(device, n.hidden)?,
            low_rank: Buffer::new(device, n.lora)?,
            max_rank: limits.max_rank,
            matmul: matmul::Scratch::new(device, limits.chunk, widest_input(config), widest_output(config, limits))?,
            attention,
        })
    }
}

impl Activations {
    /// Makes room for the low-rank products of an adapter of this rank, where there is less.
    ///
    /// # Errors
    /// The device has no room; what was there stays.
    pub fn reserve_rank(&mut self, device: &Device, chunk: usize, rank: usize) -> Result<(), DeviceError> {
        if rank > self.max_rank {
            self.low_rank = Buffer::new(device, chunk * rank)?;
            self.max_rank = rank;
        }
        Ok(())
    }
}

/// What a block needs beside its weights and activations.
pub struct BlockContext<'a> {
    pub device: &'a Device,
    pub config: &'a ModelConfig,
    /// Which rows have an adapter.
    pub adapters: &'a [AdapterRows],
    /// The number of this block.
    pub layer: usize,
    pub rope: &'a RopeTable,
    /// Where a batch has its keys and values; `None` for a session's ring.
    pub pages: Option<&'a PageTable>,
    /// Positions a query sees.
    pub window: usize,
    /// The kernels of the products.
    pub family: Family,
    /// The rows of this chunk, T, and the position of the first.
    pub step: &'a Step,
    /// The norm over what the block before left pending (Gemma 3's after the feed-forward layer).
    pub pending_norm: Option<View<'a, f32, 1>>,
}

impl BlockContext<'_> {
    /// Takes the residual stream through the block and writes the rows' keys and values to `cache`. The output of the
    /// feed-forward layer stays pending: whoever reads the stream next adds it, after `w.post_ffn_norm`.
    pub fn forward(&self, w: &LayerWeights, a: &mut Activations, cache: &mut KvStore) {
        self.attention(w, a, cache);
        self.feed_forward(w, a);
    }

    /// `pending = o(attention(rope(norm(q(h))), ..))` with `h` the norm of the stream.
    fn attention(&self, w: &LayerWeights, a: &mut Activations, cache: &mut KvStore) {
        let (t, c, device) = (self.step.n_rows(), self.config, self.device);
        let (dim, q_dim, kv_dim) = (c.dim, c.q_dim(), c.kv_dim());
        use TargetModule::{K, O, Q, V};
        let bias = |i: usize| w.qkv_bias.as_ref().map(|b| b[i].all());
        let products = &mut [
            Product { out: a.q.view_mut([t, q_dim]), weights: &w.q, bias: bias(0) },
            Product { out: a.k.view_mut([t, kv_dim]), weights: &w.k, bias: bias(1) },
            Product { out: a.v.view_mut([t, kv_dim]), weights: &w.v, bias: bias(2) },
        ];
        let input = self.normed(&mut a.residual, &mut a.h, self.pending_norm, &w.attn_norm);
        matmul::forward(device, self.family, products, input, &mut a.matmul);
        for (target, y) in [(Q, &mut a.q), (K, &mut a.k), (V, &mut a.v)] {
            self.adapt(target, y, &a.h, &mut a.low_rank, dim);
        }
        let (q_shape, kv_shape) = ([t, c.n_heads, c.head_dim], [t, c.n_kv_heads, c.head_dim]);
        let attention = Attention {
            out: a.heads.view_mut(q_shape),
            q: a.q.view_mut(q_shape),
            k: a.k.view_mut(kv_shape),
            v: a.v.view(kv_shape),
            cache,
            pages: self.pages,
            step: self.step,
            rope: self.rope,
            qk_norm: w.qk_norm.as_ref().map(|[q, k]| QkNorm { q: q.all(), k: k.all(), eps: c.rms_eps }),
            window: self.window,
            scale: c.query_scale,
        };
        attention::forward(device, attention, &mut a.attention);
        let products = &mut [Product { out: a.residual.output(t), weights: &w.o, bias: None }];
        matmul::forward(device, self.family, products, Input::Rows(a.heads.view([t, q_dim])), &mut a.matmul);
        self.adapt_output(O, &mut a.residual, &a.heads, &mut a.low_rank, q_dim);
    }

    /// `pending = down(act(gate(h)) * up(h))` with `h` the norm of the stream.
    fn feed_forward(&self, w: &LayerWeights, a: &mut Activations) {
        let (t, c, device) = (self.step.n_rows(), self.config, self.device);
        use TargetModule::{Down, Gate, Up};
        let hidden = c.hidden_dim;
        let activation = c.block.activation;
        let post_norm = w.post_attn_norm.as_ref().map(|b| b.all());
        let input = self.normed(&mut a.residual, &mut a.h, post_norm, &w.ffn_norm);
        let (gate, up) = (a.gate.view_mut([t, hidden]), a.up.view_mut([t, hidden]));
        let gated = if self.has_adapter(Gate) || self.has_adapter(Up) {
            let products = &mut [
                Product { out: gate, weights: &w.gate, bias: None },
                Product { out: up, weights: &w.up, bias: None },
            ];
            matmul::forward(device, self.family, products, input, &mut a.matmul);
            self.adapt(Gate, &mut a.gate, &a.h, &mut a.low_rank, c.dim);
            self.adapt(Up, &mut a.up, &a.h, &mut a.low_rank, c.dim);
            Input::Gated { gate: a.gate.view_mut([t, hidden]), up: a.up.view([t, hidden]), activation }
        } else {
            let gated = Gated { out: gate, gate: &w.gate, up: &w.up, activation, spare: up };
            matmul::forward_gated(device, self.family, gated, input, &mut a.matmul)
        };
        let products = &mut [Product { out: a.residual.output(t), weights: &w.down, bias: None }];
        matmul::forward(device, self.family, products, gated, &mut a.matmul);
        self.adapt_output(Down, &mut a.residual, &a.gate, &mut a.low_rank, hidden);
    }

    /// The norm of the stream, what is pending added first.
    fn normed<'b>(
        &self,
        residual: &'b mut Residual,
        h: &'b mut Buffer<f32>,
        post_norm: Option<View<'b, f32, 1>>,
        weight: &'b Buffer<f32>,
    ) -> Input<'b> {
        let (t, dim) = (self.step.n_rows(), self.config.dim);
        let (weight, h) = (weight.all(), h.view_mut([t, dim]));
        Input::Normed(Normed { residual, post_norm, weight, eps: self.config.rms_eps, h, rows: 0..t })
    }

    fn has_adapter(&self, target: TargetModule) -> bool {
        self.adapters.iter().any(|group| group.adapter.layer(self.layer).pair(target).is_some())
    }

    /// Adds each adapter's low-rank product beside `target` to its rows.
    fn adapt(&self, target: TargetModule, y: &mut Buffer<f32>, x: &Buffer<f32>, u: &mut Buffer<f32>, x_dim: usize) {
        let t = self.step.n_rows();
        for group in self.adapters {
            let Some(pair) = group.adapter.layer(self.layer).pair(target) else { continue };
            let [n, _] = pair.b.shape();
            self.low_rank(pair, group.rows.clone(), y.view_mut([t, n]), x.view([t, x_dim]), u);
        }
    }

    /// The same for the output of a sub-layer.
    fn adapt_output(&self, target: TargetModule, y: &mut Residual, x: &Buffer<f32>, u: &mut Buffer<f32>, x_dim: usize) {
        let t = self.step.n_rows();
        for group in self.adapters {
            let Some(pair) = group.adapter.layer(self.layer).pair(target) else { continue };
            self.low_rank(pair, group.rows.clone(), y.output(t), x.view([t, x_dim]), u);
        }
    }

    fn low_rank(
        &self,
        pair: LoraPair<'_>,
        rows: Range<usize>,
        y: ViewMut<'_, f32, 2>,
        x: View<'_, f32, 2>,
        u: &mut Buffer<f32>,
    ) {
        let [_, rank] = pair.b.shape();
        let u = u.view_mut([rows.len() * rank]);
        lora::forward(self.device, y.into_rows(rows.clone()), x.rows(rows.start, rows.len()), pair, u);
    }
}

/// Columns of the widest matrix.
pub(crate) fn widest_input(config: &ModelConfig) -> usize {
    config.dim.max(config.hidden_dim).max(config.q_dim())
}

/// Rows of the widest matrix whose products a chunk computes; the head's alone for the rows whose logits are kept.
pub(crate) fn widest_output(config: &ModelConfig, limits: &Limits) -> usize {
    let body = config.dim.max(config.hidden_dim).max(config.q_dim());
    if limits.logit_rows > 1 {
        body.max(config.vocab_size)
    } else {
        body
    }
}

/// Elements of each activation buffer, all f32.
pub(crate) struct ActivationSizes {
    pub x: usize,
    pub h: usize,
    pub q: usize,
    pub kv: usize,
    pub hidden: usize,
    pub lora: usize,
}

impl ActivationSizes {
    pub(crate) fn new(config: &ModelConfig, limits: &Limits) -> Self {
        let rows = limits.chunk;
        ActivationSizes {
            x: rows * config.dim,
            h: rows * config.dim,
            q: rows * config.q_dim(),
            kv: rows * config.kv_dim(),
            hidden: rows * config.hidden_dim,
            lora: rows * limits.max_rank,
        }
    }

    /// x; h and the projection; q and the attention output; k and v; gate and up; the low-rank product.
    pub(crate) fn total(&self) -> usize {
        self.x + 2 * self.h + 2 * self.q + 2 * self.kv + 2 * self.hidden + self.lora
    }
}
