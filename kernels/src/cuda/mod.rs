//! CUDA through the driver alone: no CUDA SDK at build time, none at run time.
//!
//! Kernels reach the device as PTX that build.rs compiled with clang; the driver makes machine code of it once, and the
//! result is cached on disk. There is one context (the device's primary one) and one stream.

mod error;
mod graph;
mod launch;
mod memory;
mod packed;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::DeviceError;
pub use graph::Graph;
pub use launch::{Arg, DevicePtr, LaunchShape};
pub use memory::{Allocation, Arena, PinnedBytes};
pub use packed::PackedMatrix;

/// Why no kernels are there; `None` when they are.
pub const NOT_COMPILED: Option<&str> = None;

/// The oldest architecture with kernels: Maxwell, as on the Jetson Nano.
pub const LEAST_CAPABILITY: u32 = 53;

/// An open device. Clones share it; any thread may use it.
#[derive(Clone)]
pub struct Cuda(#[allow(dead_code)] Arc<()>);

/// How to open a device.
#[derive(Clone, Debug, Default)]
pub struct CudaOptions {
    /// Which device, as the driver counts them.
    pub ordinal: usize,
    /// The architecture whose PTX is loaded: 53, 72, 80, 87 or 90. `None`: LICHEN_CUDA_ARCH, else the best one.
    pub arch: Option<u32>,
    /// Where machine code is cached. `None`: LICHEN_CACHE_DIR, else XDG_CACHE_HOME/lichen, else ~/.cache/lichen.
    pub cache_dir: Option<PathBuf>,
}

/// What the driver says of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceInfo {
    pub ordinal: usize,
    pub name: String,
    /// 53 is compute capability 5.3.
    pub capability: u32,
    pub total_bytes: usize,
    /// 10020 is CUDA 10.2.
    pub driver_version: u32,
    /// Shares the memory of the CPU.
    pub is_integrated: bool,
    pub n_sms: u32,
    /// Shared memory a block may ask for.
    pub max_shared_bytes: u32,
}

/// Architectures whose kernels are in this program.
pub fn embedded_archs() -> Vec<u32> {
    unimplemented!()
}

impl DeviceInfo {
    /// True for the emulator of the tests.
    pub fn is_emulated(&self) -> bool {
        self.name.starts_with("Lichen emulated")
    }
}

impl Cuda {
    pub fn open(_options: &CudaOptions) -> Result<Cuda, DeviceError> {
        unimplemented!()
    }
    pub fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
        unimplemented!()
    }
    pub fn info(&self) -> &DeviceInfo {
        unimplemented!()
    }
    /// 53, 72, 80, 87 or 90: of the PTX that was loaded. It picks kernels.
    pub fn arch(&self) -> u32 {
        unimplemented!()
    }
    pub fn n_sms(&self) -> u32 {
        self.info().n_sms
    }
    pub fn max_shared_bytes(&self) -> u32 {
        self.info().max_shared_bytes
    }
    pub fn free_bytes(&self) -> Result<usize, DeviceError> {
        unimplemented!()
    }
    pub fn launch(&self, _kernel: &'static str, _shape: LaunchShape, _args: &[Arg]) {
        unimplemented!()
    }
    pub fn check(&self) -> Result<(), DeviceError> {
        unimplemented!()
    }
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        unimplemented!()
    }
    pub fn capture(&self, _record: &mut dyn FnMut()) -> Result<Option<Graph>, DeviceError> {
        unimplemented!()
    }
    pub fn time_ms(&self, _record: &mut dyn FnMut()) -> Result<f32, DeviceError> {
        unimplemented!()
    }
    pub fn alloc(&self, _bytes: usize) -> Result<Allocation, DeviceError> {
        unimplemented!()
    }
    pub fn alloc_pinned(&self, _bytes: usize) -> Result<PinnedBytes, DeviceError> {
        unimplemented!()
    }
    pub fn arena(&self, _bytes: usize) -> Result<Arena, DeviceError> {
        unimplemented!()
    }

    /// Starts the copy of `bytes` of `from` to byte `at` of `to`, in order with the launches; may be captured. A failure is
    /// recorded as a launch's is.
    pub fn copy_from_pinned(&self, _to: &Allocation, _at: usize, _from: &PinnedBytes, _bytes: std::ops::Range<usize>) {
        unimplemented!()
    }
    /// Starts the copy of `bytes` of `from` to byte `at` of `to`, in order with the launches; may be captured.
    pub fn copy_to_pinned(&self, _to: &PinnedBytes, _at: usize, _from: &Allocation, _bytes: std::ops::Range<usize>) {
        unimplemented!()
    }
    /// Starts the copy of `len` bytes between addresses on the device.
    pub fn copy_on_device(&self, _to: DevicePtr, _from: DevicePtr, _len: usize) {
        unimplemented!()
    }
}
