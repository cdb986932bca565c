//! Launch of residual.cu.

use crate::cuda::{Cuda, DevicePtr};
use crate::ops::elements;

/// `out = x + y` over `n` elements; `out` may be `x`.
pub fn sum(cuda: &Cuda, out: DevicePtr, x: DevicePtr, y: DevicePtr, n: usize) {
    let args = [out.into(), x.into(), y.into(), (n as u64).into()];
    cuda.launch("residual_sum", elements::shape(cuda, n), &args);
}
