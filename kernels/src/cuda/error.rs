//! What can go wrong with a device, each as one sentence.

use std::fmt;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceError {
    OutOfMemory {
        needed: usize,
        free: usize,
    },
    NoDriver,
    NoDevice(String),
    OldDriver(String),
    /// The device's context is gone, and with it everything on the device.
    Lost(String),
    Other(String),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for DeviceError {}
