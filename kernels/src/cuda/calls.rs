//! The driver's functions with Rust's types. Handles and addresses come from the driver and are alive: this module's
//! parent frees each once, when nothing uses it any more.

#![allow(unsafe_code)]

use std::ffi::{c_char, c_void, CStr, CString};
use std::ptr::{null, null_mut};

use super::driver::{Code, Driver, Handle, LaunchAttribute, LaunchConfig};
use super::launch::LaunchShape;
use super::ptx::HAS_LINE_INFO;

/// Attributes of a device (CUdevice_attribute): all known to CUDA 10.2, whose last is 105.
#[derive(Clone, Copy)]
pub(super) enum Attribute {
    SharedBytesPerBlock = 8,
    MultiprocessorCount = 16,
    Integrated = 18,
    CapabilityMajor = 75,
    CapabilityMinor = 76,
    SharedBytesPerBlockOptIn = 97,
}

const CTX_SCHED_BLOCKING_SYNC: u32 = 4;
const CTX_MAP_HOST: u32 = 8;
const MEM_HOST_ALLOC_PORTABLE_AND_MAPPED: u32 = 1 | 2;
const STREAM_NON_BLOCKING: u32 = 1;
const FUNC_MAX_DYNAMIC_SHARED_BYTES: i32 = 8;
const JIT_ERROR_LOG: i32 = 5;
const JIT_ERROR_LOG_BYTES: i32 = 6;
const JIT_GENERATE_LINE_INFO: i32 = 12;
const JIT_YES: usize = 1;
const JIT_INPUT_PTX: i32 = 1;
/// The thread that records may not make calls that a graph cannot hold; other threads may.
const CAPTURE_THREAD_LOCAL: i32 = 1;
const NOT_SUPPORTED: Code = 801;

// SAFETY:
// - A type; its call says what holds.
type TextFunction = unsafe extern "C" fn(Code, *mut *const c_char) -> Code;

type Result<T> = std::result::Result<T, Code>;

fn ok(code: Code) -> Result<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(code)
    }
}

/// Calls a function that writes one value and then has other arguments.
macro_rules! written {
    ($initial:expr, |$out:ident| $call:expr) => {{
        let mut value = $initial;
        let $out = &mut value;
        // SAFETY:
        // - Writes one value of this type; handles are alive, as the module says.
        let result = ok(unsafe { $call });
        result.map(|()| value)
    }};
}

/// Calls a function that only takes values.
macro_rules! called {
    ($call:expr) => {
        // SAFETY:
        // - Takes values; handles are alive, as the module says.
        ok(unsafe { $call })
    };
}

impl Driver {
    /// `CUDA error 700, CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access was encountered`, as far as the driver knows
    /// the code.
    pub(super) fn describe(&self, code: Code) -> String {
        let text_of = |function: Option<_>| {
            let function: TextFunction = function?;
            let text: Result<*const c_char> = written!(null(), |out| function(code, out));
            let text = text.ok().filter(|t| !t.is_null())?;
            // SAFETY:
            // - The driver's own text: it ends with a zero and is never freed.
            Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        match (text_of(self.get_error_name), text_of(self.get_error_string)) {
            (Some(name), Some(text)) => format!("CUDA error {code}, {name}: {text}"),
            (Some(name), None) => format!("CUDA error {code}, {name}"),
            _ => format!("CUDA error {code}"),
        }
    }

    pub(super) fn count_devices(&self) -> Result<usize> {
        let n: Result<i32> = written!(0, |out| (self.device_get_count)(out));
        n.map(|n| n.max(0) as usize)
    }

    pub(super) fn device(&self, ordinal: usize) -> Result<i32> {
        written!(0, |out| (self.device_get)(out, ordinal as i32))
    }

    pub(super) fn device_name(&self, device: i32) -> Result<String> {
        let mut name = [0u8; 256];
        // SAFETY:
        // - Writes at most the length that it is given, with a zero at the end.
        ok(unsafe { (self.device_get_name)(name.as_mut_ptr().cast::<c_char>(), name.len() as i32, device) })?;
        let text = name.split(|b| *b == 0).next().unwrap_or(&name);
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    pub(super) fn attribute(&self, device: i32, attribute: Attribute) -> Result<u32> {
        let value: Result<i32> = written!(0, |out| (self.device_get_attribute)(out, attribute as i32, device));
        value.map(|v| v.max(0) as u32)
    }

    pub(super) fn total_bytes(&self, device: i32) -> Result<usize> {
        written!(0, |out| (self.device_total_mem)(out, device))
    }

    /// The device's primary context. Without effect on one that is in use: whether a wait sleeps (`blocking`) or spins.
    pub(super) fn retain_context(&self, device: i32, blocking: bool) -> Result<Handle> {
        let scheduling = if blocking { CTX_SCHED_BLOCKING_SYNC } else { 0 };
        let with_map: Result<()> = called!((self.primary_ctx_set_flags)(device, CTX_MAP_HOST | scheduling));
        // Where addresses are unified host memory is mapped in any case. Old drivers refuse flags for a context that another
        // library of this process opened first: it does as it is.
        if with_map.is_err() {
            let _: Result<()> = called!((self.primary_ctx_set_flags)(device, scheduling));
        }
        written!(0, |out| (self.primary_ctx_retain)(out, device))
    }

    pub(super) fn release_context(&self, device: i32) -> Result<()> {
        called!((self.primary_ctx_release)(device))
    }

    pub(super) fn set_current(&self, context: Handle) -> Result<()> {
        called!((self.ctx_set_current)(context))
    }

    /// Free bytes of the current context's device.
    pub(super) fn free_bytes(&self) -> Result<usize> {
        let mut total = 0;
        written!(0, |free| (self.mem_get_info)(free, &mut total))
    }

    pub(super) fn alloc(&self, bytes: usize) -> Result<u64> {
        written!(0, |out| (self.mem_alloc)(out, bytes))
    }

    pub(super) fn free(&self, address: u64) -> Result<()> {
        called!((self.mem_free)(address))
    }

    /// Page-locked memory: its address for the CPU, and for the device.
    pub(super) fn alloc_host(&self, bytes: usize) -> Result<(*mut u8, u64)> {
        let flags = MEM_HOST_ALLOC_PORTABLE_AND_MAPPED;
        let host: Result<*mut c_void> = written!(null_mut(), |out| (self.mem_host_alloc)(out, bytes, flags));
        let host = host?;
        let device: Result<u64> = written!(0, |out| (self.mem_host_get_device_pointer)(out, host, 0));
        match device {
            Ok(device) => Ok((host.cast(), device)),
            Err(code) => {
                let _ = self.free_host(host.cast());
                Err(code)
            }
        }
    }

    pub(super) fn free_host(&self, host: *mut u8) -> Result<()> {
        called!((self.mem_free_host)(host.cast()))
    }

    /// From `from`, which must stay as it is until the stream was waited for, to a device address with room for it.
    pub(super) fn copy_to_device(&self, to: u64, from: &[u8], stream: Handle) -> Result<()> {
        called!((self.memcpy_to_device)(to, from.as_ptr().cast(), from.len(), stream))
    }

    /// As [`copy_to_device`](Driver::copy_to_device), the other way.
    pub(super) fn copy_to_host(&self, to: &mut [u8], from: u64, stream: Handle) -> Result<()> {
        called!((self.memcpy_to_host)(to.as_mut_ptr().cast(), from, to.len(), stream))
    }

    pub(super) fn copy_on_device(&self, to: u64, from: u64, bytes: usize, stream: Handle) -> Result<()> {
        called!((self.memcpy_on_device)(to, from, bytes, stream))
    }

    pub(super) fn fill_zero(&self, at: u64, bytes: usize, stream: Handle) -> Result<()> {
        called!((self.memset)(at, 0, bytes, stream))
    }

    pub(super) fn create_stream(&self) -> Result<Handle> {
        written!(0, |out| (self.stream_create)(out, STREAM_NON_BLOCKING))
    }

    pub(super) fn wait_for_stream(&self, stream: Handle) -> Result<()> {
        called!((self.stream_synchronize)(stream))
    }

    pub(super) fn destroy_stream(&self, stream: Handle) -> Result<()> {
        called!((self.stream_destroy)(stream))
    }

    pub(super) fn create_event(&self) -> Result<Handle> {
        written!(0, |out| (self.event_create)(out, 0))
    }

    pub(super) fn record_event(&self, event: Handle, stream: Handle) -> Result<()> {
        called!((self.event_record)(event, stream))
    }

    /// Waits for the second event.
    pub(super) fn ms_between(&self, first: Handle, second: Handle) -> Result<f32> {
        called!((self.event_synchronize)(second))?;
        written!(0.0, |out| (self.event_elapsed_time)(out, first, second))
    }

    pub(super) fn destroy_event(&self, event: Handle) -> Result<()> {
        called!((self.event_destroy)(event))
    }

    /// Machine code for the current context's device; the driver's words when it refuses.
    pub(super) fn compile(&self, ptx: &CString, name: &CString) -> std::result::Result<Vec<u8>, (Code, String)> {
        let mut log = vec![0u8; 8192];
        let mut options = [JIT_ERROR_LOG, JIT_ERROR_LOG_BYTES, JIT_GENERATE_LINE_INFO];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void, JIT_YES as *mut c_void];
        // The last one only where there are lines to keep.
        let n_options = if HAS_LINE_INFO { 3 } else { 2 };
        let (options, values) = (options.as_mut_ptr(), values.as_mut_ptr());
        let link: Result<Handle> = written!(0, |out| (self.link_create)(n_options, options, values, out));
        let link = link.map_err(|code| (code, String::new()))?;
        let (text, bytes) = (ptx.as_ptr().cast(), ptx.as_bytes_with_nul().len());
        let (no_options, no_values) = (null_mut(), null_mut());
        // The text is PTX with its closing zero, the size counts it; the driver keeps neither.
        let added =
            called!((self.link_add_data)(link, JIT_INPUT_PTX, text, bytes, name.as_ptr(), 0, no_options, no_values));
        let code = added.and_then(|()| {
            let mut bytes = 0;
            let cubin: Result<*mut c_void> = written!(null_mut(), |out| (self.link_complete)(link, out, &mut bytes));
            // SAFETY:
            // - The driver's memory until the link is destroyed, below.
            Ok(unsafe { std::slice::from_raw_parts(cubin?.cast::<u8>(), bytes) }.to_vec())
        });
        let _: Result<()> = called!((self.link_destroy)(link));
        // The options' arrays and the log lived until here.
        code.map_err(|code| {
            let text = log.split(|b| *b == 0).next().unwrap_or(&log);
            (code, String::from_utf8_lossy(text).trim().to_string())
        })
    }

    /// Loads machine code that a driver made; it need not be whole.
    pub(super) fn load_module(&self, cubin: &[u8]) -> Result<Handle> {
        written!(0, |out| (self.module_load_data)(out, cubin.as_ptr().cast()))
    }

    pub(super) fn unload_module(&self, module: Handle) -> Result<()> {
        called!((self.module_unload)(module))
    }

    pub(super) fn function(&self, module: Handle, name: &CString) -> Result<Handle> {
        written!(0, |out| (self.module_get_function)(out, module, name.as_ptr()))
    }

    pub(super) fn allow_shared_bytes(&self, function: Handle, bytes: u32) -> Result<()> {
        called!((self.func_set_attribute)(function, FUNC_MAX_DYNAMIC_SHARED_BYTES, bytes as i32))
    }

    /// `values` are of the function's parameters, each in the low bytes of a word: the caller has compared their sizes.
    /// `is_pdl`: it may begin before the launch before it has ended.
    pub(super) fn launch(
        &self,
        function: Handle,
        shape: LaunchShape,
        is_pdl: bool,
        stream: Handle,
        values: &mut [u64],
    ) -> Result<()> {
        const ARGS_MAX: usize = super::launch::ARGS_MAX;
        assert!(values.len() <= ARGS_MAX, "{} arguments; at most {ARGS_MAX}", values.len());
        // A null pointer ends the list: drivers count by the function's parameters, the emulator checks both.
        let mut pointers = [null_mut::<c_void>(); ARGS_MAX + 1];
        for (pointer, value) in pointers.iter_mut().zip(values) {
            *pointer = (value as *mut u64).cast();
        }
        let (arguments, no_extra) = (pointers.as_mut_ptr(), null_mut());
        let LaunchShape { grid, block, shared_bytes } = shape;
        if let Some(launch) = self.launch_kernel_ex.filter(|_| is_pdl) {
            // CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: 1 allows it.
            let mut value = [0; 16];
            value[0] = 1;
            let attribute = LaunchAttribute { id: 6, padding: 0, value };
            let config = LaunchConfig {
                grid,
                block: [block, 1, 1],
                shared_bytes,
                stream,
                attributes: &attribute,
                n_attributes: 1,
            };
            return called!(launch(&config, function, arguments, no_extra));
        }
        let [x, y, z] = grid;
        called!((self.launch_kernel)(function, x, y, z, block, 1, 1, shared_bytes, stream, arguments, no_extra))
    }

    /// `false` when the driver cannot record.
    pub(super) fn begin_capture(&self, stream: Handle) -> Result<bool> {
        let all = self.stream_end_capture.is_some() && self.graph_launch.is_some();
        let instantiates = self.graph_instantiate_with_flags.is_some() || self.graph_instantiate.is_some();
        let Some(begin) = self.stream_begin_capture.filter(|_| all && instantiates) else { return Ok(false) };
        match called!(begin(stream, CAPTURE_THREAD_LOCAL)) {
            Err(NOT_SUPPORTED) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// What was recorded; null when the recording was broken.
    pub(super) fn end_capture(&self, stream: Handle) -> Result<Handle> {
        let end = self.stream_end_capture.ok_or(NOT_SUPPORTED)?;
        written!(0, |out| end(stream, out))
    }

    /// CUDA 11.4's function, or the one of CUDA 10: what newer headers call `cuGraphInstantiate` is the former.
    pub(super) fn instantiate(&self, graph: Handle) -> Result<Handle> {
        match (self.graph_instantiate_with_flags, self.graph_instantiate) {
            (Some(with_flags), _) => written!(0, |out| with_flags(out, graph, 0)),
            (None, Some(old)) => written!(0, |out| old(out, graph, null_mut(), null_mut(), 0)),
            (None, None) => Err(NOT_SUPPORTED),
        }
    }

    pub(super) fn launch_graph(&self, executable: Handle, stream: Handle) -> Result<()> {
        let launch = self.graph_launch.ok_or(NOT_SUPPORTED)?;
        called!(launch(executable, stream))
    }

    pub(super) fn destroy_graph(&self, graph: Handle) {
        if let Some(destroy) = self.graph_destroy {
            let _: Result<()> = called!(destroy(graph));
        }
    }

    pub(super) fn destroy_executable(&self, executable: Handle) {
        if let Some(destroy) = self.graph_exec_destroy {
            let _: Result<()> = called!(destroy(executable));
        }
    }
}
