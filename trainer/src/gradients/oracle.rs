//! The model from its formulas, one number at a time, on a [`Tape`]: what the trainer's gradients are compared with. Nothing
//! here is shared with the trainer's passes but the names of weights.

use std::ops::Range;

use lichen_kernels::ops::activation::Activation;
use lichen_kernels::ops::rope::RopeScaling;
use lichen_kernels::{Buffer, Matrix};
use lichen_runtime::files::model_source::Part;
use lichen_runtime::model::adapter::TARGETS;
use lichen_runtime::model::Model;
use lichen_runtime::ModelConfig;

use super::tape::{Number, Tape};
use crate::data::Sample;
use crate::lora::Lora;

/// A weight itself, or a half of the pair beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    Weight,
    A,
    B,
}

/// A tensor of parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tensor {
    pub part: Part,
    pub layer: Option<usize>,
    pub half: Half,
}

/// What the elements of an adapter's inputs are multiplied by: 0 where dropped.
pub struct Mask {
    pub part: Part,
    pub layer: usize,
    /// (T, inputs) for the rows of all samples, one after the other.
    pub factors: Vec<f64>,
}

/// A model, its adapter if it has one, and the values of both.
pub struct Oracle {
    config: ModelConfig,
    tensors: Vec<(Tensor, Range<usize>)>,
    pub values: Vec<f64>,
    /// Of the adapter.
    rank: usize,
    scale: f64,
    pub masks: Vec<Mask>,
}

impl Oracle {
    pub fn new(model: &Model, adapter: Option<(&Lora, &[f32])>) -> Oracle {
        let mut oracle = Oracle {
            config: model.config.clone(),
            tensors: Vec::new(),
            values: Vec::new(),
            rank: adapter.map_or(0, |(lora, _)| lora.rank),
            scale: adapter.map_or(0.0, |(lora, _)| f64::from(lora.alpha) / lora.rank as f64),
            masks: Vec::new(),
        };
        oracle.matrix(Part::TokenEmbedding, None, &model.embedding);
        if !model.config.tied_head {
            oracle.matrix(Part::Output, None, &model.head);
        }
        oracle.vector(Part::OutputNorm, None, &model.output_norm);
        for layer in 0..model.layers.len() {
            oracle.layer(model, layer);
        }
        for (layer, target, a, b) in adapter.into_iter().flat_map(|(lora, values)| lora.pairs(values)) {
            oracle.push(Tensor { part: TARGETS[target], layer: Some(layer), half: Half::A }, a);
            oracle.push(Tensor { part: TARGETS[target], layer: Some(layer), half: Half::B }, b);
        }
        oracle
    }

    fn layer(&mut self, model: &Model, layer: usize) {
        let (w, at) = (&model.layers[layer], Some(layer));
        let matrices = [
            (Part::AttnQ, &w.q),
            (Part::AttnK, &w.k),
            (Part::AttnV, &w.v),
            (Part::AttnOutput, &w.o),
            (Part::FfnGate, &w.gate),
            (Part::FfnUp, &w.up),
            (Part::FfnDown, &w.down),
        ];
        matrices.into_iter().for_each(|(part, m)| self.matrix(part, at, m));
        self.vector(Part::AttnNorm, at, &w.attn_norm);
        self.vector(Part::FfnNorm, at, &w.ffn_norm);
        if let Some([q, k, v]) = &w.qkv_bias {
            self.vector(Part::AttnQBias, at, q);
            self.vector(Part::AttnKBias, at, k);
            self.vector(Part::AttnVBias, at, v);
        }
        if let Some([q, k]) = &w.qk_norm {
            self.vector(Part::AttnQNorm, at, q);
            self.vector(Part::AttnKNorm, at, k);
        }
        let norms = [(Part::PostAttnNorm, &w.post_attn_norm), (Part::PostFfnNorm, &w.post_ffn_norm)];
        norms.into_iter().for_each(|(part, norm)| norm.iter().for_each(|norm| self.vector(part, at, norm)));
    }

    fn matrix(&mut self, part: Part, layer: Option<usize>, m: &Matrix) {
        let mut values = vec![0.0; m.rows() * m.cols()];
        m.decode_rows(0..m.rows(), &mut values);
        self.push(Tensor { part, layer, half: Half::Weight }, &values);
    }

    fn vector(&mut self, part: Part, layer: Option<usize>, v: &Buffer<f32>) {
        self.push(Tensor { part, layer, half: Half::Weight }, v.host());
    }

    fn push(&mut self, tensor: Tensor, values: &[f32]) {
        let start = self.values.len();
        self.values.extend(values.iter().map(|v| f64::from(*v)));
        self.tensors.push((tensor, start..self.values.len()));
    }

    /// Every tensor of parameters, and where it lies in `values`.
    pub fn tensors(&self) -> &[(Tensor, Range<usize>)] {
        &self.tensors
    }

    /// The mean of -ln p over the labelled tokens of all samples.
    pub fn loss(&self, samples: &[Sample]) -> f64 {
        let mut tape = Tape::new(false);
        let loss = Run::new(self, &mut tape).loss(samples);
        tape.value(loss)
    }

    /// That, and its slope by each of `values`.
    pub fn loss_and_gradients(&self, samples: &[Sample]) -> (f64, Vec<f64>) {
        let mut tape = Tape::new(true);
        let loss = Run::new(self, &mut tape).loss(samples);
        (tape.value(loss), tape.gradients(loss, self.values.len()))
    }
}

/// (positions of a sample, width).
type Rows = Vec<Vec<Number>>;

struct Run<'a> {
    oracle: &'a Oracle,
    tape: &'a mut Tape,
    leaves: Vec<Number>,
    /// Rows of the samples before this one.
    first_row: usize,
}

impl<'a> Run<'a> {
    fn new(oracle: &'a Oracle, tape: &'a mut Tape) -> Run<'a> {
        let leaves = oracle.values.iter().map(|v| tape.leaf(*v)).collect();
        Run { oracle, tape, leaves, first_row: 0 }
    }

    fn loss(mut self, samples: &[Sample]) -> Number {
        let mut terms = Vec::new();
        for sample in samples {
            let stream = self.stream(&sample.ids);
            for (x, label) in stream.iter().zip(&sample.labels[1..]).filter(|(_, label)| **label >= 0) {
                terms.push(self.minus_ln_p(x, *label as usize));
            }
            self.first_row += stream.len();
        }
        let sum = self.tape.sum(&terms);
        self.tape.affine(sum, 1.0 / terms.len() as f64, 0.0)
    }

    /// The stream after the last layer, at every token but the last, which nothing follows.
    fn stream(&mut self, ids: &[u32]) -> Rows {
        let (oracle, table) = (self.oracle, self.weight(Part::TokenEmbedding, None));
        let (dim, scale) = (oracle.config.dim, f64::from(oracle.config.embedding_scale));
        let mut x: Rows = Vec::new();
        for id in &ids[..ids.len() - 1] {
            let row = &table[*id as usize * dim..][..dim];
            x.push(row.iter().map(|v| self.tape.affine(*v, scale, 0.0)).collect());
        }
        for layer in 0..oracle.config.n_layers {
            let h = self.norm(Part::AttnNorm, Some(layer), &x);
            let y = self.attention(layer, &h);
            x = self.add_to_stream(Part::PostAttnNorm, layer, x, y);
            let h = self.norm(Part::FfnNorm, Some(layer), &x);
            let y = self.feed_forward(layer, &h);
            x = self.add_to_stream(Part::PostFfnNorm, layer, x, y);
        }
        x
    }

    fn minus_ln_p(&mut self, x: &[Number], label: usize) -> Number {
        let c = &self.oracle.config;
        let h = self.norm(Part::OutputNorm, None, &[x.to_vec()]).remove(0);
        let head = self.weight(if c.tied_head { Part::TokenEmbedding } else { Part::Output }, None);
        let logits: Vec<_> = head.chunks(c.dim).map(|w| self.tape.dot(w, &h)).collect();
        let powers: Vec<_> = logits.iter().map(|l| self.tape.exp(*l)).collect();
        let sum = self.tape.sum(&powers);
        let (ln, minus) = (self.tape.ln(sum), self.tape.affine(logits[label], -1.0, 0.0));
        self.tape.add(ln, minus)
    }

    /// `x + y`, y normed first where the block has post-norms.
    fn add_to_stream(&mut self, norm: Part, layer: usize, x: Rows, y: Rows) -> Rows {
        let y = if self.oracle.config.block.has_post_norms { self.norm(norm, Some(layer), &y) } else { y };
        let pairs = x.into_iter().zip(y);
        pairs.map(|(x, y)| x.into_iter().zip(y).map(|(x, y)| self.tape.add(x, y)).collect()).collect()
    }

    /// `y[i] = w[i] x[i] / sqrt(mean of x^2 + eps)` for each row.
    fn norm(&mut self, part: Part, layer: Option<usize>, x: &[Vec<Number>]) -> Rows {
        let (w, eps) = (self.weight(part, layer), f64::from(self.oracle.config.rms_eps));
        let mut row = |x: &Vec<Number>| {
            let squares = self.tape.dot(x, x);
            let mean = self.tape.affine(squares, 1.0 / x.len() as f64, eps);
            let root = self.tape.reciprocal_root(mean);
            let mut scaled = |(x, w): (&Number, &Number)| {
                let x = self.tape.mul(*x, root);
                self.tape.mul(x, *w)
            };
            x.iter().zip(&w).map(&mut scaled).collect()
        };
        x.iter().map(&mut row).collect()
    }

    /// `W x + bias + scale B A (mask x)` for each row.
    fn linear(&mut self, part: Part, bias: Option<Part>, layer: usize, x: &[Vec<Number>]) -> Rows {
        let (w, bias) = (self.weight(part, Some(layer)), bias.map(|bias| self.weight(bias, Some(layer))));
        let a = Tensor { part, layer: Some(layer), half: Half::A };
        let is_adapted = self.oracle.tensors.iter().any(|(tensor, _)| *tensor == a);
        let mut out = Rows::new();
        for (t, x) in x.iter().enumerate() {
            let mut y: Vec<_> = w.chunks(x.len()).map(|w| self.tape.dot(w, x)).collect();
            for (y, bias) in y.iter_mut().zip(bias.iter().flatten()) {
                *y = self.tape.add(*y, *bias);
            }
            if is_adapted {
                let x = self.dropped(part, layer, self.first_row + t, x);
                for (y, low) in y.iter_mut().zip(self.low_rank(part, layer, &x)) {
                    *y = self.tape.add(*y, low);
                }
            }
            out.push(y);
        }
        out
    }

    fn low_rank(&mut self, part: Part, layer: usize, x: &[Number]) -> Vec<Number> {
        let Oracle { rank, scale, .. } = *self.oracle;
        let at = |half| Tensor { part, layer: Some(layer), half };
        let (a, b) = (self.tensor(at(Half::A)), self.tensor(at(Half::B)));
        let u: Vec<_> = a.chunks(x.len()).map(|a| self.tape.dot(a, x)).collect();
        let mut scaled = |b: &[Number]| {
            let y = self.tape.dot(b, &u);
            self.tape.affine(y, scale, 0.0)
        };
        b.chunks(rank).map(&mut scaled).collect()
    }

    fn dropped(&mut self, part: Part, layer: usize, row: usize, x: &[Number]) -> Vec<Number> {
        let mask = self.oracle.masks.iter().find(|m| m.part == part && m.layer == layer);
        let Some(mask) = mask else { return x.to_vec() };
        let factors = &mask.factors[row * x.len()..][..x.len()];
        x.iter().zip(factors).map(|(x, factor)| self.tape.affine(*x, *factor, 0.0)).collect()
    }

    fn attention(&mut self, layer: usize, h: &[Vec<Number>]) -> Rows {
        let has_bias = self.oracle.config.block.has_qkv_bias;
        let bias = |part| has_bias.then_some(part);
        let q = self.linear(Part::AttnQ, bias(Part::AttnQBias), layer, h);
        let k = self.linear(Part::AttnK, bias(Part::AttnKBias), layer, h);
        let v = self.linear(Part::AttnV, bias(Part::AttnVBias), layer, h);
        let c = &self.oracle.config;
        let (mut heads, q_per_kv) = (vec![Vec::new(); h.len()], c.n_heads / c.n_kv_heads);
        for head in 0..c.n_heads {
            let of_head = |x: &Rows, i: usize| -> Rows {
                x.iter().map(|x| x[i * c.head_dim..(i + 1) * c.head_dim].to_vec()).collect()
            };
            let q = self.norm_and_rotate(Part::AttnQNorm, layer, of_head(&q, head));
            let k = self.norm_and_rotate(Part::AttnKNorm, layer, of_head(&k, head / q_per_kv));
            let v = of_head(&v, head / q_per_kv);
            for (t, out) in heads.iter_mut().enumerate() {
                out.extend(self.attend(layer, t, &q[t], &k, &v));
            }
        }
        self.linear(Part::AttnOutput, None, layer, &heads)
    }

    /// The mean of what position `t` sees, by the softmax of its scores.
    fn attend(&mut self, layer: usize, t: usize, q: &[Number], k: &[Vec<Number>], v: &[Vec<Number>]) -> Vec<Number> {
        let c = &self.oracle.config;
        let window = c.sliding_window.filter(|_| !c.is_global[layer]);
        let seen: Vec<usize> = (0..=t).filter(|j| window.is_none_or(|window| t - j < window)).collect();
        let mut powers = Vec::new();
        for j in &seen {
            let score = self.tape.dot(q, &k[*j]);
            let scaled = self.tape.affine(score, f64::from(c.query_scale), 0.0);
            powers.push(self.tape.exp(scaled));
        }
        let sum = self.tape.sum(&powers);
        let one_over_sum = self.tape.reciprocal(sum);
        let p: Vec<_> = powers.iter().map(|power| self.tape.mul(*power, one_over_sum)).collect();
        let column = |d: usize| -> Vec<Number> { seen.iter().map(|j| v[*j][d]).collect() };
        (0..c.head_dim).map(|d| self.tape.dot(&p, &column(d))).collect()
    }

    /// Pairs (i, i + D/2) are turned by `position / scale * theta^(-2 i / D)`, after a norm where there is one.
    fn norm_and_rotate(&mut self, norm: Part, layer: usize, x: Rows) -> Rows {
        let x = if self.oracle.config.block.has_qk_norm { self.norm(norm, Some(layer), &x) } else { x };
        let c = &self.oracle.config;
        let (theta, scale) = match c.is_global[layer] {
            true => match c.rope_scaling {
                RopeScaling::Linear(scale) => (f64::from(c.rope_theta), f64::from(scale)),
                // The tables hold other numbers; what is done with them is the same.
                RopeScaling::Yarn(_) => unreachable!("no model of the gradient tests has it"),
            },
            false => (f64::from(c.rope_theta_local), 1.0),
        };
        let half = c.head_dim / 2;
        let mut out = x.clone();
        for (position, (x, out)) in x.iter().zip(&mut out).enumerate() {
            for i in 0..half {
                let angle = position as f64 / scale * theta.powf(-2.0 * i as f64 / c.head_dim as f64);
                let (sin, cos) = angle.sin_cos();
                let (a, b) = (x[i], x[i + half]);
                out[i] = self.combine((a, cos), (b, -sin));
                out[i + half] = self.combine((b, cos), (a, sin));
            }
        }
        out
    }

    fn combine(&mut self, a: (Number, f64), b: (Number, f64)) -> Number {
        let (a, b) = (self.tape.affine(a.0, a.1, 0.0), self.tape.affine(b.0, b.1, 0.0));
        self.tape.add(a, b)
    }

    fn feed_forward(&mut self, layer: usize, h: &[Vec<Number>]) -> Rows {
        let gate = self.linear(Part::FfnGate, None, layer, h);
        let up = self.linear(Part::FfnUp, None, layer, h);
        let mut gated = Rows::new();
        for (gate, up) in gate.into_iter().zip(up) {
            gated.push(gate.into_iter().zip(up).map(|(g, u)| self.gated(g, u)).collect());
        }
        self.linear(Part::FfnDown, None, layer, &gated)
    }

    /// `act(g) u`.
    fn gated(&mut self, g: Number, u: Number) -> Number {
        let tape = &mut *self.tape;
        let act = match self.oracle.config.block.activation {
            // 0.5 g (1 + tanh(sqrt(2 / pi) (g + 0.044715 g^3))).
            Activation::GeluTanh => {
                let square = tape.mul(g, g);
                let cube = tape.mul(square, g);
                let bent = tape.affine(cube, 0.044715, 0.0);
                let inner = tape.add(g, bent);
                let scaled = tape.affine(inner, (2.0 / std::f64::consts::PI).sqrt(), 0.0);
                let tanh = tape.tanh(scaled);
                let share = tape.affine(tanh, 0.5, 0.5);
                tape.mul(g, share)
            }
            // g / (1 + e^-g).
            Activation::Silu => {
                let minus = tape.affine(g, -1.0, 0.0);
                let power = tape.exp(minus);
                let below = tape.affine(power, 1.0, 1.0);
                let share = tape.reciprocal(below);
                tape.mul(g, share)
            }
        };
        tape.mul(act, u)
    }

    fn weight(&self, part: Part, layer: Option<usize>) -> Vec<Number> {
        self.tensor(Tensor { part, layer, half: Half::Weight })
    }

    fn tensor(&self, tensor: Tensor) -> Vec<Number> {
        let found = self.oracle.tensors.iter().find(|(t, _)| *t == tensor);
        let (_, range) = found.unwrap_or_else(|| panic!("{tensor:?} is not of this model"));
        self.leaves[range.clone()].to_vec()
    }
}
