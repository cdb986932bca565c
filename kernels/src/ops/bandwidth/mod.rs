//! Pure reads of device memory: the roof under which every decode step stays.

use crate::cuda::{Cuda, DeviceError};

/// The best of several passes over `bytes` of device memory, in GB/s.
///
/// # Errors
/// The device has no room, or fails.
pub fn read_gb_per_s(_cuda: &Cuda, _bytes: usize) -> Result<f64, DeviceError> {
    unimplemented!()
}
