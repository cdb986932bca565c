//! Whole arrays: copied, or set to zero.

use crate::device::Device;
use crate::ops::matmul::backward::cpu;
use crate::view::{View, ViewMut};

/// `out = x`, any shape.
pub fn copy<const R: usize>(device: &Device, mut out: ViewMut<'_, f32, R>, x: View<'_, f32, R>) {
    assert_eq!(out.shape(), x.shape());
    cpu(device);
    out.host_mut().copy_from_slice(x.host());
}

/// `out = 0`, any shape.
pub fn zero<const R: usize>(device: &Device, mut out: ViewMut<'_, f32, R>) {
    cpu(device);
    out.host_mut().fill(0.0);
}
