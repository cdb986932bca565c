//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), in f32, elementwise, in PyTorch's order:
//! `p -= lr * decay * p`, `m = b1 m + (1 - b1) g`, `v = b2 v + (1 - b2) g^2`,
//! `p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)`.

mod cuda;

use crate::device::Device;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::simd::per_isa;
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("adamw", Role::Training)];

/// Elements per task: 16 k values take about 10 microseconds.
pub const CHUNK: usize = 16 << 10;

/// The numbers of one step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    /// Steps taken, this one included: 1 for the first.
    pub t: u64,
    /// What gradients are multiplied by: below 1 where they are clipped.
    pub gradient_scale: f32,
}

/// Factors of [`Step`], rounded to f32 once.
#[derive(Clone, Copy)]
struct Factors {
    keep: f32,
    beta1: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    rate: f32,
    root: f32,
    eps: f32,
    gradient_scale: f32,
}

/// Updates the parameters `p` (n) and their moments from `g` (n). `moments` (2 n) holds chunks of 16,384 of m, each followed
/// by as many of v: the last chunk may be shorter.
pub fn step(
    device: &Device,
    mut p: ViewMut<'_, f32, 1>,
    g: View<'_, f32, 1>,
    mut moments: ViewMut<'_, f32, 1>,
    step: &Step,
) {
    let n = p.len();
    assert!(g.len() == n && moments.len() == 2 * n && step.t > 0);
    let correction = |beta: f64| 1.0 - beta.powi(i32::try_from(step.t).unwrap_or(i32::MAX));
    let factors = Factors {
        keep: (1.0 - step.learning_rate * step.weight_decay) as f32,
        beta1: step.beta1 as f32,
        rest1: (1.0 - step.beta1) as f32,
        beta2: step.beta2 as f32,
        rest2: (1.0 - step.beta2) as f32,
        rate: (step.learning_rate / correction(step.beta1)) as f32,
        root: correction(step.beta2).sqrt() as f32,
        eps: step.eps as f32,
        gradient_scale: step.gradient_scale,
    };
    match device {
        Device::Cpu(cpu) => {
            let (g, moments) = (g.host(), moments.host_mut());
            cpu.pool.for_chunk_pairs(true, (p.host_mut(), CHUNK), (moments, 2 * CHUNK), &|i, p, moments| {
                let start = i * CHUNK;
                let (m, v) = moments.split_at_mut(p.len());
                update(cpu.isa, p, &g[start..start + p.len()], m, v, factors);
            });
        }
        Device::Cuda(cuda) => cuda::step(cuda, p, g, moments, factors),
    }
}

per_isa! {
    fn update(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) = update_body;
}

#[inline(always)]
fn update_body(p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32], f: Factors) {
    for ((p, g), (m, v)) in p.iter_mut().zip(g).zip(m.iter_mut().zip(v)) {
        let g = g * f.gradient_scale;
        *m = f.beta1.mul_add(*m, f.rest1 * g);
        *v = f.beta2.mul_add(*v, f.rest2 * g * g);
        let denominator = v.sqrt() / f.root + f.eps;
        *p = (-f.rate).mul_add(*m / denominator, *p * f.keep);
    }
}

#[cfg(test)]
mod tests {
    use super::{step as adamw, *};
    use crate::ops::testing::{assert_same_on_every_isa, random};

    #[test]
    fn three_steps_equal_the_f64_formula_on_every_isa() {
        for n in [1, 15, 17, 1000, CHUNK + 1] {
            let (p0, g) = (random(n, 1.0, 1), random(3 * n, 0.1, 2));
            let settings = Step {
                learning_rate: 1e-3,
                beta1: 0.9,
                beta2: 0.999,
                eps: 1e-8,
                weight_decay: 0.1,
                t: 1,
                gradient_scale: 0.5,
            };
            let got = assert_same_on_every_isa(|device| {
                let (mut p, mut moments) = (p0.clone(), vec![0.0; 2 * n]);
                for (t, g) in (1..).zip(g.chunks_exact(n)) {
                    let views = (ViewMut::new(&mut p, [n]), ViewMut::new(&mut moments, [2 * n]));
                    adamw(device, views.0, View::new(g, [n]), views.1, &Step { t, ..settings });
                }
                p
            });
            for i in 0..n {
                let (mut p, mut m, mut v) = (p0[i] as f64, 0.0, 0.0);
                for t in 1..=3 {
                    let g = g[(t - 1) * n + i] as f64 * 0.5;
                    (m, v) = (0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g);
                    let (mh, vh) = (m / (1.0 - 0.9f64.powi(t as i32)), v / (1.0 - 0.999f64.powi(t as i32)));
                    p = p - 1e-3 * 0.1 * p - 1e-3 * mh / (vh.sqrt() + 1e-8);
                }
                assert!((got[i] as f64 - p).abs() <= 3e-7 * (1.0 + p.abs()), "[{i}] {} {p}", got[i]);
            }
        }
    }
}
