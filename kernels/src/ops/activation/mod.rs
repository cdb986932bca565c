//! Gated feed-forward activations: `out[i] = act(gate[i]) * up[i]`, act = GELU (tanh) for Gemma, SiLU for Qwen.
//! Shazeer 2020, arXiv 2002.05202.

pub mod backward;
mod cuda;

use crate::device::Device;
use crate::math;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::simd::per_isa;
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] =
    &[KernelModule::one("activation", Role::Every), KernelModule::one("backward", Role::Training)];

/// The gate's function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    GeluTanh,
    Silu,
}

impl Activation {
    /// As the kernels of a GPU tell them apart.
    pub(crate) fn number(self) -> u32 {
        match self {
            Activation::GeluTanh => 0,
            Activation::Silu => 1,
        }
    }
}

/// Elements per task: 16 k values take about 10 microseconds.
const CHUNK: usize = 16_384;

/// `gate[i] = act(gate[i]) * up[i]`, any shape.
pub fn forward<const R: usize>(
    device: &Device,
    activation: Activation,
    mut gate: ViewMut<'_, f32, R>,
    up: View<'_, f32, R>,
) {
    assert_eq!(gate.shape(), up.shape());
    match device {
        Device::Cpu(cpu) => {
            let up = up.host();
            cpu.pool.for_chunks(gate.host_mut(), CHUNK, &|i, gate| {
                let start = i * CHUNK;
                gated(cpu.isa, activation, gate, &up[start..start + gate.len()]);
            });
        }
        Device::Cuda(cuda) => cuda::forward(cuda, activation, gate.ptr(), gate.ptr(), up.ptr(), up.len()),
    }
}

/// The same into `out`, so that a trainer keeps `gate`.
pub fn forward_to<const R: usize>(
    device: &Device,
    activation: Activation,
    mut out: ViewMut<'_, f32, R>,
    gate: View<'_, f32, R>,
    up: View<'_, f32, R>,
) {
    assert!(out.shape() == gate.shape() && gate.shape() == up.shape());
    match device {
        Device::Cpu(cpu) => {
            let (gate, up) = (gate.host(), up.host());
            cpu.pool.for_chunks(out.host_mut(), CHUNK, &|i, out| {
                let part = i * CHUNK..i * CHUNK + out.len();
                out.copy_from_slice(&gate[part.clone()]);
                gated(cpu.isa, activation, out, &up[part]);
            });
        }
        Device::Cuda(cuda) => cuda::forward(cuda, activation, out.ptr(), gate.ptr(), up.ptr(), up.len()),
    }
}

per_isa! {
    fn gated(activation: Activation, gate: &mut [f32], up: &[f32]) = gated_body;
}

#[inline(always)]
fn gated_body(activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::GeluTanh => gate.iter_mut().zip(up).for_each(|(g, u)| *g = math::gelu_tanh(*g) * u),
        Activation::Silu => gate.iter_mut().zip(up).for_each(|(g, u)| *g = math::silu(*g) * u),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_on_every_isa, random};

    #[test]
    fn equals_the_f64_formula_on_every_isa_and_keeps_nan() {
        for n in [1, 15, 16, 17, 1000, CHUNK + 1] {
            let (gate, up) = (random(n, 6.0, 4), random(n, 1.0, 5));
            for activation in [Activation::GeluTanh, Activation::Silu] {
                let got = assert_same_on_every_isa(|device| {
                    let (mut y, mut out) = (gate.clone(), vec![f32::NAN; n]);
                    forward(device, activation, ViewMut::new(&mut y, [n]), View::new(&up, [n]));
                    let views = (ViewMut::new(&mut out, [n]), View::new(&gate, [n]), View::new(&up, [n]));
                    forward_to(device, activation, views.0, views.1, views.2);
                    assert_eq!(y, out);
                    y
                });
                for i in 0..n {
                    let x = gate[i] as f64;
                    let act = match activation {
                        Activation::Silu => x / (1.0 + (-x).exp()),
                        Activation::GeluTanh => {
                            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
                        }
                    };
                    let want = act * up[i] as f64;
                    assert!((got[i] as f64 - want).abs() <= 1e-6 * want.abs() + 1e-9, "{activation:?}({x})");
                }
            }
        }
        let device = Device::cpu(1).unwrap();
        let mut gate = [f32::NAN];
        forward(&device, Activation::Silu, ViewMut::new(&mut gate, [1]), View::new(&[1.0], [1]));
        assert!(gate[0].is_nan());
    }
}
