//! The backward pass: `forward.rs` read backwards. `d` and a name is the gradient of the loss by what has that name there.
//!
//! Policy: gradients of parameters are added to, over micro-batches; those of activations are replaced, but for the stream's,
//! `dx`, which every branch adds to.

use lichen_kernels::ops::attention::train::backward::{self as attention, Gradients, SavedForward};
use lichen_kernels::ops::lora::backward as lora;
use lichen_kernels::ops::matmul::{self, Write};
use lichen_kernels::ops::{activation, copy, dropout, embedding, residual, rmsnorm, rope};
use lichen_kernels::{Buffer, View};
use lichen_runtime::files::model_source::Part;
use lichen_runtime::model::adapter::TARGETS;

use crate::activations::{Activations, AdapterWork, Saved, Work};
use crate::forward::{matrix, ForwardPass};
use crate::full::Full;
use crate::lora::Lora;
use crate::mutation::{self, Term};

/// What is trained: it decides which gradients of parameters are computed.
pub enum Trainable<'a> {
    Lora(&'a Lora),
    Full(&'a Full),
}

/// The backward pass of one micro-batch.
pub struct Backward<'a> {
    pub pass: &'a ForwardPass<'a>,
    pub trained: Trainable<'a>,
    /// The flat vector of all gradients.
    pub gradients: &'a mut Buffer<f32>,
}

impl Backward<'_> {
    /// From `a.dx`, the gradient of the last layer's output, to the gradients of all parameters. It ends at the first layer
    /// that is trained: what lies before is frozen, and `a.dx` is then not its input's.
    pub fn run(&mut self, a: &mut Activations) {
        let (first_layer, n_layers) = (a.rows.first_layer, self.pass.config().n_layers);
        for i in (first_layer..n_layers).rev() {
            if a.rows.needs_recompute(i, n_layers) {
                self.pass.recompute(i, a);
            }
            let slot = a.rows.saved_index(i, n_layers);
            let (x, ffn_out) = (&a.inputs[i - first_layer], &a.ffn_out[a.rows.ffn_index(i)]);
            let (saved, work, dx) = (&mut a.saved[slot], &mut a.work, &mut a.dx);
            self.feed_forward(i, ffn_out, saved, work, dx);
            // Full training goes on to the embedding.
            let goes_on = i > first_layer || matches!(self.trained, Trainable::Full(_));
            self.attention(i, x, saved, work, dx, goes_on);
        }
        if let Trainable::Full(full) = &self.trained {
            let (pass, c) = (self.pass, self.pass.config());
            let place = full.place(Part::TokenEmbedding, None);
            let dtable = self.gradients.part_mut(place.start, [c.vocab_size, c.dim]);
            mutation::apply(Term::Embedding, 0, a.dx.view_mut([pass.rows(), c.dim]));
            let dx = a.dx.view([pass.rows(), c.dim]);
            embedding::backward(pass.device, dtable, dx, pass.batch.step(), c.embedding_scale);
        }
    }

    /// Forward: `out = middle + norm(ffn_out)`, `ffn_out = down(act)`, `act = f(gate) * up`, `gate = gate(h)`, `up = up(h)`,
    /// `h = norm(middle)`.
    fn feed_forward(&mut self, i: usize, ffn_out: &Buffer<f32>, s: &mut Saved, work: &mut Work, dx: &mut Buffer<f32>) {
        let (pass, t) = (self.pass, self.pass.rows());
        let (c, device, w) = (pass.config(), pass.device, &pass.model.layers[i]);
        let (wide, hidden) = ([t, c.dim], [t, c.hidden_dim]);
        self.norm_output(i, Part::PostFfnNorm, w.post_ffn_norm.as_ref(), ffn_out, work, dx);
        pass.activate(s, work);
        self.product(
            Linear { layer: i, target: 6, dy: &work.sub, x: &work.act, low_rank: &s.low_rank, goes_on: true },
            &mut work.dact,
            Write::Replace,
            &mut work.adapter,
            &mut work.matmul,
        );
        mutation::apply(Term::GatedProduct, i, work.dact.view_mut(hidden));
        let views = (s.gate.view_mut(hidden), s.up.view_mut(hidden));
        activation::backward::in_place(device, pass.activation(), views.0, views.1, work.dact.view(hidden));
        mutation::apply(Term::Gate, i, s.gate.view_mut(hidden));
        mutation::apply(Term::Up, i, s.up.view_mut(hidden));
        rmsnorm::forward(device, work.h.view_mut(wide), s.middle.view(wide), w.ffn_norm.all(), c.rms_eps);
        self.product(
            Linear { layer: i, target: 4, dy: &s.gate, x: &work.h, low_rank: &s.low_rank, goes_on: true },
            &mut work.dh,
            Write::Replace,
            &mut work.adapter,
            &mut work.matmul,
        );
        self.product(
            Linear { layer: i, target: 5, dy: &s.up, x: &work.h, low_rank: &s.low_rank, goes_on: true },
            &mut work.dh,
            Write::Add,
            &mut work.adapter,
            &mut work.matmul,
        );
        self.norm_input(i, Part::FfnNorm, &w.ffn_norm, &s.middle, work, dx);
    }

    /// Forward: `middle = x + norm(attn_out)`, `attn_out = o(heads)`, `heads = attention(rope(norm(q(h))), ..)`, `h = norm(x)`.
    /// `goes_on`: whether the gradient of `x` is wanted, which `dx` is then.
    fn attention(
        &mut self,
        i: usize,
        x: &Buffer<f32>,
        s: &mut Saved,
        work: &mut Work,
        dx: &mut Buffer<f32>,
        goes_on: bool,
    ) {
        let (pass, t) = (self.pass, self.pass.rows());
        let (c, device, w) = (pass.config(), pass.device, &pass.model.layers[i]);
        let wide = [t, c.dim];
        self.norm_output(i, Part::PostAttnNorm, w.post_attn_norm.as_ref(), &s.attn_out, work, dx);
        self.product(
            Linear { layer: i, target: 3, dy: &work.sub, x: &s.heads, low_rank: &s.low_rank, goes_on: true },
            &mut work.dheads,
            Write::Replace,
            &mut work.adapter,
            &mut work.matmul,
        );
        mutation::apply(Term::Heads, i, work.dheads.view_mut([t, c.q_dim()]));
        let (q_shape, kv_shape) = ([t, c.n_heads, c.head_dim], [t, c.n_kv_heads, c.head_dim]);
        let saved = SavedForward {
            out: s.heads.view(q_shape),
            dout: work.dheads.view(q_shape),
            stats: s.stats.view([t, c.n_heads, 2]),
        };
        let gradients =
            Gradients { dq: work.dq.view_mut(q_shape), dk: work.dk.view_mut(kv_shape), dv: work.dv.view_mut(kv_shape) };
        let sequences = pass.sequences(i, &s.q, &s.k, &s.v);
        attention::backward_batch(device, gradients, saved, sequences, pass.batch.starts());
        mutation::apply(Term::Values, i, work.dv.view_mut([t, c.kv_dim()]));
        self.unrotate_and_norm(i, s, work);
        mutation::apply(Term::Queries, i, work.dq.view_mut([t, c.q_dim()]));
        mutation::apply(Term::Keys, i, work.dk.view_mut([t, c.kv_dim()]));
        rmsnorm::forward(device, work.h.view_mut(wide), x.view(wide), w.attn_norm.all(), c.rms_eps);
        for (target, write) in [(0, Write::Replace), (1, Write::Add), (2, Write::Add)] {
            let dy = [&work.dq, &work.dk, &work.dv][target];
            let linear = Linear { layer: i, target, dy, x: &work.h, low_rank: &s.low_rank, goes_on };
            self.product(linear, &mut work.dh, write, &mut work.adapter, &mut work.matmul);
        }
        if !goes_on {
            return;
        }
        self.norm_input(i, Part::AttnNorm, &w.attn_norm, x, work, dx);
    }

    /// Forward: `q = rope(norm(q_raw))`, and k likewise.
    fn unrotate_and_norm(&mut self, i: usize, s: &Saved, work: &mut Work) {
        let (pass, t) = (self.pass, self.pass.rows());
        let (c, device, w) = (pass.config(), pass.device, &pass.model.layers[i]);
        let planes = [
            (&s.q_raw, &mut work.dq, c.n_heads, Part::AttnQNorm),
            (&s.k_raw, &mut work.dk, c.n_kv_heads, Part::AttnKNorm),
        ];
        for (plane, (raw, d, n_heads, part)) in planes.into_iter().enumerate() {
            let rotated = d.view_mut([t, n_heads, c.head_dim]);
            rope::backward(device, rotated, pass.rope.table(c.is_global[i]), pass.batch.positions());
            let Some(norms) = &w.qk_norm else { continue };
            let shape = [t * n_heads, c.head_dim];
            self.norm_weight(part, i, d.view(shape), raw.view(shape), &mut work.rstd);
            rmsnorm::backward::input_in_place(
                device,
                d.view_mut(shape),
                raw.view(shape),
                norms[plane].all(),
                c.rms_eps,
            );
        }
    }

    /// Forward: `stream += norm(y)`, or `stream += y`. Leaves `dy` in `work.sub`.
    fn norm_output(
        &mut self,
        i: usize,
        part: Part,
        norm: Option<&Buffer<f32>>,
        y: &Buffer<f32>,
        work: &mut Work,
        dx: &Buffer<f32>,
    ) {
        let (pass, wide) = (self.pass, [self.pass.rows(), self.pass.config().dim]);
        match norm {
            Some(weight) => {
                self.norm_weight(part, i, dx.view(wide), y.view(wide), &mut work.rstd);
                let (dx, y, eps) = (dx.view(wide), y.view(wide), pass.config().rms_eps);
                rmsnorm::backward::input(
                    pass.device,
                    work.sub.view_mut(wide),
                    dx,
                    y,
                    weight.all(),
                    eps,
                    Write::Replace,
                );
            }
            None => copy::copy(pass.device, work.sub.view_mut(wide), dx.view(wide)),
        }
        mutation::apply(Term::SubLayer, i, work.sub.view_mut(wide));
    }

    /// Forward: `h = norm(x)`. Adds to `dx` from `work.dh`.
    fn norm_input(
        &mut self,
        i: usize,
        part: Part,
        weight: &Buffer<f32>,
        x: &Buffer<f32>,
        work: &mut Work,
        dx: &mut Buffer<f32>,
    ) {
        let (pass, wide) = (self.pass, [self.pass.rows(), self.pass.config().dim]);
        self.norm_weight(part, i, work.dh.view(wide), x.view(wide), &mut work.rstd);
        let (dh, x, eps) = (work.dh.view(wide), x.view(wide), pass.config().rms_eps);
        rmsnorm::backward::input(pass.device, work.sub.view_mut(wide), dh, x, weight.all(), eps, Write::Replace);
        mutation::apply(Term::Norm, i, work.sub.view_mut(wide));
        mutation::apply(Term::Residual, i, dx.view_mut(wide));
        residual::add_to(pass.device, dx.view_mut(wide), work.sub.view(wide));
    }

    /// The gradient of a norm's weight, where it is trained.
    fn norm_weight(&mut self, part: Part, i: usize, dy: View<'_, f32, 2>, x: View<'_, f32, 2>, rstd: &mut Buffer<f32>) {
        let Trainable::Full(full) = &self.trained else { return };
        let place = full.place(part, Some(i));
        let dweight = self.gradients.part_mut(place.start, [place.len]);
        let rstd = rstd.view_mut([x.shape()[0]]);
        rmsnorm::backward::weight(self.pass.device, dweight, rstd, dy, x, self.pass.config().rms_eps);
    }

    /// Forward: `y = W x + bias + B (scale * A x)`, with some of the adapter's `x` dropped.
    fn product(
        &mut self,
        y: Linear<'_>,
        dx: &mut Buffer<f32>,
        write: Write,
        work: &mut AdapterWork,
        scratch: &mut matmul::Scratch,
    ) {
        let Linear { layer: i, target, dy, x, low_rank, goes_on } = y;
        let (pass, weights) = (self.pass, matrix(&self.pass.model.layers[i], target));
        let (t, n, k, device) = (pass.rows(), weights.rows(), weights.cols(), pass.device);
        let (dy, x) = (dy.view([t, n]), x.view([t, k]));
        if goes_on {
            matmul::backward::input(device, dx.view_mut([t, k]), dy, weights, write, scratch);
        }
        match &self.trained {
            Trainable::Full(full) => {
                let place = full.place(TARGETS[target], Some(i));
                let dweight = self.gradients.part_mut(place.start, [n, k]);
                matmul::backward::weight(device, dweight, dy, x, weights.format(), scratch);
                let bias = [Part::AttnQBias, Part::AttnKBias, Part::AttnVBias].get(target);
                if let Some(bias) = bias.filter(|_| pass.model.layers[i].qkv_bias.is_some()) {
                    let place = full.place(*bias, Some(i));
                    matmul::backward::bias(device, self.gradients.part_mut(place.start, [n]), dy);
                }
            }
            Trainable::Lora(layout) => {
                let pair = pass.lora.and_then(|(lora, values)| lora.pair(values, i, target));
                let (Some(pair), Some(gradients)) = (pair, layout.gradients(self.gradients, i, target)) else { return };
                let rank = layout.rank;
                let u = low_rank.part(target * t * rank, [t, rank]);
                let seen = pass.dropped(i, target, x, &mut work.dropped);
                let saved = lora::SavedForward { dy, x: seen, u };
                lora::parameters(device, gradients, saved, pair, work.v.view_mut([t, rank]), scratch);
                if !goes_on {
                    return;
                }
                mutation::apply(Term::LowRank, i, work.v.view_mut([t, rank]));
                let v = work.v.view([t, rank]);
                let Some(drop) = pass.dropout.filter(|d| d.share > 0.0) else {
                    return lora::input(device, dx.view_mut([t, k]), v, pair, Write::Add);
                };
                lora::input(device, work.ddropped.view_mut([t, k]), v, pair, Write::Replace);
                let (through, key) = (work.ddropped.view([t, k]), drop.key(i, target));
                dropout::forward(device, work.dropped.view_mut([t, k]), through, drop.share, key);
                residual::add_to(device, dx.view_mut([t, k]), work.dropped.view([t, k]));
            }
        }
    }
}

/// The backward of a product of the forward pass.
struct Linear<'a> {
    layer: usize,
    target: usize,
    /// (T, N).
    dy: &'a Buffer<f32>,
    /// (T, K).
    x: &'a Buffer<f32>,
    /// (7, T, rank) of the forward pass.
    low_rank: &'a Buffer<f32>,
    /// Whether the gradient of `x` is wanted.
    goes_on: bool,
}
