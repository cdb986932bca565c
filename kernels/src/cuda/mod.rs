//! CUDA through the driver alone: no CUDA SDK at build time, none at run time.
//!
//! Kernels reach the device as PTX that build.rs compiled with clang; the driver makes machine code of it once, and the
//! result is cached on disk. There is one context (the device's primary one) and one stream: work is done in the order
//! in which it is given, but for kernels that say where they wait ([`Cuda::launch_pdl`]). A failure of a launch stays:
//! what is launched after it does nothing, and [`Cuda::check`] and [`Cuda::synchronize`] return it.

mod calls;
mod context;
mod cubin_cache;
mod driver;
mod embed;
mod error;
mod graph;
mod launch;
mod memory;
mod module;
mod ptx;
mod scope;

use std::path::PathBuf;
use std::sync::Arc;

pub use error::DeviceError;
pub use graph::Graph;
pub use launch::{Arg, DevicePtr, LaunchShape};
pub use memory::{Allocation, Arena, PinnedBytes, ALIGNMENT};
pub use ptx::NOT_COMPILED;

use calls::Attribute;
use context::Context;
use driver::Driver;
use module::Modules;
use ptx::KernelInfo;

/// The oldest architecture with kernels: Maxwell, as on the Jetson Nano.
pub const LEAST_CAPABILITY: u32 = 53;

/// An open device. Clones share it; any thread may use it.
#[derive(Clone)]
pub struct Cuda(Arc<Shared>);

struct Shared {
    arch: u32,
    /// The device and its driver know [PDL](Cuda::launch_pdl).
    has_pdl: bool,
    modules: Modules,
    context: Context,
}

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

/// What a kernel takes of a multiprocessor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Occupancy {
    /// Blocks that there are registers for: the launch bounds promise it.
    pub blocks_per_sm: u32,
    /// Arrays of a block, beside the dynamic shared memory of a launch.
    pub static_shared_bytes: u32,
}

/// What the driver says of a device.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceInfo {
    pub ordinal: usize,
    pub name: String,
    /// 53 is compute capability 5.3.
    pub capability: u32,
    pub total_bytes: usize,
    /// 10020 is CUDA 10.2.
    pub driver_version: u32,
    /// Shares the CPU's memory.
    pub is_integrated: bool,
    pub n_sms: u32,
    /// Shared memory that a block may ask for.
    pub max_shared_bytes: u32,
}

/// CUDA 12.3: graphs keep PDL launches.
const PDL_VERSION_MIN: u32 = 12_030;

/// Architectures whose kernels are in this program.
pub fn embedded_archs() -> Vec<u32> {
    ptx::ARCHES.iter().map(|a| a.arch).collect()
}

/// Architectures and the names of their modules.
#[cfg(test)]
pub(crate) fn module_names() -> impl Iterator<Item = (u32, &'static str)> {
    ptx::ARCHES.iter().flat_map(|a| a.modules.iter().map(move |m| (a.arch, m.name)))
}

impl DeviceInfo {
    /// True for the emulator of the tests.
    pub fn is_emulated(&self) -> bool {
        self.name.starts_with("Lichen emulated")
    }
}

impl Cuda {
    /// Opens a device. Its kernels are loaded when [`prepare`](Cuda::prepare) or a launch wants them.
    pub fn open(options: &CudaOptions) -> Result<Cuda, DeviceError> {
        if let Some(why) = NOT_COMPILED {
            return Err(DeviceError::Other(why.into()));
        }
        let driver = driver::get()?;
        let info = device_info(driver, options.ordinal)?;
        let asked = options.arch.map_or_else(ptx::arch_from_environment, |arch| Ok(Some(arch)))?;
        let arch = ptx::choose(ptx::ARCHES, asked, &info)?;
        let folder =
            cubin_cache::folder(options.cache_dir.as_deref(), &|name| std::env::var_os(name).map(PathBuf::from));
        let modules = Modules::new(arch, folder, &info);
        let context = Context::open(driver, info)?;
        let is_off = std::env::var_os("LICHEN_CUDA_OVERLAP").is_some_and(|v| v == "off");
        let has_pdl = arch.arch >= 90 && driver.version >= PDL_VERSION_MIN && !is_off;
        Ok(Cuda(Arc::new(Shared { arch: arch.arch, has_pdl, modules, context })))
    }

    /// The machine's devices. None is opened.
    pub fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
        let driver = driver::get()?;
        (0..count_devices(driver)?).map(|ordinal| device_info(driver, ordinal)).collect()
    }

    pub fn info(&self) -> &DeviceInfo {
        &self.context().info
    }

    /// 53, 72, 80, 87 or 90: of the PTX that was loaded. It picks kernels.
    pub fn arch(&self) -> u32 {
        self.0.arch
    }

    pub fn n_sms(&self) -> u32 {
        self.info().n_sms
    }

    /// Shared memory that a block may ask for.
    pub fn max_shared_bytes(&self) -> u32 {
        self.info().max_shared_bytes
    }

    /// Loads the modules whose names are wanted (`matmul/decode/decode_q8_0` is the source below `ops`), and compiles those
    /// that the cache does not have on all cores. [`modules_for`](crate::ops::modules_for) knows what a model wants.
    ///
    /// # Errors
    /// The driver refuses a kernel, or this thread is recording.
    pub fn prepare(&self, wanted: &dyn Fn(&str) -> bool) -> Result<(), DeviceError> {
        self.0.modules.prepare(self.context(), wanted)
    }

    /// Modules that the driver has compiled for this: none when the cache had them all.
    pub fn n_compiled(&self) -> usize {
        self.0.modules.n_compiled()
    }

    /// Modules that a launch had to load because they were not prepared.
    pub fn n_late(&self) -> usize {
        self.0.modules.n_late()
    }

    /// Times that the host has waited for work it had given.
    pub fn n_waits(&self) -> u64 {
        self.context().n_waits()
    }

    pub fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.context().run("asking for free memory", || self.context().driver.free_bytes())
    }

    /// True when this program has the kernel for the device: wgmma's are an H100's and H200's, and no old clang makes them.
    pub fn has_kernel(&self, kernel: &str) -> bool {
        self.0.modules.find(kernel).is_some()
    }

    /// What a kernel takes of a multiprocessor, by its PTX. Panics when it is not there.
    pub(crate) fn occupancy(&self, kernel: &str) -> Occupancy {
        let Some(place) = self.0.modules.find(kernel) else {
            panic!("no kernel {kernel} for CUDA architecture {}", self.arch());
        };
        let KernelInfo { blocks_per_sm, static_shared_bytes, .. } = *place.info;
        Occupancy { blocks_per_sm, static_shared_bytes }
    }

    /// Gives the stream one kernel. A kernel that is not there, or arguments that are not its parameters, are a fault of
    /// this program and panic. What was not prepared is loaded now, which takes seconds when it must be compiled; that it
    /// cannot be, because this thread is recording or the driver refuses, is a failure of the launch.
    pub fn launch(&self, kernel: &'static str, shape: LaunchShape, args: &[Arg]) {
        self.give(kernel, shape, args, false);
    }

    /// [`launch`](Cuda::launch) of a kernel that may begin while the one before it still runs (CUDA C++ Programming Guide,
    /// "Programmatic Dependent Launch", PDL): it calls wait_for_primary before it touches what others write. From sm_90 and
    /// CUDA 12.3 on, whose graphs keep such launches; LICHEN_CUDA_OVERLAP=off lets every kernel wait for the one before.
    pub fn launch_pdl(&self, kernel: &'static str, shape: LaunchShape, args: &[Arg]) {
        self.give(kernel, shape, args, self.0.has_pdl);
    }

    fn give(&self, kernel: &'static str, shape: LaunchShape, args: &[Arg], is_pdl: bool) {
        let (modules, context) = (&self.0.modules, self.context());
        let Some(place) = modules.find(kernel) else {
            panic!("no kernel {kernel} for CUDA architecture {}", self.arch());
        };
        launch::check_args(place.info, shape, args);
        match modules.kernel(context, place) {
            Ok(kernel) => kernel.launch(context, shape, args, is_pdl),
            Err(error) => context.fail(error),
        }
    }

    /// The first failure, if there was one, without waiting.
    pub fn check(&self) -> Result<(), DeviceError> {
        self.context().check()
    }

    /// Waits for the stream.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.context().synchronize()
    }

    /// Records what `record` launches, without running it; `None`, without calling it, when the driver cannot. Other
    /// threads wait with their work.
    pub fn capture(&self, record: &mut dyn FnMut()) -> Result<Option<Graph>, DeviceError> {
        graph::capture(self, record)
    }

    /// Milliseconds that the device needs for what `record` launches, and those that loading takes for what was not
    /// prepared. Other threads wait with their work.
    pub fn time_ms(&self, record: &mut dyn FnMut()) -> Result<f32, DeviceError> {
        graph::time_ms(self, record)
    }

    /// Page-locked host memory, zeroed.
    pub fn alloc_pinned(&self, bytes: usize) -> Result<PinnedBytes, DeviceError> {
        PinnedBytes::new(self, bytes)
    }

    /// Device memory to be handed out in parts; [`Arena::padded`] says what a part takes.
    pub fn arena(&self, bytes: usize) -> Result<Arena, DeviceError> {
        Arena::new(self, bytes)
    }

    fn context(&self) -> &Context {
        &self.0.context
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.context.settle();
        if self.context.make_current().is_ok() {
            self.modules.unload(&self.context);
        }
    }
}

fn count_devices(driver: &Driver) -> Result<usize, DeviceError> {
    driver.count_devices().map_err(|code| driver.error(code, "counting CUDA devices"))
}

fn device_info(driver: &Driver, ordinal: usize) -> Result<DeviceInfo, DeviceError> {
    let n_devices = count_devices(driver)?;
    if ordinal >= n_devices {
        return Err(DeviceError::NoDevice(match n_devices {
            0 => "no CUDA device on this machine".into(),
            1 => format!("no CUDA device {ordinal}: there is one, device 0"),
            n => format!("no CUDA device {ordinal}: there are {n}, from 0 to {}", n - 1),
        }));
    }
    let ask = || {
        let device = driver.device(ordinal)?;
        let attribute = |attribute| driver.attribute(device, attribute);
        Ok(DeviceInfo {
            ordinal,
            name: driver.device_name(device)?,
            capability: attribute(Attribute::CapabilityMajor)? * 10 + attribute(Attribute::CapabilityMinor)?,
            total_bytes: driver.total_bytes(device)?,
            driver_version: driver.version,
            is_integrated: attribute(Attribute::Integrated)? != 0,
            n_sms: attribute(Attribute::MultiprocessorCount)?,
            // Parts before Volta know no more than what every block has.
            max_shared_bytes: attribute(Attribute::SharedBytesPerBlock)?
                .max(attribute(Attribute::SharedBytesPerBlockOptIn).unwrap_or(0)),
        })
    };
    ask().map_err(|code| driver.error(code, "asking for a CUDA device"))
}
