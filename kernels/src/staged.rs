//! Small arrays that the host writes anew for every step: tokens, positions, where sequences start. A GPU gets them by a copy
//! of the stream, from page-locked memory, and nobody waits for it.

use std::ops::Range;

use bytemuck::Pod;

use crate::cuda::{DeviceError, PinnedBytes};
use crate::device::Device;
use crate::view::{Buffer, View};

/// An array written by the host and read by a device.
pub struct Staged<T> {
    /// Where ops read: all `max_len` elements.
    buffer: Buffer<T>,
    /// Where a copy to a GPU starts from; none on the CPU.
    pinned: Option<PinnedBytes>,
}

impl<T: Pod> Staged<T> {
    /// Room for `max_len` elements, zeros.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, max_len: usize) -> Result<Self, DeviceError> {
        let pinned = match device {
            Device::Cpu(_) => None,
            Device::Cuda(cuda) => Some(cuda.alloc_pinned(max_len * size_of::<T>())?),
        };
        Ok(Staged { buffer: Buffer::new(device, max_len)?, pinned })
    }

    /// The first elements of the next step. The device must have finished the step before. A failure stays, as a launch's
    /// does.
    pub fn set(&mut self, values: &[T]) {
        assert!(values.len() <= self.buffer.len(), "{} elements of {}", values.len(), self.buffer.len());
        match &mut self.pinned {
            None => self.buffer.host_mut()[..values.len()].copy_from_slice(values),
            Some(_) if values.is_empty() => {}
            Some(pinned) => {
                let bytes: &[u8] = bytemuck::cast_slice(values);
                pinned.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
                self.buffer.send(pinned, bytes.len());
            }
        }
    }

    /// Elements there is room for.
    pub fn max_len(&self) -> usize {
        self.buffer.len()
    }

    /// The first elements, as an array of this shape.
    pub fn view<const R: usize>(&self, shape: [usize; R]) -> View<'_, T, R> {
        self.buffer.view(shape)
    }

    /// Some of the elements.
    pub fn part(&self, range: Range<usize>) -> View<'_, T, 1> {
        self.buffer.part(range.start, [range.len()])
    }
}
