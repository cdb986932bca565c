//! Launch of dropout.cu.

use super::Rule;
use crate::cuda::{Cuda, DevicePtr};
use crate::ops::elements;

/// Over `n` elements; `out` may be `x`.
pub fn forward(cuda: &Cuda, out: DevicePtr, x: DevicePtr, n: usize, rule: Rule) {
    let Rule { key, threshold, factor } = rule;
    let args = [out.into(), x.into(), (n as u64).into(), key.0.into(), threshold.into(), factor.into()];
    cuda.launch("dropout_forward", elements::shape(cuda, n), &args);
}
