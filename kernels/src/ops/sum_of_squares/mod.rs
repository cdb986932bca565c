//! The sum of squares of a long vector, for the global norm of a gradient: sixteen lanes in f32 over chunks of 4,096, the
//! chunks in f64 and in order, so that it does not depend on the number of threads. NaN and infinity reach the result.

use crate::device::Device;
use crate::ops::matmul::backward::cpu;
use crate::simd::{dot, per_isa};
use crate::view::View;

/// Elements of one partial sum.
const CHUNK: usize = 4096;
/// 128 k elements take about 10 microseconds.
const PARTIALS_PER_TASK: usize = 32;

/// Partial sums needed for `n` elements.
pub fn n_partials(n: usize) -> usize {
    n.div_ceil(CHUNK)
}

/// The sum of squares of `x`; `partials` holds at least [`n_partials`] numbers.
pub fn forward(device: &Device, x: View<'_, f32, 1>, partials: &mut [f64]) -> f64 {
    let (cpu, x) = (cpu(device), x.host());
    let partials = &mut partials[..n_partials(x.len())];
    cpu.pool.for_chunks(partials, PARTIALS_PER_TASK, &|task, partials| {
        for (i, partial) in (task * PARTIALS_PER_TASK..).zip(partials) {
            *partial = f64::from(square(cpu.isa, &x[i * CHUNK..((i + 1) * CHUNK).min(x.len())]));
        }
    });
    partials.iter().sum()
}

per_isa! {
    fn square(x: &[f32]) -> f32 = square_body;
}

#[inline(always)]
fn square_body(x: &[f32]) -> f32 {
    dot(x, x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    #[test]
    fn equals_the_f64_sum_and_keeps_what_is_not_finite() {
        for n in [0, 1, 15, 4095, 4096, 4097, 300_000] {
            let x = random(n, 2.0, 9);
            let sum =
                |device: &Device, x: &[f32]| forward(device, View::new(x, [x.len()]), &mut vec![0.0; n_partials(n)]);
            let got = assert_same_on_every_isa(|device| vec![sum(device, &x) as f32])[0];
            let want: f64 = x.iter().map(|v| f64::from(*v).powi(2)).sum();
            assert!((f64::from(got) - want).abs() <= 1e-6 * want, "{n}: {got} {want}");
            if n > 0 {
                let device = Device::cpu(2).unwrap();
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut x = x.clone();
                    x[n - 1] = bad;
                    assert!(!sum(&device, &x).is_finite(), "{n} {bad}");
                }
            }
        }
    }
}
