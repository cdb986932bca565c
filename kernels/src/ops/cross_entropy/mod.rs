//! Softmax cross-entropy with its gradient in place: `loss[c] = ln(sum of exp(z[c])) - z[c, target]`, and
//! `dz = (softmax(z) - onehot(target)) * scale`. A chunk of rows at a time: the logits of a whole sequence over 262,144
//! entries never exist together.
//!
//! On a GPU exponentials are good to 2^-22 instead of 2^-23; both sum them so that no size of vocabulary adds to that.

mod cuda;

use crate::device::Device;
use crate::math;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::pool::WORTH_SHARING;
use crate::simd::{fold_lanes, per_isa, LANES};
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("cross_entropy", Role::Training)];

/// Exponentials summed in f32 before they meet an f64: a sum over the whole vocabulary in f32 loses a hundred thousandth.
const CHUNK: usize = 4096;

/// Shapes: `logits` (C, V), replaced by their gradient when `scale` is given; `targets` and `losses` (C). Panics on a target
/// outside the vocabulary where the host sees it: callers check what people give them.
pub fn forward_backward(
    device: &Device,
    mut logits: ViewMut<'_, f32, 2>,
    targets: View<'_, u32, 1>,
    scale: Option<f32>,
    mut losses: ViewMut<'_, f64, 1>,
) {
    let [rows, vocab] = logits.shape();
    assert!(targets.len() == rows && losses.len() == rows);
    match device {
        Device::Cpu(cpu) => {
            let targets = targets.host();
            assert!(targets.iter().all(|t| (*t as usize) < vocab));
            let (worth_it, losses) = (rows * vocab >= WORTH_SHARING / 8, losses.host_mut());
            cpu.pool.for_chunk_pairs(worth_it, (logits.host_mut(), vocab), (losses, 1), &|c, logits, loss| {
                loss[0] = row(cpu.isa, logits, targets[c] as usize, scale);
            });
        }
        Device::Cuda(cuda) => cuda::forward_backward(cuda, logits, targets, scale, losses),
    }
}

per_isa! {
    fn row(z: &mut [f32], target: usize, scale: Option<f32>) -> f64 = row_body;
}

#[inline(always)]
fn row_body(z: &mut [f32], target: usize, scale: Option<f32>) -> f64 {
    let max = largest(z);
    let at_target = z[target] - max;
    let mut sum = 0.0f64;
    for chunk in z.chunks_mut(CHUNK) {
        let mut acc = [0.0f32; LANES];
        let mut lanes = chunk.chunks_exact_mut(LANES);
        for v in &mut lanes {
            for i in 0..LANES {
                v[i] = math::exp(v[i] - max);
                acc[i] += v[i];
            }
        }
        for (v, a) in lanes.into_remainder().iter_mut().zip(&mut acc) {
            *v = math::exp(*v - max);
            *a += *v;
        }
        sum += f64::from(fold_lanes(acc));
    }
    if let Some(scale) = scale {
        let factor = (f64::from(scale) / sum) as f32;
        z.iter_mut().for_each(|v| *v *= factor);
        z[target] -= scale;
    }
    sum.ln() - f64::from(at_target)
}

/// NaN when there is one: it must reach the loss.
#[inline(always)]
fn largest(z: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut poison = [0.0f32; LANES];
    for chunk in z.chunks(LANES) {
        for ((lane, poison), v) in lanes.iter_mut().zip(&mut poison).zip(chunk) {
            *lane = if *v > *lane { *v } else { *lane };
            // Zero for every number but NaN and the infinities.
            *poison += *v * 0.0;
        }
    }
    let max = lanes.into_iter().fold(f32::NEG_INFINITY, |m, v| if v > m { v } else { m });
    max + poison.into_iter().sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    #[test]
    fn loss_and_gradient_equal_f64_at_awkward_sizes_on_every_isa() {
        for (rows, vocab, size) in
            [(1, 1, 3.0), (3, 15, 1.0), (2, 17, 30.0), (5, 320, 5.0), (2, 4097, 10.0), (1, 262_144, 8.0)]
        {
            let z = random(rows * vocab, size, 5);
            let targets: Vec<u32> = (0..rows).map(|c| ((c * 7919) % vocab) as u32).collect();
            let scale = 1.0 / (rows + 3) as f32;
            let mut losses = vec![0.0; rows];
            let got = assert_same_on_every_isa(|device| {
                let mut dz = z.clone();
                let mut losses = vec![0.0; rows];
                let view = ViewMut::new(&mut dz, [rows, vocab]);
                let (targets, out) = (View::new(&targets, [rows]), ViewMut::new(&mut losses, [rows]));
                forward_backward(device, view, targets, Some(scale), out);
                dz.extend(losses.iter().map(|l| *l as f32));
                dz
            });
            let device = Device::cpu(2).unwrap();
            let (view, out) = (View::new(&targets, [rows]), ViewMut::new(&mut losses, [rows]));
            forward_backward(&device, ViewMut::new(&mut z.clone(), [rows, vocab]), view, None, out);
            for c in 0..rows {
                let z: Vec<f64> = z[c * vocab..][..vocab].iter().map(|v| *v as f64).collect();
                let sum: f64 = z.iter().map(|v| v.exp()).sum();
                let loss = sum.ln() - z[targets[c] as usize];
                // Exponents of up to 2 * size are off by a rounding of that size.
                let bound = 1e-7 * (2.0 + 2.0 * size as f64);
                assert!(
                    (losses[c] - loss).abs() <= bound * (1.0 + loss.abs()),
                    "({rows} {vocab}): {} {loss}",
                    losses[c]
                );
                assert_eq!(got[rows * vocab + c], losses[c] as f32);
                let mut total = 0.0;
                for i in 0..vocab {
                    let p = z[i].exp() / sum;
                    let want = (p - f64::from(i == targets[c] as usize)) * scale as f64;
                    let found = got[c * vocab + i] as f64;
                    let rounding = 1e-7 * f64::from(i == targets[c] as usize);
                    let limit = (10.0 * bound * (p + 1e-3) + rounding) * scale as f64;
                    assert!((found - want).abs() <= limit, "[{c} {i}]: {found} {want}");
                    total += found;
                }
                assert!(total.abs() <= 1e-5, "a softmax sums to one: {total}");
            }
        }
    }

    #[test]
    fn what_is_not_a_number_reaches_the_loss() {
        let device = Device::cpu(1).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let (mut z, mut losses) = ([0.0, bad, 1.0], [0.0]);
            forward_backward(
                &device,
                ViewMut::new(&mut z, [1, 3]),
                View::new(&[0], [1]),
                None,
                ViewMut::new(&mut losses, [1]),
            );
            assert!(!losses[0].is_finite(), "{bad}: {}", losses[0]);
        }
    }
}
