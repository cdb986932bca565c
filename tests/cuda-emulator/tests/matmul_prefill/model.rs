//! What the kernels round, and nothing else.

use half::bf16;
use lichen_kernels::formats::{nf4, Format};
use lichen_kernels::{Matrix, PackedMatrix};

/// Weights as a family of kernels holds them.
pub struct Model {
    kind: Kind,
    cols: usize,
    /// (N, K), exact.
    exact: Vec<f32>,
    /// (N, K): as multiplied; on sm_53 without the block's scale.
    weights: Vec<f64>,
    /// (N, K / 32): on sm_53 the scales, elsewhere ones.
    scales: Vec<f64>,
    /// What all sums are multiplied by.
    factor: f64,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Sixteen products at a time in f16.
    Half2,
    F16,
    Bf16,
}

pub struct Expected {
    pub value: f64,
    /// Of sums in f32.
    pub bound: f64,
    pub exact: f64,
    /// How far the roundings of the model may lead away from `exact`.
    pub rounding: f64,
}

impl Model {
    pub fn new(arch: u32, packed: &PackedMatrix) -> Model {
        let kind = match (arch, packed.format) {
            (53, _) => Kind::Half2,
            (80.., Format::BF16) => Kind::Bf16,
            _ => Kind::F16,
        };
        let host = packed.download().expect("the device reads");
        let (rows, cols) = (host.rows(), host.cols());
        let mut exact = vec![0.0; rows * cols];
        host.decode_rows(0..rows, &mut exact);
        let (n_blocks, factor) = (cols.div_ceil(32), packed.absmax_scale as f64);
        let mut model = Model { kind, cols, weights: Vec::new(), scales: vec![1.0; rows * n_blocks], exact, factor };
        for row in 0..rows {
            for block in 0..n_blocks {
                let at = row * cols + block * 32..row * cols + (block * 32 + 32).min(cols);
                let (codes, scale) = model.block(&host, at, factor);
                let is_half2 = kind == Kind::Half2;
                let rounded = |v: f64| if is_half2 || kind == Kind::Bf16 { v } else { to_f16(v * scale) };
                model.weights.extend(codes.into_iter().map(rounded));
                model.scales[row * n_blocks + block] = if is_half2 { scale } else { 1.0 };
            }
        }
        model
    }

    /// The codes of one block, as f16, and their scale; plain weights with the scale 1 but on sm_53, where they are
    /// brought below 2 (F16) or 4 (BF16).
    fn block(&self, host: &Matrix, at: std::ops::Range<usize>, factor: f64) -> (Vec<f64>, f64) {
        let exact: Vec<f64> = self.exact[at.clone()].iter().map(|v| *v as f64).collect();
        let block_scale = |bytes: usize| {
            let from = at.start / 32 * bytes;
            half::f16::from_le_bytes([host.bytes()[from], host.bytes()[from + 1]]).to_f64()
        };
        let codes_of = |scale: f64| {
            let code = |v: &f64| if scale == 0.0 { 0.0 } else { (v / scale).round() };
            (exact.iter().map(code).collect(), scale)
        };
        match host.format() {
            Format::Q8_0 => codes_of(block_scale(34)),
            Format::Q4_0 => codes_of(block_scale(18)),
            Format::NF4 => {
                let level = |k: usize| {
                    let byte = host.bytes()[k / 2];
                    let index = if k.is_multiple_of(2) { byte >> 4 } else { byte & 15 };
                    to_f16(nf4::LEVELS[index as usize] as f64)
                };
                (at.clone().map(level).collect(), host.absmax()[at.start / 64] as f64 / factor)
            }
            _ if self.kind != Kind::Half2 => (exact, 1.0),
            _ => {
                let largest = exact.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                let scale = if largest == 0.0 { 1.0 } else { 2f64.powi(largest.log2().floor() as i32) };
                (exact.iter().map(|v| to_f16(v / scale)).collect(), scale)
            }
        }
    }

    /// Row `n` of the weights times `x`.
    pub fn product(&self, x: &[f32], n: usize) -> Expected {
        let top = if self.kind == Kind::Half2 { 3 } else { 14 };
        let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        let shift = if largest == 0.0 { 0 } else { (top - (largest as f64).log2().floor() as i32).min(126) };
        let unit = 2f64.powi(-shift);
        let rows = n * self.cols..(n + 1) * self.cols;
        let weights = &self.weights[rows.clone()];
        let scales = &self.scales[n * self.cols.div_ceil(32)..];
        let rounded = |v: f32| match self.kind {
            Kind::Bf16 => bf16::from_f32(v).to_f64(),
            _ => to_f16(v as f64 / unit),
        };
        let unit = if self.kind == Kind::Bf16 { 1.0 } else { unit };
        let (mut value, mut magnitude) = (0.0, 0.0);
        for (b, (x, w)) in x.chunks(32).zip(weights.chunks(32)).enumerate() {
            let mut f16s = [0.0; 2];
            for (k, (x, w)) in x.iter().zip(w).enumerate() {
                let product = rounded(*x) * w;
                magnitude += (product * scales[b]).abs();
                match self.kind {
                    Kind::Half2 => f16s[k % 2] = to_f16(f16s[k % 2] + product),
                    _ => value += product,
                }
            }
            value += (f16s[0] + f16s[1]) * scales[b];
        }
        let exact_terms = || x.iter().zip(&self.exact[rows.clone()]).map(|(x, w)| *x as f64 * *w as f64);
        let exact_magnitude = exact_terms().map(f64::abs).sum::<f64>();
        // One rounding to 8 bits of x, or two to 11 and for NF4's levels a third; sixteen sums in f16 on sm_53. What is
        // small beside the largest value of its row or block loses bits below 2^-25 of it at most; the smallest bf16 is
        // 2^-133.
        let relative = match self.kind {
            Kind::Bf16 => 2f64.powi(-8),
            Kind::F16 => 3.0 * 2f64.powi(-11),
            Kind::Half2 => 19.0 * 2f64.powi(-11),
        };
        let largest_weight = self.exact[rows.clone()].iter().fold(0.0f32, |m, v| m.max(v.abs())) as f64;
        let below = (2f64.powi(-18) * largest as f64 + 2f64.powi(-133)) * largest_weight * x.len() as f64;
        let up = unit * self.factor;
        Expected {
            value: value * up,
            // A product and a sum of f32 round by 2^-24 each; tensor cores cut off instead of rounding.
            bound: magnitude * up * (x.len() as f64 + 16.0) * 2f64.powi(-23) + 1e-44,
            exact: exact_terms().sum(),
            rounding: exact_magnitude * relative + below,
        }
    }
}

/// The nearest f16, ties to even, of a value in its range; half's own conversion goes by f32 and rounds twice.
fn to_f16(v: f64) -> f64 {
    let exponent = (v.to_bits() >> 52 & 0x7ff) as i32 - 1023;
    let unit = 2f64.powi(exponent.max(-14) - 10);
    (v / unit).round_ties_even() * unit
}
