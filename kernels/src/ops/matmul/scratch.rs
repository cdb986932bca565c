//! The memory that products work in.

use super::backward::cuda::{self as backward, Extent};
use super::prefill::cuda::workspace_bytes;
use super::quantize::QuantizedRows;
use crate::cuda::{Cuda, DeviceError};
use crate::device::Device;
use crate::formats::Format;
use crate::view::Buffer;

/// Memory beside inputs and outputs, allocated once for the largest (T, K): on the CPU the quantised form of `x`, on a GPU
/// the workspace of the prefill and of training.
pub struct Scratch {
    pub(super) rows: QuantizedRows,
    pub(super) workspace: Option<Buffer<u8>>,
    /// What the transpose of a slab of a matrix may take of it; 0 without training.
    slab_bytes: usize,
}

impl Scratch {
    /// Room for `max_rows` rows of at most `max_cols` inputs and `max_outputs` outputs.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, max_rows: usize, max_cols: usize, max_outputs: usize) -> Result<Self, DeviceError> {
        match device {
            Device::Cpu(_) => {
                let rows = QuantizedRows::new(max_rows, max_cols);
                Ok(Scratch { rows, workspace: None, slab_bytes: 0 })
            }
            Device::Cuda(_) => Scratch::on_device(device, workspace_bytes(max_rows, max_cols, max_outputs), 0),
        }
    }

    /// Room for training: [`super::forward_training`] and `backward` of every product in `extents`. `trained` is the format
    /// of all weights where gradients of weights are among them.
    ///
    /// # Errors
    /// The device has no room.
    pub fn for_training(device: &Device, extents: &[Extent], trained: Option<Format>) -> Result<Self, DeviceError> {
        match device {
            Device::Cpu(_) => {
                let largest = |of: fn(&Extent) -> usize| extents.iter().map(of).max().unwrap_or(0);
                Scratch::new(device, largest(|e| e.rows), largest(|e| e.inputs), 0)
            }
            Device::Cuda(cuda) => {
                let slab_bytes = backward::slab_bytes(cuda.info().total_bytes);
                Scratch::with_slabs(cuda, extents, trained, slab_bytes)
            }
        }
    }

    /// The same on a GPU, with another limit for the transpose of a part of a matrix.
    ///
    /// # Errors
    /// The device has no room.
    pub fn with_slabs(
        cuda: &Cuda,
        extents: &[Extent],
        trained: Option<Format>,
        slab_bytes: usize,
    ) -> Result<Self, DeviceError> {
        let has_bf16 = backward::gradients_are_bf16(cuda);
        let bytes = backward::workspace_bytes(extents, trained, has_bf16, slab_bytes);
        Scratch::on_device(&Device::Cuda(cuda.clone()), with_counter(bytes), slab_bytes)
    }

    fn on_device(device: &Device, bytes: usize, slab_bytes: usize) -> Result<Self, DeviceError> {
        let workspace = Some(Buffer::new(device, bytes)?);
        Ok(Scratch { rows: QuantizedRows::new(0, 0), workspace, slab_bytes })
    }

    /// Bytes [`Scratch::new`] takes on the CPU.
    pub fn size_bytes(max_rows: usize, max_cols: usize) -> usize {
        QuantizedRows::size_bytes(max_rows, max_cols)
    }

    /// Bytes [`Scratch::new`] takes on a GPU.
    pub fn device_bytes(max_rows: usize, max_cols: usize, max_outputs: usize) -> usize {
        workspace_bytes(max_rows, max_cols, max_outputs)
    }

    /// Bytes [`Scratch::for_training`] takes on a GPU with `total_bytes` of memory, whose gradients of weights are products of
    /// bf16 or not.
    pub fn training_device_bytes(
        total_bytes: usize,
        has_bf16: bool,
        extents: &[Extent],
        trained: Option<Format>,
    ) -> usize {
        let slab_bytes = backward::slab_bytes(total_bytes);
        with_counter(backward::workspace_bytes(extents, trained, has_bf16, slab_bytes))
    }

    /// True for a GPU whose gradients of weights are products of bf16, where the weights are not F32.
    pub fn gradients_are_bf16(cuda: &Cuda) -> bool {
        backward::gradients_are_bf16(cuda)
    }

    /// Of a scratch for training on a GPU: how often since it was made a number was infinite or NaN where a product takes
    /// f16. A row of activations with one counts once: of finite rows any fits, since each is multiplied by a power of two of
    /// its own. Weights in bf16 that f16 cannot hold (sm_53 and sm_72) count each. Waits for the device. Panics on the CPU.
    ///
    /// # Errors
    /// The device failed.
    pub fn overflows(&self) -> Result<u32, DeviceError> {
        let workspace = self.workspace.as_ref().expect("a scratch of this device");
        let mut count = [0; 4];
        workspace.read(workspace.len() - COUNTER_BYTES, &mut count)?;
        Ok(u32::from_ne_bytes(count))
    }

    /// Panics on the CPU, and when it was not made for training.
    pub(crate) fn training(&self) -> backward::Workspace {
        let workspace = self.workspace.as_ref().expect("a scratch of this device");
        assert!(self.slab_bytes > 0, "a scratch for training");
        let (at, len) = (workspace.ptr(), workspace.len() - COUNTER_BYTES);
        backward::Workspace { at, len, overflows: at.offset(len), slab_bytes: self.slab_bytes }
    }
}

/// Behind a workspace for training, aligned.
const COUNTER_BYTES: usize = 16;

fn with_counter(workspace_bytes: usize) -> usize {
    workspace_bytes.next_multiple_of(COUNTER_BYTES) + COUNTER_BYTES
}
