//! A layer's attention as a session calls it, on any device, and what it should be in f64.
#![allow(dead_code)]

use half::f16;
use lichen_kernels::ops::attention::{self, Attention, KvFormat, KvStore, QkNorm, Scratch};
use lichen_kernels::ops::rope::RopeTable;
use lichen_kernels::{Buffer, Device, Step};

use crate::oracle::random;

pub const SCALE: f32 = 0.3;
const EPS: f32 = 1e-6;

/// One layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    pub format: KvFormat,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub window: usize,
    pub n_slots: usize,
    pub has_norm: bool,
}

/// Queries, keys and values of every position: row p is the same however the positions are cut into chunks.
pub struct Inputs {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

impl Inputs {
    pub fn new(layer: &Layer, n_positions: usize) -> Inputs {
        let kv = n_positions * layer.n_kv_heads * layer.head_dim;
        let q = random(n_positions * layer.n_heads * layer.head_dim, 1.0, 1);
        Inputs { q, k: random(kv, 1.0, 2), v: random(kv, 1.0, 3) }
    }
}

/// What one chunk gave.
pub struct Chunk {
    /// (T, n_heads, head_dim).
    pub out: Vec<f32>,
    /// (T, n_heads, head_dim): the queries afterwards, normed and rotated where the device keeps them.
    pub q: Vec<f32>,
}

/// A layer on a device.
pub struct Session<'a> {
    device: &'a Device,
    layer: Layer,
    rope: RopeTable,
    norms: [Buffer<f32>; 2],
    pub cache: KvStore,
    scratch: Scratch,
}

impl<'a> Session<'a> {
    pub fn new(device: &'a Device, layer: Layer, n_positions: usize) -> Session<'a> {
        let Layer { format, n_heads, n_kv_heads, head_dim, n_slots, .. } = layer;
        let norm = |seed| {
            let weights: Vec<f32> = random(head_dim, 0.5, seed).iter().map(|w| 1.0 + w).collect();
            Buffer::from_slice(device, &weights).unwrap()
        };
        Session {
            device,
            layer,
            rope: RopeTable::new(device, n_positions, head_dim, 10_000.0, 1.0).unwrap(),
            norms: [norm(4), norm(5)],
            cache: KvStore::new(device, format, n_slots, n_kv_heads, head_dim).unwrap(),
            scratch: Scratch::new(device, 1, n_slots, n_heads, head_dim).unwrap(),
        }
    }

    /// Positions `first..first + n_rows`.
    pub fn run(&mut self, inputs: &Inputs, first: usize, n_rows: usize) -> Chunk {
        let Layer { n_heads, n_kv_heads, head_dim, .. } = self.layer;
        let upload = |values: &[f32], width: usize| {
            Buffer::from_slice(self.device, &values[first * width..(first + n_rows) * width]).unwrap()
        };
        let (q_width, kv_width) = (n_heads * head_dim, n_kv_heads * head_dim);
        let (mut q, mut k) = (upload(&inputs.q, q_width), upload(&inputs.k, kv_width));
        let v = upload(&inputs.v, kv_width);
        let mut out = Buffer::from_slice(self.device, &vec![f32::NAN; n_rows * q_width]).unwrap();
        let mut step = Step::new(self.device, n_rows).unwrap();
        step.set(first, &vec![0; n_rows]);
        step.send();
        let (q_shape, kv_shape) = ([n_rows, n_heads, head_dim], [n_rows, n_kv_heads, head_dim]);
        let norms = QkNorm { q: self.norms[0].all(), k: self.norms[1].all(), eps: EPS };
        let call = Attention {
            out: out.view_mut(q_shape),
            q: q.view_mut(q_shape),
            k: k.view_mut(kv_shape),
            v: v.view(kv_shape),
            cache: &mut self.cache,
            pages: None,
            step: &step,
            rope: &self.rope,
            qk_norm: self.layer.has_norm.then_some(norms),
            window: self.layer.window,
            scale: SCALE,
        };
        attention::forward(self.device, call, &mut self.scratch);
        let download = |buffer: &Buffer<f32>| {
            let mut values = vec![0.0; buffer.len()];
            buffer.read(0, &mut values).unwrap();
            values
        };
        Chunk { out: download(&out), q: download(&q) }
    }

    /// What the cache holds of the positions before `end`.
    pub fn saved(&self, end: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.cache.save(&(end.saturating_sub(self.layer.n_slots)..end), &mut bytes).unwrap();
        bytes
    }
}

/// The stored keys and values of the positions before `end`, in f64: (2, n_kv_heads, positions, head_dim).
pub fn decoded(layer: &Layer, saved: &[u8]) -> Vec<f64> {
    let dim = layer.head_dim;
    let n_vectors = saved.len() / layer.format.vector_bytes(dim);
    let float = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]) as f64;
    match layer.format {
        KvFormat::F32 => saved.chunks(4).map(float).collect(),
        KvFormat::F16 => saved.chunks(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect(),
        KvFormat::I8 => panic!("{n_vectors} vectors of int8 come by segments: restore them as f32"),
    }
}

/// What attention should give for one head, and what it may be off.
pub struct Expected {
    pub out: Vec<f64>,
    pub bound: Vec<f64>,
    /// The same by plain f16: queries, weights and values rounded to f16, everything else exact.
    pub plain: Vec<f64>,
}

fn to_half(v: f64) -> f64 {
    f16::from_f64(v).to_f64()
}

/// What multiplies, and so how it rounds.
#[derive(Clone, Copy, PartialEq)]
pub enum Products {
    /// f32, spread over the lanes of a warp.
    Lanes,
    /// f16, queries and weights as sums of two.
    TensorCores,
}

impl Products {
    /// Roundings of a score and of an output, in units of 2^-24 of the sum of their terms' magnitudes, for `dim` and for `n`
    /// terms.
    ///
    /// Lanes: one for each of a lane's share, the folds and the scaling; one for every four keys and for each merge.
    ///
    /// A tensor core's sum of 16 products and what was there before drops what lies below 2^-23 of the largest, seventeen
    /// times with either sign: four units are far beyond what is left of that. Keys meet queries once, values meet weights
    /// twice; and leaving out 2^-22 of a query or weight is another four.
    fn roundings(self, dim: usize, n: usize) -> [f64; 2] {
        match self {
            Products::Lanes => [dim as f64 / 32.0 + 9.0, n as f64 / 4.0 + 40.0],
            Products::TensorCores => [dim as f64 / 4.0 + 13.0, n as f64 / 2.0 + 52.0],
        }
    }

    /// What a weight is off at least, where the largest is 1: half of the least half, times 2^-15.
    fn least_weight(self) -> f64 {
        match self {
            Products::Lanes => 0.0,
            Products::TensorCores => 2f64.powi(-25 - 15),
        }
    }
}

/// `q` (head_dim); keys and values (n, head_dim), oldest first.
pub fn expect(q: &[f32], keys: &[f64], values: &[f64], by: Products) -> Expected {
    let dim = q.len();
    let n = keys.len() / dim;
    let log2_e = std::f64::consts::LOG2_E;
    let eps = 2f64.powi(-24);
    let weigh = |q: &[f64]| -> Vec<f64> {
        let scores: Vec<f64> =
            keys.chunks(dim).map(|k| q.iter().zip(k).map(|(q, k)| q * k).sum::<f64>() * SCALE as f64).collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        scores.iter().map(|s| (s - top).exp()).collect()
    };
    let exact: Vec<f64> = q.iter().map(|v| *v as f64).collect();
    let f16s: Vec<f64> = exact.iter().map(|v| to_half(v * SCALE as f64 * log2_e) / (SCALE as f64 * log2_e)).collect();
    let (weights, plain_weights) = (weigh(&exact), weigh(&f16s));
    let (sum, plain_sum) = (weights.iter().sum::<f64>(), plain_weights.iter().sum::<f64>());
    // The weight follows its score, and ex2.approx adds 2^-22. Twice, as the maximum's score is as uncertain.
    let [of_score, of_sum] = by.roundings(dim, n);
    let magnitude = |k: &[f64]| exact.iter().zip(k).map(|(q, k)| (q * k).abs()).sum::<f64>() * SCALE as f64;
    let score = keys.chunks(dim).map(magnitude).fold(0.0, f64::max) * of_score * eps;
    let relative = 2.0 * (score + 2.0 * 2f64.powi(-22)) + of_sum * eps;
    let mut expected = Expected { out: vec![0.0; dim], bound: vec![0.0; dim], plain: vec![0.0; dim] };
    for (j, v) in values.chunks(dim).enumerate() {
        for (i, v) in v.iter().enumerate() {
            expected.out[i] += weights[j] / sum * v;
            expected.bound[i] += (relative * weights[j] + by.least_weight()) / sum * v.abs();
            expected.plain[i] += to_half(plain_weights[j]) / plain_sum * to_half(*v);
        }
    }
    expected.bound.iter_mut().for_each(|b| *b += 1e-30);
    expected
}
