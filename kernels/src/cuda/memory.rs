//! Device memory, and host memory that the device can see.

#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use super::context::Context;
use super::driver::{Code, Driver};
use super::{Cuda, DeviceError, DevicePtr};

/// What every piece of device memory is aligned to.
pub const ALIGNMENT: usize = 256;

/// One cuMemAlloc.
struct Block {
    cuda: Cuda,
    address: u64,
}

impl Block {
    fn new(cuda: &Cuda, bytes: usize) -> Result<Block, DeviceError> {
        // The driver refuses nothing at all.
        let bytes = bytes.max(1);
        let address = or_out_of_memory(cuda.context(), bytes, "allocating device memory", |d| d.alloc(bytes))?;
        Ok(Block { cuda: cuda.clone(), address })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let context = self.cuda.context();
        // Kernels that use it may be on their way.
        context.settle();
        // Not while another thread records: freeing memory would end its recording.
        let _turn = context.take_turn();
        if context.make_current().is_ok() {
            let _ = context.driver.free(self.address);
        }
    }
}

fn or_out_of_memory<T>(
    context: &Context,
    bytes: usize,
    doing: &str,
    alloc: impl FnOnce(&Driver) -> Result<T, Code>,
) -> Result<T, DeviceError> {
    let mut out_of_memory = false;
    let result = context
        .run(doing, || alloc(context.driver).inspect_err(|code| out_of_memory = Driver::is_out_of_memory(*code)));
    if out_of_memory {
        let free = context.run("asking for free memory", || context.driver.free_bytes()).unwrap_or(0);
        return Err(DeviceError::OutOfMemory { needed: bytes, free });
    }
    result
}

/// Device memory, aligned to 256 bytes. It is not initialised. Dropping it waits for the stream.
pub struct Allocation {
    block: Arc<Block>,
    at: u64,
    len_bytes: usize,
}

impl Allocation {
    pub(super) fn new(cuda: &Cuda, bytes: usize) -> Result<Allocation, DeviceError> {
        let block = Arc::new(Block::new(cuda, bytes)?);
        Ok(Allocation { at: block.address, block, len_bytes: bytes })
    }

    pub fn ptr(&self) -> DevicePtr {
        DevicePtr(self.at)
    }

    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub fn cuda(&self) -> &Cuda {
        &self.block.cuda
    }

    /// Copies to byte `at` on, behind the work that the stream has, and waits.
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.check_range(at, bytes.len());
        self.copy("copying to the GPU", bytes.is_empty(), |context| {
            context.driver.copy_to_device(self.at + at as u64, bytes, context.stream)
        })
    }

    /// Copies from byte `at` on, behind the work that the stream has, and waits.
    pub fn read(&self, at: usize, out: &mut [u8]) -> Result<(), DeviceError> {
        self.check_range(at, out.len());
        self.copy("copying from the GPU", out.is_empty(), |context| {
            context.driver.copy_to_host(out, self.at + at as u64, context.stream)
        })
    }

    /// The host's memory is lent until this returns, so it waits whatever happens.
    fn copy(
        &self,
        doing: &str,
        is_empty: bool,
        copy: impl FnOnce(&Context) -> Result<(), Code>,
    ) -> Result<(), DeviceError> {
        let context = self.block.cuda.context();
        if is_empty {
            return context.check();
        }
        let _turn = context.take_turn();
        if context.is_recording() {
            return Err(DeviceError::Other(
                "memory cannot be copied and waited for while launches are recorded".into(),
            ));
        }
        let copied = context.run(doing, || {
            context.count_given();
            copy(context)
        });
        copied.and(context.synchronize())
    }

    /// Zeroes all of it, behind the work that the stream has, without waiting. The error is the first failure, whatever
    /// failed.
    pub fn fill_zero(&mut self) -> Result<(), DeviceError> {
        let context = self.block.cuda.context();
        if self.len_bytes > 0 {
            let clear = || context.driver.fill_zero(self.at, self.len_bytes, context.stream);
            context.give(|| "clearing device memory".into(), clear);
        }
        context.check()
    }

    fn check_range(&self, at: usize, len: usize) {
        let fits = at.checked_add(len).is_some_and(|end| end <= self.len_bytes);
        assert!(fits, "{len} bytes at {at} of an allocation of {}", self.len_bytes);
    }
}

/// Copies and clears that the stream makes in the order of the launches, without waiting; they may be recorded, and each replay then
/// reads and writes anew. A failure stays, as a launch's does.
impl Cuda {
    /// Copies bytes `range` of page-locked memory to byte `at` of `to` and on.
    pub fn copy_from_pinned(&self, to: &Allocation, at: usize, from: &PinnedBytes, range: Range<usize>) {
        to.check_range(at, range.len());
        let bytes = &from.bytes()[range];
        let context = self.context();
        let copy = || context.driver.copy_to_device(to.at + at as u64, bytes, context.stream);
        context.give(|| "copying to the GPU".into(), copy);
    }

    /// Copies bytes `range` of `from` to byte `at` of page-locked memory and on.
    pub fn copy_to_pinned(&self, to: &mut PinnedBytes, at: usize, from: &Allocation, range: Range<usize>) {
        from.check_range(range.start, range.len());
        let out = &mut to.bytes_mut()[at..at + range.len()];
        let context = self.context();
        let copy = || context.driver.copy_to_host(out, from.at + range.start as u64, context.stream);
        context.give(|| "copying from the GPU".into(), copy);
    }

    /// Copies `len` bytes between addresses on the device; the two ranges do not overlap.
    pub fn copy_on_device(&self, to: DevicePtr, from: DevicePtr, len: usize) {
        let context = self.context();
        if len > 0 {
            let copy = || context.driver.copy_on_device(to.0, from.0, len, context.stream);
            context.give(|| "copying on the GPU".into(), copy);
        }
    }

    /// Zeroes `len` bytes on the device.
    pub fn zero_on_device(&self, at: DevicePtr, len: usize) {
        let context = self.context();
        if len > 0 {
            let clear = || context.driver.fill_zero(at.0, len, context.stream);
            context.give(|| "clearing device memory".into(), clear);
        }
    }
}

/// Device memory that is handed out in parts, each once. LICHEN_CUDA_ARENA=off makes every part a cuMemAlloc of its own,
/// so that compute-sanitizer sees where it ends.
pub struct Arena {
    cuda: Cuda,
    block: Option<Arc<Block>>,
    len_bytes: usize,
    used_bytes: usize,
}

impl Arena {
    pub(super) fn new(cuda: &Cuda, bytes: usize) -> Result<Arena, DeviceError> {
        let is_off = std::env::var_os("LICHEN_CUDA_ARENA").is_some_and(|v| v == "off");
        let block = if is_off { None } else { Some(Arc::new(Block::new(cuda, bytes)?)) };
        Ok(Arena { cuda: cuda.clone(), block, len_bytes: bytes, used_bytes: 0 })
    }

    /// The next part. It may outlive the arena, whose memory then stays with it.
    pub fn alloc(&mut self, bytes: usize) -> Result<Allocation, DeviceError> {
        let free = self.len_bytes - self.used_bytes;
        let allocation = match &self.block {
            _ if bytes > free => return Err(DeviceError::OutOfMemory { needed: bytes, free }),
            None => Allocation::new(&self.cuda, bytes)?,
            Some(block) => {
                Allocation { block: block.clone(), at: block.address + self.used_bytes as u64, len_bytes: bytes }
            }
        };
        self.used_bytes = self.len_bytes.min(self.used_bytes + Arena::padded(bytes));
        Ok(allocation)
    }

    /// What a part of `bytes` takes of the arena.
    pub fn padded(bytes: usize) -> usize {
        bytes.next_multiple_of(ALIGNMENT)
    }

    pub fn free_bytes(&self) -> usize {
        self.len_bytes - self.used_bytes
    }
}

/// Page-locked host memory that the device sees too, zeroed. Both may write it, so looking at it waits for the stream
/// when the stream has work.
pub struct PinnedBytes {
    cuda: Cuda,
    host: usize,
    device: DevicePtr,
    len_bytes: usize,
}

impl PinnedBytes {
    pub(super) fn new(cuda: &Cuda, bytes: usize) -> Result<PinnedBytes, DeviceError> {
        let asked = bytes.max(1);
        let doing = "allocating page-locked memory";
        let (host, device) = or_out_of_memory(cuda.context(), asked, doing, |d| d.alloc_host(asked))?;
        let pinned =
            PinnedBytes { cuda: cuda.clone(), host: host as usize, device: DevicePtr(device), len_bytes: bytes };
        // SAFETY:
        // - The driver gave this many bytes, to this value alone; they become initialised here.
        unsafe { (pinned.host as *mut u8).write_bytes(0, asked) };
        Ok(pinned)
    }

    pub fn as_slice(&self) -> &[u8] {
        self.cuda.context().settle();
        self.bytes()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.cuda.context().settle();
        self.bytes_mut()
    }

    /// As it is, while the device may write it: for handing it to the driver.
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY:
        // - The driver gave this many bytes, initialised in `new`.
        unsafe { std::slice::from_raw_parts_mut(self.host as *mut u8, self.len_bytes) }
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY:
        // - The driver gave this many bytes, initialised in `new`.
        unsafe { std::slice::from_raw_parts(self.host as *const u8, self.len_bytes) }
    }

    pub fn device_ptr(&self) -> DevicePtr {
        self.device
    }
}

impl Drop for PinnedBytes {
    fn drop(&mut self) {
        let context = self.cuda.context();
        context.settle();
        // Not while another thread records: freeing memory would end its recording.
        let _turn = context.take_turn();
        if context.make_current().is_ok() {
            let _ = context.driver.free_host(self.host as *mut u8);
        }
    }
}
