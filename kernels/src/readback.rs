//! Results the host reads: logits, chosen tokens. On a GPU that shares the host's memory kernels write them where the host
//! reads them; on any other they are copied once.

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::Pod;

use crate::cuda::{Allocation, Cuda, DeviceError, DevicePtr, PinnedBytes};
use crate::device::Device;
use crate::view::ViewMut;

/// An array written by a device and read by the host.
pub struct Readback<T> {
    storage: Storage<T>,
    len: usize,
}

enum Storage<T> {
    Host(Vec<T>),
    Cuda { cuda: Cuda, host: PinnedBytes, device: Option<Allocation>, of: PhantomData<T> },
}

impl<T: Pod> Readback<T> {
    /// `len` elements, not yet written.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, len: usize) -> Result<Self, DeviceError> {
        let bytes = len * size_of::<T>();
        let storage = match device {
            Device::Cpu(_) => Storage::Host(vec![T::zeroed(); len]),
            Device::Cuda(cuda) => {
                let shared = cuda.info().is_integrated;
                let device = if shared { None } else { Some(cuda.alloc(bytes)?) };
                Storage::Cuda { cuda: cuda.clone(), host: cuda.alloc_pinned(bytes)?, device, of: PhantomData }
            }
        };
        Ok(Readback { storage, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where an op writes the first elements.
    pub fn view_mut<const R: usize>(&mut self, shape: [usize; R]) -> ViewMut<'_, T, R> {
        self.part_mut(0, shape)
    }

    /// Where an op writes elements from `start` on.
    pub fn part_mut<const R: usize>(&mut self, start: usize, shape: [usize; R]) -> ViewMut<'_, T, R> {
        let len: usize = shape.iter().product();
        assert!(start + len <= self.len, "shape {shape:?} from {start} of {} elements", self.len);
        match &mut self.storage {
            Storage::Host(data) => ViewMut::new(&mut data[start..start + len], shape),
            Storage::Cuda { host, device, .. } => {
                let first = device.as_ref().map_or(host.device_ptr(), |d| d.ptr());
                ViewMut::of_device(first.offset(start * size_of::<T>()), shape)
            }
        }
    }

    /// Waits for the device; then [`Readback::host`] holds the first `n` elements.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn fetch(&mut self, n: usize) -> Result<&mut [T], DeviceError> {
        self.fetch_part(0..n)
    }

    /// The same for elements `range` alone.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn fetch_part(&mut self, range: Range<usize>) -> Result<&mut [T], DeviceError> {
        self.start_fetch(range.clone());
        if let Storage::Cuda { cuda, .. } = &self.storage {
            cuda.synchronize()?;
        }
        Ok(&mut self.host_mut()[range])
    }

    /// Lets elements `range` be copied without waiting for it: once the device was waited for, [`Readback::host`] holds them.
    pub fn start_fetch(&mut self, range: Range<usize>) {
        assert!(range.end <= self.len);
        if let Storage::Cuda { cuda, host, device: Some(device), .. } = &mut self.storage {
            let size = size_of::<T>();
            cuda.copy_to_pinned(host, range.start * size, device, range.start * size..range.end * size);
        }
    }

    /// What was fetched last.
    pub fn host(&self) -> &[T] {
        match &self.storage {
            Storage::Host(data) => data,
            Storage::Cuda { host, .. } => &bytemuck::cast_slice(host.as_slice())[..self.len],
        }
    }

    /// The same, free to be changed.
    pub fn host_mut(&mut self) -> &mut [T] {
        let len = self.len;
        match &mut self.storage {
            Storage::Host(data) => data,
            Storage::Cuda { host, .. } => &mut bytemuck::cast_slice_mut(host.as_mut_slice())[..len],
        }
    }

    /// Where the device keeps it. Panics on the CPU.
    pub fn ptr(&self) -> DevicePtr {
        match &self.storage {
            Storage::Host(_) => panic!("host memory has no device address"),
            Storage::Cuda { host, device, .. } => device.as_ref().map_or(host.device_ptr(), |d| d.ptr()),
        }
    }
}
