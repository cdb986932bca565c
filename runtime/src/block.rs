//! One transformer block, read like the paper: norm, attention, residual, norm, feed-forward, residual.

use lichen_kernels::ops::activation::{self, Activation};
use lichen_kernels::ops::attention::{self, KvStore, Span};
use lichen_kernels::ops::matmul::{self, Product};
use lichen_kernels::ops::rope::{self, RopeTable};
use lichen_kernels::ops::{lora, residual, rmsnorm};
use lichen_kernels::{Buffer, Device};

use crate::adapter::LayerAdapter;
use crate::memory_plan::{widest_input, ActivationSizes, Limits};
use crate::model::LayerWeights;
use crate::model_config::{Architecture, ModelConfig};

/// Every activation of a chunk of `T <= chunk` rows, allocated once.
pub struct Activations {
    /// (T, dim): the residual stream.
    pub x: Buffer<f32>,
    /// (T, dim): normed input of a sub-layer.
    pub h: Buffer<f32>,
    /// (T, dim): output of a sub-layer.
    pub y: Buffer<f32>,
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
    pub matmul: matmul::Scratch,
    attention: attention::Scratch,
}

impl Activations {
    pub fn new(config: &ModelConfig, limits: &Limits) -> Self {
        let n = ActivationSizes::new(config, limits);
        Activations {
            x: Buffer::new(n.x),
            h: Buffer::new(n.h),
            y: Buffer::new(n.h),
            q: Buffer::new(n.q),
            k: Buffer::new(n.kv),
            v: Buffer::new(n.kv),
            heads: Buffer::new(n.q),
            gate: Buffer::new(n.hidden),
            up: Buffer::new(n.hidden),
            low_rank: Buffer::new(n.lora),
            matmul: matmul::Scratch::new(limits.chunk, widest_input(config)),
            attention: attention::Scratch::new(limits.n_threads, limits.context),
        }
    }
}

/// What a block needs beside its weights and activations.
pub struct BlockContext<'a> {
    pub device: &'a Device,
    pub config: &'a ModelConfig,
    pub adapter: Option<&'a LayerAdapter>,
    pub rope: &'a RopeTable,
    /// Positions a query sees.
    pub window: usize,
    /// Position of the first row.
    pub first_position: usize,
    /// Rows of this chunk, T.
    pub n_rows: usize,
}

impl BlockContext<'_> {
    /// Replaces `a.x` by the block's output and writes the rows' keys and values to `cache`.
    pub fn forward(&self, w: &LayerWeights, a: &mut Activations, cache: &mut KvStore) {
        let t = self.n_rows;
        let row = [t, self.config.dim];
        let eps = self.config.rms_eps;
        rmsnorm::forward(self.device, a.h.view_mut(row), a.x.view(row), &w.attn_norm, eps);
        self.attention(w, a, cache);
        if let Some(weight) = &w.post_attn_norm {
            rmsnorm::forward_in_place(self.device, a.y.view_mut(row), weight, eps);
        }
        residual::forward(self.device, a.x.view_mut(row).host_mut(), a.y.view(row).host());

        rmsnorm::forward(self.device, a.h.view_mut(row), a.x.view(row), &w.ffn_norm, eps);
        self.feed_forward(w, a);
        if let Some(weight) = &w.post_ffn_norm {
            rmsnorm::forward_in_place(self.device, a.y.view_mut(row), weight, eps);
        }
        residual::forward(self.device, a.x.view_mut(row).host_mut(), a.y.view(row).host());
    }

    /// `a.y = o(attention(rope(norm(q(a.h))), ..))`.
    fn attention(&self, w: &LayerWeights, a: &mut Activations, cache: &mut KvStore) {
        let (t, c, device) = (self.n_rows, self.config, self.device);
        let (dim, q_dim, kv_dim) = (c.dim, c.q_dim(), c.kv_dim());
        let bias = |i: usize| w.qkv_bias.as_ref().map(|b| b[i].as_slice());
        let products = &mut [
            Product { out: a.q.view_mut([t, q_dim]), weights: &w.q, bias: bias(0) },
            Product { out: a.k.view_mut([t, kv_dim]), weights: &w.k, bias: bias(1) },
            Product { out: a.v.view_mut([t, kv_dim]), weights: &w.v, bias: bias(2) },
        ];
        matmul::forward(device, products, a.h.view([t, dim]), &mut a.matmul);
        for (i, y) in [&mut a.q, &mut a.k, &mut a.v].into_iter().enumerate() {
            self.adapt(i, y, &a.h, &mut a.low_rank, dim);
        }
        if let Some([q_norm, k_norm]) = &w.qk_norm {
            rmsnorm::forward_in_place(device, a.q.view_mut([t * c.n_heads, c.head_dim]), q_norm, c.rms_eps);
            rmsnorm::forward_in_place(device, a.k.view_mut([t * c.n_kv_heads, c.head_dim]), k_norm, c.rms_eps);
        }
        let (q_shape, kv_shape) = ([t, c.n_heads, c.head_dim], [t, c.n_kv_heads, c.head_dim]);
        rope::forward(device, a.q.view_mut(q_shape), self.rope, self.first_position);
        rope::forward(device, a.k.view_mut(kv_shape), self.rope, self.first_position);
        cache.write(a.k.view(kv_shape), a.v.view(kv_shape), self.first_position);
        let span = Span { first_position: self.first_position, window: self.window };
        let (out, q) = (a.heads.view_mut(q_shape), a.q.view(q_shape));
        attention::forward(device, out, q, cache, span, c.query_scale, &mut a.attention);
        let products = &mut [Product { out: a.y.view_mut([t, dim]), weights: &w.o, bias: None }];
        matmul::forward(device, products, a.heads.view([t, q_dim]), &mut a.matmul);
        self.adapt(3, &mut a.y, &a.heads, &mut a.low_rank, q_dim);
    }

    /// `a.y = down(act(gate(a.h)) * up(a.h))`.
    fn feed_forward(&self, w: &LayerWeights, a: &mut Activations) {
        let (t, c, device) = (self.n_rows, self.config, self.device);
        let (dim, hidden) = (c.dim, c.hidden_dim);
        let products = &mut [
            Product { out: a.gate.view_mut([t, hidden]), weights: &w.gate, bias: None },
            Product { out: a.up.view_mut([t, hidden]), weights: &w.up, bias: None },
        ];
        matmul::forward(device, products, a.h.view([t, dim]), &mut a.matmul);
        self.adapt(4, &mut a.gate, &a.h, &mut a.low_rank, dim);
        self.adapt(5, &mut a.up, &a.h, &mut a.low_rank, dim);
        let act = match c.architecture {
            Architecture::Gemma3 => Activation::GeluTanh,
            Architecture::Qwen2 => Activation::Silu,
        };
        let up = a.up.view([t * hidden]);
        activation::forward(device, act, a.gate.view_mut([t * hidden]).host_mut(), up.host());
        let products = &mut [Product { out: a.y.view_mut([t, dim]), weights: &w.down, bias: None }];
        matmul::forward(device, products, a.gate.view([t, hidden]), &mut a.matmul);
        self.adapt(6, &mut a.y, &a.gate, &mut a.low_rank, hidden);
    }

    /// Adds the adapter's low-rank product of target `i`, if it has one.
    fn adapt(&self, i: usize, y: &mut Buffer<f32>, x: &Buffer<f32>, u: &mut Buffer<f32>, x_dim: usize) {
        let Some(pair) = self.adapter.and_then(|a| a.pair(i)) else { return };
        let [n, _] = pair.b.shape();
        let t = self.n_rows;
        lora::forward(self.device, y.view_mut([t, n]), x.view([t, x_dim]), pair, u.host_mut());
    }
}
