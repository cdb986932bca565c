//! The residual stream, f32 throughout (Gemma 3's exceeds the range of f16), and the sub-layer output that is yet to be
//! added to it: `x[t, i] += post(y)[t, i]`. The addition waits for the next norm, where a GPU does both in one kernel.

mod cuda;

use std::ops::Range;

use crate::cuda::DeviceError;
use crate::device::{Cpu, Device};
use crate::ops::kernel_module::{KernelModule, Role};
use crate::simd::per_isa;
use crate::view::{Buffer, View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("residual", Role::Training)];

/// Elements per task: 32 k values take about 5 microseconds.
const CHUNK: usize = 32 << 10;

/// The stream of a chunk of at most `rows` rows.
pub struct Residual {
    /// (rows, D). A GPU has two: while one block of a kernel writes the new stream, the others still read the old one.
    x: [Buffer<f32>; 2],
    /// Which of them holds the stream.
    current: usize,
    /// (rows, D): what the last sub-layer wrote.
    y: Buffer<f32>,
    /// True when `y` is not yet part of the stream.
    is_pending: bool,
    /// Rows of this pass.
    n_rows: usize,
    dim: usize,
}

impl Residual {
    /// # Errors: the device has no room.
    pub fn new(device: &Device, rows: usize, dim: usize) -> Result<Residual, DeviceError> {
        let second = match device {
            Device::Cpu(_) => 0,
            Device::Cuda(_) => rows * dim,
        };
        let x = [Buffer::new(device, rows * dim)?, Buffer::new(device, second)?];
        Ok(Residual { x, current: 0, y: Buffer::new(device, rows * dim)?, is_pending: false, n_rows: 0, dim })
    }

    /// Elements [`Residual::new`] allocates, for the memory plan.
    pub fn n_elements(is_gpu: bool, rows: usize, dim: usize) -> usize {
        rows * dim * if is_gpu { 3 } else { 2 }
    }

    /// Where the embedding writes `n_rows` rows: nothing is pending afterwards. Always the same memory, so that a recorded
    /// pass finds it again.
    pub fn start(&mut self, n_rows: usize) -> ViewMut<'_, f32, 2> {
        (self.current, self.is_pending, self.n_rows) = (0, false, n_rows);
        self.x[0].view_mut([n_rows, self.dim])
    }

    /// Where a sub-layer writes its output, which is pending afterwards.
    pub fn output(&mut self, n_rows: usize) -> ViewMut<'_, f32, 2> {
        self.is_pending = true;
        self.y.view_mut([n_rows, self.dim])
    }

    /// The stream without what is pending, (n_rows, D).
    pub fn stream(&self, n_rows: usize) -> View<'_, f32, 2> {
        self.x[self.current].view([n_rows, self.dim])
    }

    /// (n_rows, D); `None` when nothing is pending.
    pub(crate) fn pending(&self, n_rows: usize) -> Option<View<'_, f32, 2>> {
        self.is_pending.then(|| self.y.view([n_rows, self.dim]))
    }

    /// The stream and the pending output, both to be changed.
    pub(crate) fn both_mut(&mut self, n_rows: usize) -> (ViewMut<'_, f32, 2>, Option<ViewMut<'_, f32, 2>>) {
        let shape = [n_rows, self.dim];
        (self.x[self.current].view_mut(shape), self.is_pending.then(|| self.y.view_mut(shape)))
    }

    /// The memory for the new stream of a kernel that reads the old one; [`Residual::advance`] makes it the stream. A GPU's
    /// alone.
    pub(crate) fn next_mut(&mut self, n_rows: usize) -> ViewMut<'_, f32, 2> {
        self.x[1 - self.current].view_mut([n_rows, self.dim])
    }

    /// The pending output of `rows` has been added, into the other memory. For part of the rows nothing changes: that is
    /// the end of a pass, and the others may be asked for next.
    pub(crate) fn advance(&mut self, rows: &Range<usize>) {
        if self.is_whole(rows) {
            (self.current, self.is_pending) = (1 - self.current, false);
        }
    }

    /// The same when it was added in place.
    pub(crate) fn settled(&mut self, rows: &Range<usize>) {
        if self.is_whole(rows) {
            self.is_pending = false;
        }
    }

    /// True for all rows of this pass.
    pub(crate) fn is_whole(&self, rows: &Range<usize>) -> bool {
        *rows == (0..self.n_rows)
    }

    pub fn dim(&self) -> usize {
        self.dim
    }
}

/// `x += y`, any shape: the residual connection of a trainer, forward and backward.
pub fn add_to<const R: usize>(device: &Device, mut x: ViewMut<'_, f32, R>, y: View<'_, f32, R>) {
    assert_eq!(x.shape(), y.shape());
    match device {
        Device::Cpu(cpu) => add(cpu, x.host_mut(), y.host()),
        Device::Cuda(cuda) => cuda::sum(cuda, x.ptr(), x.ptr(), y.ptr(), y.len()),
    }
}

/// `out = x + y`, any shape.
pub fn sum<const R: usize>(device: &Device, mut out: ViewMut<'_, f32, R>, x: View<'_, f32, R>, y: View<'_, f32, R>) {
    assert!(out.shape() == x.shape() && x.shape() == y.shape());
    match device {
        Device::Cpu(cpu) => {
            let (x, y) = (x.host(), y.host());
            cpu.pool.for_chunks(out.host_mut(), CHUNK, &|i, out| {
                let part = i * CHUNK..i * CHUNK + out.len();
                out.copy_from_slice(&x[part.clone()]);
                add_chunk(cpu.isa, out, &y[part]);
            });
        }
        Device::Cuda(cuda) => cuda::sum(cuda, out.ptr(), x.ptr(), y.ptr(), y.len()),
    }
}

/// Adds `y` to `x`, any shape, on the CPU.
pub(crate) fn add(cpu: &Cpu, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    cpu.pool.for_chunks(x, CHUNK, &|i, x| {
        let start = i * CHUNK;
        add_chunk(cpu.isa, x, &y[start..start + x.len()]);
    });
}

per_isa! {
    fn add_chunk(x: &mut [f32], y: &[f32]) = add_body;
}

#[inline(always)]
fn add_body(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
