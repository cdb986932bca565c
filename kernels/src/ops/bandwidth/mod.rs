//! How fast a device reads its memory: the roofline of decoding, which reads every weight once for each token.

mod cuda;

use crate::cuda::{Cuda, DeviceError};
use crate::ops::kernel_module::{KernelModule, Role};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("bandwidth", Role::Bench)];

/// What one pass over a buffer found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    pub ms: f32,
    /// Of the buffer's 32-bit words, wrapping: every byte was read.
    pub sum: u32,
}

/// The best of several passes over `bytes` bytes, in 10^9 bytes a second. Take far more than the device's caches hold:
/// 256 MiB and more.
pub fn read_gb_per_s(cuda: &Cuda, bytes: usize) -> Result<f64, DeviceError> {
    const WARM_UP: usize = 2;
    const PASSES: usize = 8;
    let bytes = bytes.next_multiple_of(16);
    let mut data = cuda.alloc(bytes)?;
    data.fill_zero()?;
    let passes = cuda::read(cuda, &data, WARM_UP + PASSES)?;
    let best_ms = passes[WARM_UP..].iter().map(|p| p.ms).fold(f32::INFINITY, f32::min);
    // A clock that did not move is no measurement.
    let best_ms = f64::from(best_ms).max(1e-6);
    Ok(bytes as f64 / (best_ms * 1e6))
}

/// One pass over these bytes, a multiple of 16.
pub fn read_pass(cuda: &Cuda, bytes: &[u8]) -> Result<Pass, DeviceError> {
    let mut data = cuda.alloc(bytes.len())?;
    data.write(0, bytes)?;
    Ok(cuda::read(cuda, &data, 1)?[0])
}
