//! Attention of whole sequences, forward and backward, on any device; what it should be in f64, and how far off it may be.

use lichen_kernels::ops::attention::backward::{self, Given, Gradients};
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
    /// Values and gradients of sizes that a half could not hold.
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
    let given = Given { out: out.view(wide), dout: dout.view(wide), stats: stats.view(stats_shape) };
    let gradients = Gradients { dq: dq.view_mut(wide), dk: dk.view_mut(narrow), dv: dv.view_mut(narrow) };
    match starts {
        None => backward::backward(device, gradients, given, s),
        Some(starts) => backward::backward_batch(device, gradients, given, s, starts),
    }
    let [out, stats, dq, dk, dv] = [&out, &stats, &dq, &dk, &dv].map(|buffer| download(device, buffer));
    Results { out, stats, dq, dk, dv }
}

/// Roundings of a kernel, relative to the magnitudes of what is multiplied.
#[derive(Clone, Copy)]
pub struct Roundings {
    /// Of the products that scores and slopes are made of, and of those with the values.
    pub inner: f64,
    /// Of the products that gradients are made of.
    pub gradient: f64,
}

/// A value, and how far off it may be.
pub type Expected = Vec<(f64, f64)>;

/// One rounding of an f32 sum: tensor cores may cut off.
const EPS: f64 = 1.0 / (1 << 23) as f64;

/// What a query has of the keys it sees.
struct Query {
    top: (f64, f64),
    sum: (f64, f64),
    /// Probabilities, and their relative error.
    p: Vec<f64>,
    p_error: f64,
    /// `scale * p * (dp - delta)`.
    ds: Vec<(f64, f64)>,
    out: Expected,
}

fn dot(a: &[f32], b: &[f32]) -> (f64, f64) {
    let terms = a.iter().zip(b).map(|(a, b)| *a as f64 * *b as f64);
    terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()))
}

fn query(c: &Case, inputs: &Inputs, r: Roundings, t: usize, h: usize) -> Query {
    let (d, at) = (c.head_dim, (t * c.n_heads + h) * c.head_dim);
    let keys: Vec<usize> = ((t + 1).saturating_sub(c.window)..t + 1).collect();
    let of_key = |x: &'static str, j: usize| {
        let from = (j * c.n_kv_heads + h / (c.n_heads / c.n_kv_heads)) * d;
        if x == "k" {
            &inputs.k[from..from + d]
        } else {
            &inputs.v[from..from + d]
        }
    };
    let (q, dout, scale) = (&inputs.q[at..at + d], &inputs.dout[at..at + d], c.scale() as f64);
    // Sums of D products; whatever comes after has a few roundings.
    let inner = r.inner + (d + 4) as f64 * EPS;
    let scores: Vec<(f64, f64)> = keys.iter().map(|j| dot(q, of_key("k", *j))).collect();
    let largest = scores.iter().map(|(_, size)| size * scale).fold(0.0, f64::max);
    let top = scores.iter().map(|(s, _)| s * scale).fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = scores.iter().map(|(s, _)| (s * scale - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    let p: Vec<f64> = e.iter().map(|e| e / sum).collect();
    // A weight follows its score and the largest one, its exponent's rounding, and the exponential's (2^-22); the sum of
    // weights is as uncertain.
    let score_error = largest * inner;
    let n_sum = (keys.len() + 8) as f64 * EPS;
    let p_error = 2.0 * (2.0 * score_error + 4.0 * largest * EPS + 4.0 * EPS) + n_sum;
    let mut out = vec![(0.0, 0.0); d];
    for (p, j) in p.iter().zip(&keys) {
        for (out, v) in out.iter_mut().zip(of_key("v", *j)) {
            out.0 += p * *v as f64;
            out.1 += (p * *v as f64).abs() * (p_error + r.inner + n_sum);
        }
    }
    let delta = dout.iter().zip(&out).map(|(x, y)| *x as f64 * y.0).sum::<f64>();
    let delta_error: f64 =
        dout.iter().zip(&out).map(|(x, y)| (*x as f64).abs() * (y.1 + y.0.abs() * (d + 4) as f64 * EPS)).sum();
    let slope = |(p, j): (&f64, &usize)| {
        let (dp, size) = dot(dout, of_key("v", *j));
        let error = size * inner + delta_error + (dp.abs() + delta.abs()) * (p_error + 4.0 * EPS);
        (scale * p * (dp - delta), scale * p * error)
    };
    let ds = p.iter().zip(&keys).map(slope).collect();
    let sum_error = sum * p_error;
    Query { top: (top, score_error + top.abs() * EPS), sum: (sum, sum_error), p, p_error, ds, out }
}

/// out, stats, dq, dk, dv, in the order of [`Results::parts`].
pub fn expected(c: &Case, inputs: &Inputs, r: Roundings) -> [Expected; 5] {
    let (wide, narrow) = (vec![(0.0, 0.0); inputs.q.len()], vec![(0.0, 0.0); inputs.k.len()]);
    let (mut out, mut stats) = (wide.clone(), Vec::new());
    let (mut dq, mut dk, mut dv) = (wide, narrow.clone(), narrow);
    let (d, per_kv) = (c.head_dim, c.n_heads / c.n_kv_heads);
    // Terms of the longest sum, each a rounding.
    let gradient = r.gradient + ((c.t * per_kv).min(c.window.saturating_mul(per_kv)) + 8) as f64 * EPS;
    let add = |to: &mut (f64, f64), (a, a_error): (f64, f64), b: f32| {
        to.0 += a * b as f64;
        to.1 += (a_error + a.abs() * gradient) * (b as f64).abs();
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
                    add(&mut dv[j + i], (*p, p * query.p_error), inputs.dout[at + i]);
                }
            }
        }
    }
    [out, stats, dq, dk, dv]
}
