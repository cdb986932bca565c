//! What changes from one forward pass to the next: the position of the first row and the rows' tokens; in a batch the
//! position and the slot of every row.
//!
//! A GPU's kernels read all of it from device memory, so that one recorded decode step serves every position.

use crate::cuda::{Allocation, DeviceError, DevicePtr, PinnedBytes};
use crate::device::Device;

/// One row of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub token: u32,
    pub position: u32,
    /// Whose sequence it is: a row of the page tables; [`NO_SLOT`] for a row that only fills a launch.
    pub slot: u32,
}

/// The slot of a padding row: it is computed, stores nothing and sees nothing.
pub const NO_SLOT: u32 = u32::MAX;

/// The rows of one forward pass.
pub struct Step {
    first_position: usize,
    /// At most the rows it was made for; allocated once.
    tokens: Vec<u32>,
    /// As many, in a batch; empty where the rows follow each other.
    positions: Vec<u32>,
    slots: Vec<u32>,
    max_rows: usize,
    is_batch: bool,
    is_chunk: bool,
    on_device: Option<OnDevice>,
}

struct OnDevice {
    /// u32: the first position, then the tokens; in a batch (max_rows) tokens, positions and slots.
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
        Step::allocate(device, max_rows, false)
    }

    /// Room for `max_rows` rows of several sequences.
    ///
    /// # Errors
    /// The device has no room.
    pub fn of_batch(device: &Device, max_rows: usize) -> Result<Step, DeviceError> {
        Step::allocate(device, max_rows, true)
    }

    fn allocate(device: &Device, max_rows: usize, is_batch: bool) -> Result<Step, DeviceError> {
        let on_device = match device {
            Device::Cpu(_) => None,
            Device::Cuda(cuda) => {
                let bytes = if is_batch { Step::batch_size_bytes(max_rows) } else { Step::size_bytes(max_rows) };
                Some(OnDevice { memory: cuda.alloc(bytes)?, staged: cuda.alloc_pinned(bytes)? })
            }
        };
        let n_places = if is_batch { max_rows } else { 0 };
        Ok(Step {
            first_position: 0,
            tokens: Vec::with_capacity(max_rows),
            positions: Vec::with_capacity(n_places),
            slots: Vec::with_capacity(n_places),
            max_rows,
            is_batch,
            is_chunk: false,
            on_device,
        })
    }

    /// Device bytes [`Step::new`] takes; as many are pinned.
    pub fn size_bytes(max_rows: usize) -> usize {
        4 * (1 + max_rows)
    }

    /// The same of [`Step::of_batch`].
    pub fn batch_size_bytes(max_rows: usize) -> usize {
        4 * (1 + 3 * max_rows)
    }

    /// The next rows, on the host. The device must have finished the step before.
    pub fn set(&mut self, first_position: usize, tokens: &[u32]) {
        assert!(!self.is_batch, "the rows of a batch have their own positions");
        self.first_position = first_position;
        self.tokens.clear();
        self.tokens.extend_from_slice(tokens);
        if let Some(device) = &mut self.on_device {
            let staged: &mut [u32] = bytemuck::cast_slice_mut(device.staged.as_mut_slice());
            staged[0] = u32::try_from(first_position).expect("contexts are shorter than 2^32");
            staged[1..1 + tokens.len()].copy_from_slice(tokens);
        }
    }

    /// The next rows of a batch, on the host: one of each of several sequences. The device must have finished the step
    /// before.
    pub fn set_rows(&mut self, rows: &[Row]) {
        self.set_batch(rows);
        self.is_chunk = false;
    }

    /// The same for several rows of one sequence that follow each other.
    pub fn set_chunk(&mut self, rows: &[Row]) {
        let follows = |w: &[Row]| w[0].slot == w[1].slot && w[0].position + 1 == w[1].position;
        assert!(rows.windows(2).all(follows));
        self.set_batch(rows);
        self.is_chunk = true;
    }

    fn set_batch(&mut self, rows: &[Row]) {
        assert!(self.is_batch && rows.len() <= self.max_rows, "{} rows", rows.len());
        self.first_position = rows.first().map_or(0, |r| r.position as usize);
        self.tokens.clear();
        self.positions.clear();
        self.slots.clear();
        self.tokens.extend(rows.iter().map(|r| r.token));
        self.positions.extend(rows.iter().map(|r| r.position));
        self.slots.extend(rows.iter().map(|r| r.slot));
        if let Some(device) = &mut self.on_device {
            let staged: &mut [u32] = bytemuck::cast_slice_mut(device.staged.as_mut_slice());
            staged[0] = self.first_position as u32;
            for (i, values) in [&self.tokens, &self.positions, &self.slots].into_iter().enumerate() {
                let at = 1 + i * self.max_rows;
                staged[at..at + values.len()].copy_from_slice(values);
            }
        }
    }

    /// Starts the copy to the device: the first thing of a pass, and the first node of its graph.
    pub fn send(&self) {
        if let Some(device) = &self.on_device {
            // All of a batch's, whatever was set: its three arrays lie apart.
            let bytes = match self.is_batch {
                true => 0..Step::batch_size_bytes(self.max_rows),
                false => 0..Step::size_bytes(self.tokens.len()),
            };
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

    /// The position of row `t`.
    pub fn position(&self, t: usize) -> usize {
        self.positions.get(t).map_or(self.first_position + t, |p| *p as usize)
    }

    /// The slots of a batch's rows; empty where the rows follow each other.
    pub fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// True where each row has a position and a slot of its own.
    pub fn is_batch(&self) -> bool {
        self.is_batch
    }

    /// True where a batch's rows are part of one sequence.
    pub fn is_chunk(&self) -> bool {
        self.is_chunk
    }

    /// One u32. Panics on the CPU.
    pub fn position_ptr(&self) -> DevicePtr {
        self.on_device.as_ref().expect("the step of a GPU").memory.ptr()
    }

    /// u32 (T). Panics on the CPU.
    pub fn tokens_ptr(&self) -> DevicePtr {
        self.position_ptr().offset(4)
    }

    /// A batch's u32 (T). Panics on the CPU.
    pub fn positions_ptr(&self) -> DevicePtr {
        self.tokens_ptr().offset(4 * self.max_rows)
    }

    /// A batch's u32 (T). Panics on the CPU.
    pub fn slots_ptr(&self) -> DevicePtr {
        self.tokens_ptr().offset(8 * self.max_rows)
    }
}
