//! Backward of a gated activation. Forward: `out[i] = act(gate[i]) * up[i]`, so `dup = dout * act(gate)` and
//! `dgate = dout * up * act'(gate)`.

use super::{cuda, Activation, CHUNK};
use crate::device::Device;
use crate::math;
use crate::simd::per_isa;
use crate::view::{View, ViewMut};

/// Replaces `gate` by its gradient and `up` by its own; any shape.
pub fn in_place<const R: usize>(
    device: &Device,
    activation: Activation,
    mut gate: ViewMut<'_, f32, R>,
    mut up: ViewMut<'_, f32, R>,
    dout: View<'_, f32, R>,
) {
    assert!(gate.shape() == up.shape() && up.shape() == dout.shape());
    match device {
        Device::Cpu(cpu) => {
            let dout = dout.host();
            cpu.pool.for_chunk_pairs(true, (gate.host_mut(), CHUNK), (up.host_mut(), CHUNK), &|i, gate, up| {
                let start = i * CHUNK;
                gated(cpu.isa, activation, gate, up, &dout[start..start + gate.len()]);
            });
        }
        Device::Cuda(cuda) => cuda::backward(cuda, activation, gate.ptr(), up.ptr(), dout.ptr(), dout.len()),
    }
}

per_isa! {
    fn gated(activation: Activation, gate: &mut [f32], up: &mut [f32], dout: &[f32]) = gated_body;
}

#[inline(always)]
fn gated_body(activation: Activation, gate: &mut [f32], up: &mut [f32], dout: &[f32]) {
    match activation {
        Activation::GeluTanh => with(gate, up, dout, math::gelu_tanh_and_slope),
        Activation::Silu => with(gate, up, dout, math::silu_and_slope),
    }
}

#[inline(always)]
fn with(gate: &mut [f32], up: &mut [f32], dout: &[f32], act: impl Fn(f32) -> (f32, f32)) {
    for ((g, u), d) in gate.iter_mut().zip(up).zip(dout) {
        let (value, slope) = act(*g);
        (*g, *u) = (d * *u * slope, d * value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    #[test]
    fn equals_the_f64_derivative_on_every_isa() {
        for n in [1, 15, 17, 1000, CHUNK + 1] {
            let (gate, up, dout) = (random(n, 6.0, 1), random(n, 1.0, 2), random(n, 1.0, 3));
            for activation in [Activation::GeluTanh, Activation::Silu] {
                let got = assert_same_on_every_isa(|device| {
                    let (mut g, mut u) = (gate.clone(), up.clone());
                    let views = (ViewMut::new(&mut g, [n]), ViewMut::new(&mut u, [n]));
                    in_place(device, activation, views.0, views.1, View::new(&dout, [n]));
                    [g, u].concat()
                });
                for i in 0..n {
                    let (value, slope) = oracle(activation, gate[i] as f64);
                    let d = dout[i] as f64;
                    // Slopes are sums of terms up to 1.2, so an error is measured against that.
                    for (got, want) in [(got[i], d * up[i] as f64 * slope), (got[n + i], d * value)] {
                        assert!(
                            (got as f64 - want).abs() <= 2e-6 * d.abs(),
                            "{activation:?}({}): {got} {want}",
                            gate[i]
                        );
                    }
                }
            }
        }
    }

    /// Value and slope, the slope by the product rule on the textbook formula.
    fn oracle(activation: Activation, x: f64) -> (f64, f64) {
        match activation {
            Activation::Silu => {
                let s = 1.0 / (1.0 + (-x).exp());
                (x * s, s + x * s * (1.0 - s))
            }
            Activation::GeluTanh => {
                let c = (2.0 / std::f64::consts::PI).sqrt();
                let tanh = (c * (x + 0.044715 * x * x * x)).tanh();
                let inner = c * (1.0 + 3.0 * 0.044715 * x * x);
                (0.5 * x * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * x * (1.0 - tanh * tanh) * inner)
            }
        }
    }
}
