//! Attention of whole sequences, forward and backward, on any device; what it should be in f64, and how far off it may be.

use lichen_kernels::ops::attention::train::backward::{self, Gradients, SavedForward};
use lichen_kernels::ops::attention::train::{self, Sequence, Starts};
use lichen_kernels::{Buffer, Device};

use crate::common::{download, upload};
use crate::oracle::random;

/// One sequence, or several of `t` rows together.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub t: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    pub window: usize,
    /// Largest query and key.
    pub size: f32,
}

impl Case {
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn shapes(&self) -> ([usize; 3], [usize; 3]) {
        ([self.t, self.n_heads, self.head_dim], [self.t, self.n_kv_heads, self.head_dim])
    }
}

/// q, k, v and the gradient of the output.
#[derive(Clone)]
pub struct Inputs {
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
    pub dout: Vec<f32>,
}

impl Inputs {
    /// Values and gradients of sizes that an f16 could not hold.
    pub fn new(c: &Case) -> Inputs {
        let (wide, narrow) = (c.t * c.n_heads * c.head_dim, c.t * c.n_kv_heads * c.head_dim);
        Inputs {
            q: random(wide, c.size, 1),
            k: random(narrow, c.size, 2),
            v: random(narrow, 1e6, 3),
            dout: random(wide, 1e-9, 4),
        }
    }
}

/// What both passes gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Results {
    pub out: Vec<f32>,
    pub stats: Vec<f32>,
    pub dq: Vec<f32>,
    pub dk: Vec<f32>,
    pub dv: Vec<f32>,
}

impl Results {
    pub fn parts(&self) -> [(&'static str, &[f32]); 5] {
        [("out", &self.out), ("stats", &self.stats), ("dq", &self.dq), ("dk", &self.dk), ("dv", &self.dv)]
    }
}

/// Both passes over one sequence, or over the sequences of a batch that `starts` says.
pub fn run(device: &Device, c: &Case, inputs: &Inputs, starts: Option<&Starts>) -> Results {
    let (wide, narrow) = c.shapes();
    let (q, k, v) = (upload(device, &inputs.q), upload(device, &inputs.k), upload(device, &inputs.v));
    let dout = upload(device, &inputs.dout);
    // What is not written shows.
    let nothing = |n: usize| -> Buffer<f32> { upload(device, &vec![f32::NAN; n]) };
    let (mut out, mut stats) = (nothing(inputs.q.len()), nothing(2 * c.t * c.n_heads));
    let (mut dq, mut dk, mut dv) = (nothing(inputs.q.len()), nothing(inputs.k.len()), nothing(inputs.k.len()));
    let s = Sequence { q: q.view(wide), k: k.view(narrow), v: v.view(narrow), window: c.window, scale: c.scale() };
    let stats_shape = [c.t, c.n_heads, 2];
    let (out_view, stats_view) = (out.view_mut(wide), stats.view_mut(stats_shape));
    match starts {
        None => train::forward(device, out_view, stats_view, s),
        Some(starts) => train::forward_batch(device, out_view, stats_view, s, starts),
    }
    let saved = SavedForward { out: out.view(wide), dout: dout.view(wide), stats: stats.view(stats_shape) };
    let gradients = Gradients { dq: dq.view_mut(wide), dk: dk.view_mut(narrow), dv: dv.view_mut(narrow) };
    match starts {
        None => backward::backward(device, gradients, saved, s),
        Some(starts) => backward::backward_batch(device, gradients, saved, s, starts),
    }
    let [out, stats, dq, dk, dv] = [&out, &stats, &dq, &dk, &dv].map(|buffer| download(device, buffer));
    Results { out, stats, dq, dk, dv }
}

/// Roundings of a kernel's factors, as standard deviations of the relative error of a product.
#[derive(Clone, Copy)]
pub struct Roundings {
    /// Of the products that scores, slopes and outputs are made of.
    pub inner: f64,
    /// Of the products that gradients are made of.
    pub gradient: f64,
}

/// A value and the variance of its error: roundings are independent and small, so their variances add.
pub type Expected = Vec<(f64, f64)>;

/// One rounding of an f32 sum, squared: tensor cores may cut off.
const EPS2: f64 = 1.0 / (1u64 << 46) as f64;

/// What a query has of the keys it sees.
struct Query {
    top: (f64, f64),
    sum: (f64, f64),
    /// Probabilities.
    p: Expected,
    /// `scale * p * (dp - delta)`.
    ds: Expected,
    out: Expected,
}

/// A dot product of f32, with the roundings of its products and of its sum.
fn dot(a: &[f32], b: &[f32], inner: f64) -> (f64, f64) {
    let terms = a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64);
    let (sum, squares) = terms.fold((0.0, 0.0), |(sum, squares), term| (sum + term, squares + term * term));
    (sum, squares * (inner * inner + (a.len() + 2) as f64 * EPS2))
}

fn query(c: &Case, inputs: &Inputs, r: Roundings, t: usize, h: usize) -> Query {
    let (d, at) = (c.head_dim, (t * c.n_heads + h) * c.head_dim);
    let keys: Vec<usize> = ((t + 1).saturating_sub(c.window)..t + 1).collect();
    let from = |j: usize| (j * c.n_kv_heads + h / (c.n_heads / c.n_kv_heads)) * d;
    let value = |j: usize| &inputs.v[from(j)..from(j) + d];
    let (q, dout, scale) = (&inputs.q[at..at + d], &inputs.dout[at..at + d], c.scale() as f64);
    let scores: Vec<(f64, f64)> = keys.iter().map(|j| dot(q, &inputs.k[from(*j)..from(*j) + d], r.inner)).collect();
    let scores: Vec<(f64, f64)> = scores.iter().map(|(s, var)| (s * scale, var * scale * scale)).collect();
    let top = scores.iter().map(|s| s.0).fold(f64::NEG_INFINITY, f64::max);
    let largest = scores.iter().map(|s| s.0.abs()).fold(0.0, f64::max);
    let score_var = scores.iter().map(|s| s.1).fold(0.0, f64::max) + 4.0 * largest * largest * EPS2;
    let e: Vec<f64> = scores.iter().map(|s| (s.0 - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    // A weight follows its score and the sum the others; the exponential is off by 2^-22; the weights are summed.
    let n_eps2 = (keys.len() + 2) as f64 * EPS2;
    let p_var = 2.0 * score_var + 16.0 * EPS2 + n_eps2;
    let p: Expected = e.iter().map(|e| (e / sum, (e / sum) * (e / sum) * p_var)).collect();
    let (mut out, mut product_var) = (vec![(0.0, 0.0); d], vec![0.0; d]);
    for (p, j) in p.iter().zip(&keys) {
        for (i, v) in value(*j).iter().map(|v| *v as f64).enumerate() {
            let own = p.0 * p.0 * v * v * (r.inner * r.inner + n_eps2);
            out[i] = (out[i].0 + p.0 * v, out[i].1 + p.1 * v * v + own);
            product_var[i] += own + out[i].0 * out[i].0 * EPS2;
        }
    }
    let dp: Expected = keys.iter().map(|j| dot(dout, value(*j), r.inner)).collect();
    let delta: f64 = p.iter().zip(&dp).map(|(p, dp)| p.0 * dp.0).sum();
    // dout . out: the errors of the probabilities, which all values of `out` share, and its own.
    let mut delta_var: f64 = p.iter().zip(&dp).map(|(p, dp)| p.1 * dp.0 * dp.0).sum();
    for (i, x) in dout.iter().map(|x| *x as f64).enumerate() {
        delta_var += x * x * (product_var[i] + out[i].0 * out[i].0 * (d + 2) as f64 * EPS2);
    }
    let slope = |(p, dp): (&(f64, f64), &(f64, f64))| {
        let difference = dp.0 - delta;
        let rounding = 16.0 * (dp.0 * dp.0 + delta * delta) * EPS2;
        let var = difference * difference * p.1 + p.0 * p.0 * (dp.1 + delta_var + rounding);
        (scale * p.0 * difference, scale * scale * var)
    };
    let ds = p.iter().zip(&dp).map(slope).collect();
    // What the largest score is too much, the sum is too little.
    let sum_var = sum * sum * (2.0 * p_var);
    Query { top: (top, score_var + top * top * EPS2), sum: (sum, sum_var), p, ds, out }
}

/// out, stats, dq, dk, dv, in the order of [`Results::parts`].
pub fn expected(c: &Case, inputs: &Inputs, r: Roundings) -> [Expected; 5] {
    let (wide, narrow) = (vec![(0.0, 0.0); inputs.q.len()], vec![(0.0, 0.0); inputs.k.len()]);
    let (mut out, mut stats) = (wide.clone(), Vec::new());
    let (mut dq, mut dk, mut dv) = (wide, narrow.clone(), narrow);
    let (d, per_kv) = (c.head_dim, c.n_heads / c.n_kv_heads);
    // Terms of the longest sum, each a rounding.
    let n_terms = c.t.min(c.window) * per_kv;
    let product_var = r.gradient * r.gradient + (n_terms + 2) as f64 * EPS2;
    let add = |to: &mut (f64, f64), (a, a_var): (f64, f64), b: f32| {
        let b = b as f64;
        *to = (to.0 + a * b, to.1 + (a_var + a * a * product_var) * b * b);
    };
    for t in 0..c.t {
        for h in 0..c.n_heads {
            let at = (t * c.n_heads + h) * d;
            let query = query(c, inputs, r, t, h);
            stats.extend([query.top, query.sum]);
            out[at..at + d].copy_from_slice(&query.out);
            for (n, (p, ds)) in query.p.iter().zip(&query.ds).enumerate() {
                let j = ((t + 1 - query.p.len() + n) * c.n_kv_heads + h / per_kv) * d;
                for i in 0..d {
                    add(&mut dq[at + i], *ds, inputs.k[j + i]);
                    add(&mut dk[j + i], *ds, inputs.q[at + i]);
                    add(&mut dv[j + i], *p, inputs.dout[at + i]);
                }
            }
        }
    }
    [out, stats, dq, dk, dv]
}
