//! Device memory, and host memory that the device can see.

use std::ops::Range;

use super::{DeviceError, DevicePtr};

/// Device memory, aligned to 256 bytes, freed after the stream's work.
pub struct Allocation(());

impl Allocation {
    pub fn ptr(&self) -> DevicePtr {
        unimplemented!()
    }
    pub fn len_bytes(&self) -> usize {
        unimplemented!()
    }
    pub fn write(&mut self, _at: usize, _bytes: &[u8]) -> Result<(), DeviceError> {
        unimplemented!()
    }
    pub fn read(&self, _at: usize, _out: &mut [u8]) -> Result<(), DeviceError> {
        unimplemented!()
    }
    pub fn fill_zero(&mut self) -> Result<(), DeviceError> {
        unimplemented!()
    }
    pub fn write_async(&mut self, _at: usize, _from: &PinnedBytes, _range: Range<usize>) -> Result<(), DeviceError> {
        unimplemented!()
    }
}

/// One piece of device memory that hands out parts of itself.
pub struct Arena(());

impl Arena {
    /// The next part; [`DeviceError::OutOfMemory`] when the arena is used up.
    pub fn alloc(&mut self, _bytes: usize) -> Result<Allocation, DeviceError> {
        unimplemented!()
    }
    /// Bytes that [`alloc`](Arena::alloc) takes from the arena.
    pub fn padded(bytes: usize) -> usize {
        bytes.next_multiple_of(256)
    }
}

/// Page-locked host memory that the device sees too.
pub struct PinnedBytes(());

impl PinnedBytes {
    pub fn as_slice(&self) -> &[u8] {
        unimplemented!()
    }
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        unimplemented!()
    }
    pub fn device_ptr(&self) -> DevicePtr {
        unimplemented!()
    }
}
