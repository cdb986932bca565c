//! The functions of libcuda that are used: one table, filled once. A Jetson Nano's driver is CUDA 10.2's, so no function
//! that came later is required, and none returns an enum: a newer driver may return codes that nobody here knows.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_void, CStr};
use std::sync::OnceLock;

use super::DeviceError;

/// What the driver hands out for contexts, streams, modules and the like: a pointer that only it looks behind.
pub(super) type Handle = usize;
/// 0 is success.
pub(super) type Code = u32;

/// CUDA 10.2: the last one for a Jetson Nano.
const VERSION_MIN: u32 = 10020;

macro_rules! table {
    (
        required { $($name:ident: $first:literal $(or $second:literal)? ($($arg:ty),*);)* }
        optional { $($maybe:ident: $symbol:literal ($($maybe_arg:ty),*);)* }
    ) => {
        /// Optional ones are missing in old drivers; the second name of a required one is the older.
        pub(super) struct Driver {
            pub version: u32,
            // SAFETY:
            // - Types; each call says what holds.
            $(pub(super) $name: unsafe extern "C" fn($($arg),*) -> Code,)*
            $(pub(super) $maybe: Option<unsafe extern "C" fn($($maybe_arg),*) -> Code>,)*
        }

        impl Driver {
            /// `find` gives a function's address.
            fn load(version: u32, find: &dyn Fn(&CStr) -> Option<*mut c_void>) -> Result<Driver, DeviceError> {
                Ok(Driver {
                    version,
                    $($name: {
                        let address = find($first) $(.or_else(|| find($second)))? .ok_or_else(|| lacking(version, $first))?;
                        // SAFETY:
                        // - The symbol of this name is the function of cuda.h with these parameters.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) -> Code>(address) }
                    },)*
                    $($maybe: find($symbol).map(|address| {
                        // SAFETY:
                        // - As above.
                        unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($maybe_arg),*) -> Code>(address) }
                    }),)*
                })
            }
        }
    };
}

table! {
    required {
        device_get_count: c"cuDeviceGetCount" (*mut i32);
        device_get: c"cuDeviceGet" (*mut i32, i32);
        device_get_name: c"cuDeviceGetName" (*mut c_char, i32, i32);
        device_get_attribute: c"cuDeviceGetAttribute" (*mut i32, i32, i32);
        device_total_mem: c"cuDeviceTotalMem_v2" (*mut usize, i32);
        primary_ctx_set_flags: c"cuDevicePrimaryCtxSetFlags_v2" or c"cuDevicePrimaryCtxSetFlags" (i32, u32);
        primary_ctx_retain: c"cuDevicePrimaryCtxRetain" (*mut Handle, i32);
        primary_ctx_release: c"cuDevicePrimaryCtxRelease_v2" or c"cuDevicePrimaryCtxRelease" (i32);
        ctx_set_current: c"cuCtxSetCurrent" (Handle);
        mem_get_info: c"cuMemGetInfo_v2" (*mut usize, *mut usize);
        mem_alloc: c"cuMemAlloc_v2" (*mut u64, usize);
        mem_free: c"cuMemFree_v2" (u64);
        mem_host_alloc: c"cuMemHostAlloc" (*mut *mut c_void, usize, u32);
        mem_host_get_device_pointer: c"cuMemHostGetDevicePointer_v2" (*mut u64, *mut c_void, u32);
        mem_free_host: c"cuMemFreeHost" (*mut c_void);
        memcpy_to_device: c"cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, Handle);
        memcpy_to_host: c"cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, Handle);
        memcpy_on_device: c"cuMemcpyDtoDAsync_v2" (u64, u64, usize, Handle);
        memset: c"cuMemsetD8Async" (u64, u8, usize, Handle);
        stream_create: c"cuStreamCreate" (*mut Handle, u32);
        stream_synchronize: c"cuStreamSynchronize" (Handle);
        stream_destroy: c"cuStreamDestroy_v2" (Handle);
        event_create: c"cuEventCreate" (*mut Handle, u32);
        event_record: c"cuEventRecord" (Handle, Handle);
        event_synchronize: c"cuEventSynchronize" (Handle);
        event_elapsed_time: c"cuEventElapsedTime" or c"cuEventElapsedTime_v2" (*mut f32, Handle, Handle);
        event_destroy: c"cuEventDestroy_v2" (Handle);
        link_create: c"cuLinkCreate_v2" (u32, *mut i32, *mut *mut c_void, *mut Handle);
        link_add_data: c"cuLinkAddData_v2"
            (Handle, i32, *const c_void, usize, *const c_char, u32, *mut i32, *mut *mut c_void);
        link_complete: c"cuLinkComplete" (Handle, *mut *mut c_void, *mut usize);
        link_destroy: c"cuLinkDestroy" (Handle);
        module_load_data: c"cuModuleLoadData" (*mut Handle, *const c_void);
        module_get_function: c"cuModuleGetFunction" (*mut Handle, Handle, *const c_char);
        module_unload: c"cuModuleUnload" (Handle);
        func_set_attribute: c"cuFuncSetAttribute" (Handle, i32, i32);
        launch_kernel: c"cuLaunchKernel"
            (Handle, u32, u32, u32, u32, u32, u32, u32, Handle, *mut *mut c_void, *mut *mut c_void);
    }
    optional {
        get_error_name: c"cuGetErrorName" (Code, *mut *const c_char);
        get_error_string: c"cuGetErrorString" (Code, *mut *const c_char);
        stream_begin_capture: c"cuStreamBeginCapture_v2" (Handle, i32);
        stream_end_capture: c"cuStreamEndCapture" (Handle, *mut Handle);
        graph_instantiate_with_flags: c"cuGraphInstantiateWithFlags" (*mut Handle, Handle, u64);
        // Its parameters in CUDA 10 and 11: exec, graph, error node, log, log size.
        graph_instantiate: c"cuGraphInstantiate" (*mut Handle, Handle, *mut Handle, *mut c_char, usize);
        graph_launch: c"cuGraphLaunch" (Handle, Handle);
        graph_destroy: c"cuGraphDestroy" (Handle);
        graph_exec_destroy: c"cuGraphExecDestroy" (Handle);
        launch_kernel_ex: c"cuLaunchKernelEx" (*const LaunchConfig, Handle, *mut *mut c_void, *mut *mut c_void);
    }
}

/// CUlaunchConfig.
#[repr(C)]
pub(super) struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared_bytes: u32,
    pub stream: Handle,
    pub attributes: *const LaunchAttribute,
    pub n_attributes: u32,
}

/// CUlaunchAttribute, whose value is a union of 64 bytes, pointers among them; an int at its start here.
#[repr(C, align(8))]
pub(super) struct LaunchAttribute {
    pub id: i32,
    pub padding: i32,
    pub value: [i32; 16],
}

fn lacking(version: u32, symbol: &CStr) -> DeviceError {
    let symbol = symbol.to_string_lossy();
    DeviceError::OldDriver(format!(
        "the CUDA driver is version {} and lacks {symbol}: a driver of CUDA {} or later is needed",
        dotted(version),
        dotted(VERSION_MIN)
    ))
}

/// 10020 is CUDA 10.2.
pub(super) fn dotted(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The machine's driver, initialised.
pub(super) fn get() -> Result<&'static Driver, DeviceError> {
    static DRIVER: OnceLock<Result<Driver, DeviceError>> = OnceLock::new();
    DRIVER.get_or_init(open).as_ref().map_err(Clone::clone)
}

fn open() -> Result<Driver, DeviceError> {
    // SAFETY:
    // - Opens libcuda, whose initialisers may run at any time.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err(DeviceError::NoDriver);
    }
    let find = |name: &CStr| {
        // SAFETY:
        // - The library is there, and is never closed. Only the address is taken here.
        let symbol = unsafe { cudarc::driver::sys::culib().get::<*mut c_void>(name.to_bytes_with_nul()) };
        symbol.ok().map(|s| *s)
    };
    start(&find)
}

/// The version is asked for first: every other complaint names it.
fn start(find: &dyn Fn(&CStr) -> Option<*mut c_void>) -> Result<Driver, DeviceError> {
    let first = |name: &CStr| find(name).ok_or_else(|| lacking(0, name));
    let (get_version, init) = (first(c"cuDriverGetVersion")?, first(c"cuInit")?);
    // SAFETY:
    // - The functions of cuda.h with these parameters; the first writes one number and may come before the second, which
    //   takes a number. Neither is given anything but that, below.
    let (get_version, init) = unsafe {
        let get_version = std::mem::transmute::<*mut c_void, extern "C" fn(*mut i32) -> Code>(get_version);
        (get_version, std::mem::transmute::<*mut c_void, extern "C" fn(u32) -> Code>(init))
    };
    let mut version = 0;
    get_version(&mut version);
    if (version as u32) < VERSION_MIN {
        return Err(DeviceError::OldDriver(format!(
            "the CUDA driver is version {}: a driver of CUDA {} or later is needed",
            dotted(version as u32),
            dotted(VERSION_MIN)
        )));
    }
    let driver = Driver::load(version as u32, find)?;
    // Its only flag.
    match init(0) {
        0 => Ok(driver),
        code => Err(driver.start_error(code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn succeeds() -> Code {
        0
    }
    extern "C" fn version(out: *mut i32) -> Code {
        // SAFETY:
        // - Called by `start` with a number of its own.
        unsafe { *out = 10020 };
        0
    }
    extern "C" fn ancient(out: *mut i32) -> Code {
        // SAFETY:
        // - As above.
        unsafe { *out = 9010 };
        0
    }

    /// A driver with every symbol but `missing`.
    fn without(missing: &[&CStr], version: extern "C" fn(*mut i32) -> Code) -> Result<Driver, DeviceError> {
        start(&|name| {
            let address = if name == c"cuDriverGetVersion" { version as *mut c_void } else { succeeds as *mut c_void };
            (!missing.contains(&name)).then_some(address)
        })
    }

    #[test]
    fn a_missing_function_is_named() {
        let error = without(&[c"cuLaunchKernel"], version).err().expect("refused").to_string();
        let text = "the CUDA driver is version 10.2 and lacks cuLaunchKernel: a driver of CUDA 10.2 or later is needed";
        assert_eq!(error, text);
    }

    #[test]
    fn the_older_name_will_do_and_optional_ones_may_miss() {
        let missing = [c"cuDevicePrimaryCtxRelease_v2", c"cuGraphInstantiateWithFlags", c"cuGetErrorName"];
        let driver = without(&missing, version).expect("a driver of 10.2");
        assert!(driver.graph_instantiate_with_flags.is_none() && driver.graph_instantiate.is_some());
        assert_eq!(driver.version, 10020);
    }

    #[test]
    fn an_ancient_driver_is_refused() {
        let error = without(&[], ancient).err().expect("refused").to_string();
        assert_eq!(error, "the CUDA driver is version 9.1: a driver of CUDA 10.2 or later is needed");
    }
}
