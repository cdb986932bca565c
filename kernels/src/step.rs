//! What changes from one forward pass to the next: the position of the first row and the rows' tokens.
//!
//! A GPU's kernels read both from device memory, so that one recorded decode step serves every position.

use crate::cuda::{Allocation, DeviceError, DevicePtr, PinnedBytes};
use crate::device::Device;

/// The rows of one forward pass.
pub struct Step {
    first_position: usize,
    /// At most the rows it was made for; allocated once.
    tokens: Vec<u32>,
    on_device: Option<OnDevice>,
}

struct OnDevice {
    /// u32: the position, then the tokens.
    memory: Allocation,
    /// The same, where the copy starts from.
    staged: PinnedBytes,
}

impl Step {
    /// Room for `max_rows` rows.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, max_rows: usize) -> Result<Step, DeviceError> {
        let on_device = match device {
            Device::Cpu(_) => None,
            Device::Cuda(cuda) => {
                let bytes = Step::size_bytes(max_rows);
                Some(OnDevice { memory: cuda.alloc(bytes)?, staged: cuda.alloc_pinned(bytes)? })
            }
        };
        Ok(Step { first_position: 0, tokens: Vec::with_capacity(max_rows), on_device })
    }

    /// Device bytes [`Step::new`] takes; as many are pinned.
    pub fn size_bytes(max_rows: usize) -> usize {
        4 * (1 + max_rows)
    }

    /// The next rows, on the host. The device must have finished the step before.
    pub fn set(&mut self, first_position: usize, tokens: &[u32]) {
        self.first_position = first_position;
        self.tokens.clear();
        self.tokens.extend_from_slice(tokens);
        if let Some(device) = &mut self.on_device {
            let staged: &mut [u32] = bytemuck::cast_slice_mut(device.staged.as_mut_slice());
            staged[0] = u32::try_from(first_position).expect("contexts are shorter than 2^32");
            staged[1..1 + tokens.len()].copy_from_slice(tokens);
        }
    }

    /// Starts the copy to the device: the first thing of a pass, and the first node of its graph.
    pub fn send(&self) {
        if let Some(device) = &self.on_device {
            let bytes = 0..Step::size_bytes(self.tokens.len());
            device.memory.cuda().copy_from_pinned(&device.memory, 0, &device.staged, bytes);
        }
    }

    pub fn first_position(&self) -> usize {
        self.first_position
    }

    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// One u32. Panics on the CPU.
    pub fn position_ptr(&self) -> DevicePtr {
        self.on_device.as_ref().expect("the step of a GPU").memory.ptr()
    }

    /// u32 (T). Panics on the CPU.
    pub fn tokens_ptr(&self) -> DevicePtr {
        self.position_ptr().offset(4)
    }
}
