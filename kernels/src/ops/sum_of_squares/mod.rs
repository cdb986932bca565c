//! The sum of squares of a long vector, for the global norm of a gradient: sixteen lanes in f32 over chunks of 4,096, the
//! chunks in f64 and in order, so that it does not depend on the number of threads. NaN and infinity reach the result.

mod cuda;

use crate::cuda::DeviceError;
use crate::device::Device;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::readback::Readback;
use crate::simd::{dot, per_isa};
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("sum_of_squares", Role::Training)];

/// Elements of one partial sum.
const CHUNK: usize = 4096;
/// 128 k elements take about 10 microseconds.
const PARTIALS_PER_TASK: usize = 32;

/// Partial sums needed for `n` elements.
pub fn n_partials(n: usize) -> usize {
    n.div_ceil(CHUNK)
}

/// The sum of squares of `x`, which the host waits for; `partials` holds at least [`n_partials`] numbers.
///
/// # Errors
/// What went wrong on the device.
pub fn forward(device: &Device, x: View<'_, f32, 1>, partials: &mut Readback<f64>) -> Result<f64, DeviceError> {
    let n = n_partials(x.len());
    compute(device, x, partials.view_mut([n]));
    Ok(partials.fetch(n)?.iter().sum())
}

fn compute(device: &Device, x: View<'_, f32, 1>, mut partials: ViewMut<'_, f64, 1>) {
    match device {
        Device::Cpu(cpu) => {
            let x = x.host();
            cpu.pool.for_chunks(partials.host_mut(), PARTIALS_PER_TASK, &|task, partials| {
                for (i, partial) in (task * PARTIALS_PER_TASK..).zip(partials) {
                    *partial = f64::from(square(cpu.isa, &x[i * CHUNK..((i + 1) * CHUNK).min(x.len())]));
                }
            });
        }
        Device::Cuda(cuda) => cuda::compute(cuda, x, partials),
    }
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
            let sum = |device: &Device, x: &[f32]| {
                let mut partials = Readback::new(device, n_partials(n)).unwrap();
                forward(device, View::new(x, [x.len()]), &mut partials).unwrap()
            };
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
