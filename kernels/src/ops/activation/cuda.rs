//! Launches of activation.cu and backward.cu.

use crate::cuda::{Cuda, DevicePtr};
use crate::ops::elements;

use super::Activation;

/// `out = act(gate) * up` over `n` elements; `out` may be `gate`.
pub fn forward(cuda: &Cuda, activation: Activation, out: DevicePtr, gate: DevicePtr, up: DevicePtr, n: usize) {
    let args = [out.into(), gate.into(), up.into(), (n as u64).into(), activation.number().into()];
    cuda.launch("activation_gated", elements::shape(cuda, n), &args);
}

pub fn backward(cuda: &Cuda, activation: Activation, gate: DevicePtr, up: DevicePtr, dout: DevicePtr, n: usize) {
    let args = [gate.into(), up.into(), dout.into(), (n as u64).into(), activation.number().into()];
    cuda.launch("activation_backward", elements::shape(cuda, n), &args);
}
