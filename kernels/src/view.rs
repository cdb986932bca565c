//! Contiguous, row-major arrays in host or device memory, with the rank in the type: the shape is checked once, where the
//! view is made.

use std::ops::Range;

use bytemuck::Pod;

use crate::cuda::{Allocation, DeviceError, DevicePtr, PinnedBytes};
use crate::device::Device;

/// Owns memory of a device that lives as long as a session or a model: allocated once, never grown.
pub struct Buffer<T> {
    storage: Storage<T>,
    len: usize,
}

enum Storage<T> {
    Host(Vec<T>),
    Cuda(Allocation),
}

impl<T: Pod> Buffer<T> {
    /// `len` zeros.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, len: usize) -> Result<Self, DeviceError> {
        match device {
            Device::Cpu(_) => Ok(Buffer { storage: Storage::Host(vec![T::zeroed(); len]), len }),
            Device::Cuda(cuda) => Buffer::on(cuda.alloc(len * size_of::<T>())?, len),
        }
    }

    /// A copy of host memory.
    ///
    /// # Errors
    /// The device has no room.
    pub fn from_slice(device: &Device, values: &[T]) -> Result<Self, DeviceError> {
        match device {
            Device::Cpu(_) => Ok(Buffer { storage: Storage::Host(values.to_vec()), len: values.len() }),
            Device::Cuda(cuda) => {
                let mut allocation = cuda.alloc(size_of_val(values))?;
                allocation.write(0, bytemuck::cast_slice(values))?;
                Ok(Buffer { storage: Storage::Cuda(allocation), len: values.len() })
            }
        }
    }

    /// The same from a vector, which becomes the buffer where it can.
    ///
    /// # Errors
    /// The device has no room.
    pub fn from_vec(device: &Device, values: Vec<T>) -> Result<Self, DeviceError> {
        match device {
            Device::Cpu(_) => Ok(Buffer { len: values.len(), storage: Storage::Host(values) }),
            Device::Cuda(_) => Buffer::from_slice(device, &values),
        }
    }

    fn on(mut allocation: Allocation, len: usize) -> Result<Self, DeviceError> {
        allocation.fill_zero()?;
        Ok(Buffer { storage: Storage::Cuda(allocation), len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Panics when the memory is a GPU's.
    pub fn host(&self) -> &[T] {
        match &self.storage {
            Storage::Host(data) => data,
            Storage::Cuda(_) => panic!("device memory has no host side"),
        }
    }

    /// Panics when the memory is a GPU's.
    pub fn host_mut(&mut self) -> &mut [T] {
        match &mut self.storage {
            Storage::Host(data) => data,
            Storage::Cuda(_) => panic!("device memory has no host side"),
        }
    }

    /// Panics when the memory is the host's.
    pub fn ptr(&self) -> DevicePtr {
        match &self.storage {
            Storage::Host(_) => panic!("host memory has no device address"),
            Storage::Cuda(allocation) => allocation.ptr(),
        }
    }

    /// Copies `values` to element `at` and on. Waits for the device.
    pub fn write(&mut self, at: usize, values: &[T]) -> Result<(), DeviceError> {
        assert!(at + values.len() <= self.len);
        match &mut self.storage {
            Storage::Host(data) => data[at..at + values.len()].copy_from_slice(values),
            Storage::Cuda(allocation) => allocation.write(at * size_of::<T>(), bytemuck::cast_slice(values))?,
        }
        Ok(())
    }

    /// Copies the first `n_bytes` of page-locked memory to the start, behind the work that the stream has, without waiting.
    /// Panics when the memory is the host's.
    pub(crate) fn send(&mut self, from: &PinnedBytes, n_bytes: usize) {
        match &self.storage {
            Storage::Host(_) => panic!("host memory needs no copy"),
            Storage::Cuda(allocation) => allocation.cuda().copy_from_pinned(allocation, 0, from, 0..n_bytes),
        }
    }

    /// Copies elements `at..` into `values`. Waits for the device.
    pub fn read(&self, at: usize, values: &mut [T]) -> Result<(), DeviceError> {
        assert!(at + values.len() <= self.len);
        match &self.storage {
            Storage::Host(data) => values.copy_from_slice(&data[at..at + values.len()]),
            Storage::Cuda(allocation) => allocation.read(at * size_of::<T>(), bytemuck::cast_slice_mut(values))?,
        }
        Ok(())
    }

    /// The first elements, as an array of this shape.
    pub fn view<const R: usize>(&self, shape: [usize; R]) -> View<'_, T, R> {
        let len = shape.iter().product();
        match &self.storage {
            Storage::Host(data) => View::new(&data[..len], shape),
            Storage::Cuda(allocation) => {
                assert!(len <= self.len, "shape {shape:?} of {} elements", self.len);
                View { data: Data::Cuda(allocation.ptr()), shape }
            }
        }
    }

    /// The first elements, as a mutable array of this shape.
    pub fn view_mut<const R: usize>(&mut self, shape: [usize; R]) -> ViewMut<'_, T, R> {
        let len = shape.iter().product();
        match &mut self.storage {
            Storage::Host(data) => ViewMut::new(&mut data[..len], shape),
            Storage::Cuda(allocation) => {
                assert!(len <= self.len, "shape {shape:?} of {} elements", self.len);
                ViewMut { data: DataMut::Cuda(allocation.ptr()), shape }
            }
        }
    }

    /// Elements from `start` on, as an array of this shape.
    pub fn part<const R: usize>(&self, start: usize, shape: [usize; R]) -> View<'_, T, R> {
        let len: usize = shape.iter().product();
        assert!(start + len <= self.len, "shape {shape:?} from {start} of {} elements", self.len);
        match &self.storage {
            Storage::Host(data) => View::new(&data[start..start + len], shape),
            Storage::Cuda(allocation) => {
                View { data: Data::Cuda(allocation.ptr().offset(start * size_of::<T>())), shape }
            }
        }
    }

    /// The same, mutable.
    pub fn part_mut<const R: usize>(&mut self, start: usize, shape: [usize; R]) -> ViewMut<'_, T, R> {
        let len: usize = shape.iter().product();
        assert!(start + len <= self.len, "shape {shape:?} from {start} of {} elements", self.len);
        match &mut self.storage {
            Storage::Host(data) => ViewMut::new(&mut data[start..start + len], shape),
            Storage::Cuda(allocation) => {
                ViewMut { data: DataMut::Cuda(allocation.ptr().offset(start * size_of::<T>())), shape }
            }
        }
    }

    /// All elements.
    pub fn all(&self) -> View<'_, T, 1> {
        self.view([self.len])
    }
}

/// A read-only array of rank `R`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, T, const R: usize> {
    data: Data<'a, T>,
    shape: [usize; R],
}

#[derive(Clone, Copy, Debug)]
enum Data<'a, T> {
    Host(&'a [T]),
    /// The owner is borrowed for 'a all the same: [`Buffer::view`] is the only way here.
    Cuda(DevicePtr),
}

impl<'a, T, const R: usize> View<'a, T, R> {
    /// Host memory. Panics when the shape does not hold exactly the data.
    pub fn new(data: &'a [T], shape: [usize; R]) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "shape {shape:?}");
        View { data: Data::Host(data), shape }
    }

    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Panics when the memory is a GPU's.
    pub fn host(&self) -> &'a [T] {
        match self.data {
            Data::Host(data) => data,
            Data::Cuda(_) => panic!("a view of device memory has no host side"),
        }
    }

    /// Panics when the memory is the host's.
    pub fn ptr(&self) -> DevicePtr {
        match self.data {
            Data::Host(_) => panic!("a view of host memory has no device address"),
            Data::Cuda(ptr) => ptr,
        }
    }

    /// The same elements in another shape.
    pub fn reshape<const S: usize>(self, shape: [usize; S]) -> View<'a, T, S> {
        assert_eq!(self.len(), shape.iter().product::<usize>(), "shape {shape:?}");
        View { data: self.data, shape }
    }
}

/// A mutable array of rank `R`.
#[derive(Debug)]
pub struct ViewMut<'a, T, const R: usize> {
    data: DataMut<'a, T>,
    shape: [usize; R],
}

#[derive(Debug)]
enum DataMut<'a, T> {
    Host(&'a mut [T]),
    Cuda(DevicePtr),
}

impl<'a, T, const R: usize> ViewMut<'a, T, R> {
    /// Host memory. Panics when the shape does not hold exactly the data.
    pub fn new(data: &'a mut [T], shape: [usize; R]) -> Self {
        assert_eq!(data.len(), shape.iter().product::<usize>(), "shape {shape:?}");
        ViewMut { data: DataMut::Host(data), shape }
    }

    /// Device memory of at least this shape, which the caller keeps alive and to itself.
    pub(crate) fn of_device(ptr: DevicePtr, shape: [usize; R]) -> Self {
        ViewMut { data: DataMut::Cuda(ptr), shape }
    }

    pub fn shape(&self) -> [usize; R] {
        self.shape
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Panics when the memory is a GPU's.
    pub fn host(&self) -> &[T] {
        match &self.data {
            DataMut::Host(data) => data,
            DataMut::Cuda(_) => panic!("a view of device memory has no host side"),
        }
    }

    /// Panics when the memory is a GPU's.
    pub fn host_mut(&mut self) -> &mut [T] {
        match &mut self.data {
            DataMut::Host(data) => data,
            DataMut::Cuda(_) => panic!("a view of device memory has no host side"),
        }
    }

    /// Panics when the memory is the host's.
    pub fn ptr(&self) -> DevicePtr {
        match self.data {
            DataMut::Host(_) => panic!("a view of host memory has no device address"),
            DataMut::Cuda(ptr) => ptr,
        }
    }

    /// The same memory for a shorter time, so that one view can be passed to several calls.
    pub fn reborrow(&mut self) -> ViewMut<'_, T, R> {
        match &mut self.data {
            DataMut::Host(data) => ViewMut { data: DataMut::Host(data), shape: self.shape },
            DataMut::Cuda(ptr) => ViewMut { data: DataMut::Cuda(*ptr), shape: self.shape },
        }
    }

    /// The same memory, to be read for as long.
    pub fn into_view(self) -> View<'a, T, R> {
        match self.data {
            DataMut::Host(data) => View { data: Data::Host(data), shape: self.shape },
            DataMut::Cuda(ptr) => View { data: Data::Cuda(ptr), shape: self.shape },
        }
    }

    /// The same memory, to be read.
    pub fn as_view(&self) -> View<'_, T, R> {
        match &self.data {
            DataMut::Host(data) => View { data: Data::Host(data), shape: self.shape },
            DataMut::Cuda(ptr) => View { data: Data::Cuda(*ptr), shape: self.shape },
        }
    }

    /// The same elements in another shape.
    pub fn reshape<const S: usize>(self, shape: [usize; S]) -> ViewMut<'a, T, S> {
        assert_eq!(self.len(), shape.iter().product::<usize>(), "shape {shape:?}");
        ViewMut { data: self.data, shape }
    }
}

impl<'a, T> ViewMut<'a, T, 2> {
    /// Some of its rows.
    pub fn into_rows(self, rows: Range<usize>) -> ViewMut<'a, T, 2> {
        let [n_rows, n_cols] = self.shape;
        assert!(rows.start <= rows.end && rows.end <= n_rows, "rows {rows:?} of {n_rows}");
        let data = match self.data {
            DataMut::Host(data) => DataMut::Host(&mut data[rows.start * n_cols..rows.end * n_cols]),
            DataMut::Cuda(ptr) => DataMut::Cuda(ptr.offset(rows.start * n_cols * size_of::<T>())),
        };
        ViewMut { data, shape: [rows.len(), n_cols] }
    }
}

impl<'a, T> ViewMut<'a, T, 1> {
    /// The first `n` elements and the rest.
    pub fn split_at(self, n: usize) -> (ViewMut<'a, T, 1>, ViewMut<'a, T, 1>) {
        let [len] = self.shape;
        assert!(n <= len);
        let (first, rest) = match self.data {
            DataMut::Host(data) => {
                let (first, rest) = data.split_at_mut(n);
                (DataMut::Host(first), DataMut::Host(rest))
            }
            DataMut::Cuda(ptr) => (DataMut::Cuda(ptr), DataMut::Cuda(ptr.offset(n * size_of::<T>()))),
        };
        (ViewMut { data: first, shape: [n] }, ViewMut { data: rest, shape: [len - n] })
    }
}

impl<'a, T> View<'a, T, 2> {
    /// Rows `first..first + n`.
    pub fn rows(self, first: usize, n: usize) -> View<'a, T, 2> {
        let [rows, cols] = self.shape;
        assert!(first + n <= rows);
        let data = match self.data {
            Data::Host(data) => Data::Host(&data[first * cols..(first + n) * cols]),
            Data::Cuda(ptr) => Data::Cuda(ptr.offset(first * cols * size_of::<T>())),
        };
        View { data, shape: [n, cols] }
    }
}
