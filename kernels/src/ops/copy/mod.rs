//! Whole arrays: copied, or set to zero. On a GPU the driver does both, in the order of the launches.

use crate::device::Device;
use crate::view::{View, ViewMut};

/// `out = x`, any shape.
pub fn copy<const R: usize>(device: &Device, mut out: ViewMut<'_, f32, R>, x: View<'_, f32, R>) {
    assert_eq!(out.shape(), x.shape());
    match device {
        Device::Cpu(_) => out.host_mut().copy_from_slice(x.host()),
        Device::Cuda(cuda) => cuda.copy_on_device(out.ptr(), x.ptr(), x.len() * size_of::<f32>()),
    }
}

/// `out = 0`, any shape.
pub fn zero<const R: usize>(device: &Device, mut out: ViewMut<'_, f32, R>) {
    match device {
        Device::Cpu(_) => out.host_mut().fill(0.0),
        Device::Cuda(cuda) => cuda.zero_on_device(out.ptr(), out.len() * size_of::<f32>()),
    }
}
