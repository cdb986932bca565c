//! Modules from PTX, and the linker that makes a "cubin" of it: the same PTX behind a line that names its target.

use std::ffi::{c_char, c_int, c_void, CStr};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::Mutex;

use super::{answer, complain, put, text};
use crate::error::{Error, Result};
use crate::ptx::{self, Ptx};
use crate::state::{self, Context, Function, Link, Module, FUNCTIONS, LINKS, MODULES};
use crate::{device, environment, foreign};

/// What a linked image begins with.
const MAGIC: &str = "lichen emulated cubin sm_";
/// The newest PTX of a CUDA 10.2 driver.
const PTX_MAX_10_2: u32 = 65;
/// Of CUDA 11.8, the last before 12.
const PTX_MAX_11_8: u32 = 78;
const SHARED_DEFAULT: u32 = 48 << 10;

const JIT_ERROR_LOG_BUFFER: c_int = 5;
const JIT_ERROR_LOG_BUFFER_BYTES: c_int = 6;
const INPUT_PTX: c_int = 1;

/// Where the caller wants to read what went wrong.
struct Log {
    buffer: *mut u8,
    bytes: usize,
}

impl Log {
    unsafe fn new(n: u32, options: *const c_int, values: *const *mut c_void) -> Log {
        let mut log = Log { buffer: std::ptr::null_mut(), bytes: 0 };
        for i in 0..n as usize {
            // SAFETY:
            // - The caller gives n options and n values; a size is passed in the place of a pointer.
            let (option, value) = unsafe { (*options.add(i), *values.add(i)) };
            match option {
                JIT_ERROR_LOG_BUFFER => log.buffer = value.cast(),
                JIT_ERROR_LOG_BUFFER_BYTES => log.bytes = value as usize,
                _ => {}
            }
        }
        log
    }

    fn write(&self, what: &str) {
        if self.buffer.is_null() || self.bytes == 0 {
            return;
        }
        let n = what.len().min(self.bytes - 1);
        // SAFETY:
        // - The caller gives a buffer of this size.
        unsafe {
            std::ptr::copy_nonoverlapping(what.as_ptr(), self.buffer, n);
            *self.buffer.add(n) = 0;
        }
    }
}

/// Reads PTX as the driver of this device would.
fn read_ptx(text: &str, context: &Context, log: &Log) -> Result<Ptx> {
    let refuse = |error: Error, what: String| {
        log.write(&what);
        Err(error)
    };
    let parsed = match ptx::parse(text) {
        Ok(parsed) => parsed,
        Err(what) => return refuse(Error::INVALID_PTX, format!("ptxas fatal: {what}")),
    };
    let capability = device::capability(context.ordinal)?;
    if parsed.target > capability {
        let what = format!("ptxas fatal: target sm_{} is higher than the device's sm_{capability}", parsed.target);
        return refuse(Error::INVALID_PTX, what);
    }
    if parsed.is_exact && parsed.target != capability {
        let what = format!("ptxas fatal: target sm_{}a is not the device's sm_{capability}", parsed.target);
        return refuse(Error::INVALID_PTX, what);
    }
    if (11000..12000).contains(&environment::environment().driver_version) && parsed.version > PTX_MAX_11_8 {
        return refuse(Error::INVALID_PTX, format!("ptxas fatal: unsupported .version {}", parsed.version));
    }
    // A device newer than the driver's time has, in truth, a newer driver.
    if environment::environment().driver_version < 11000 && capability < 80 && parsed.version > PTX_MAX_10_2 {
        return refuse(Error::INVALID_PTX, format!("ptxas fatal: unsupported .version {}", parsed.version));
    }
    Ok(parsed)
}

fn load(module: *mut usize, image: *const c_char, log: &Log) -> Result<()> {
    let context = state::working()?;
    state::check_no_capture()?;
    let text = text(image).map_err(|_| Error::INVALID_IMAGE)?;
    let text = match text.strip_prefix(MAGIC) {
        None => text,
        Some(rest) => {
            let (target, ptx) = rest.split_once('\n').ok_or(Error::INVALID_IMAGE)?;
            if target.parse() != Ok(device::capability(context.ordinal)?) {
                return Err(Error::NO_BINARY_FOR_GPU);
            }
            ptx
        }
    };
    let ptx = read_ptx(text, context, log)?;
    put(module, MODULES.insert(Module { context: context.handle(), target: ptx.target, ptx }))
}

#[no_mangle]
pub extern "C" fn cuModuleLoadData(module: *mut usize, image: *const c_char) -> u32 {
    answer(|| load(module, image, &Log { buffer: std::ptr::null_mut(), bytes: 0 }))
}

#[no_mangle]
pub unsafe extern "C" fn cuModuleLoadDataEx(
    module: *mut usize,
    image: *const c_char,
    n_options: u32,
    options: *const c_int,
    values: *const *mut c_void,
) -> u32 {
    // SAFETY:
    // - The caller of the driver gives what cuda.h asks for.
    let log = unsafe { Log::new(n_options, options, values) };
    answer(|| load(module, image, &log))
}

#[no_mangle]
pub extern "C" fn cuModuleUnload(module: usize) -> u32 {
    answer(|| {
        state::check_ready()?;
        MODULES.remove(module).map(|_| ())
    })
}

#[no_mangle]
pub extern "C" fn cuModuleGetFunction(function: *mut usize, module: usize, name: *const c_char) -> u32 {
    answer(|| {
        state::working()?;
        let module = MODULES.get(module)?;
        let name = text(name)?;
        let param_bytes = module.ptx.entries.get(name).ok_or(Error::NOT_FOUND)?.clone();
        let Some(kernel) = foreign::find(module.target, name) else {
            complain(&format!("kernel {name} is in the PTX of sm_{} and not in the emulator's build", module.target));
            return Err(Error::NOT_FOUND);
        };
        put(
            function,
            FUNCTIONS.insert(Function {
                kernel,
                context: module.context,
                ptx_version: module.ptx.version,
                param_bytes,
                max_dynamic_shared: AtomicU32::new(SHARED_DEFAULT),
                has_asked_for_shared: AtomicBool::new(false),
            }),
        )
    })
}

#[no_mangle]
pub extern "C" fn cuLinkCreate_v2(
    _n_options: u32,
    _options: *const c_int,
    _values: *const *mut c_void,
    link: *mut usize,
) -> u32 {
    answer(|| {
        state::working()?;
        put(link, LINKS.insert(Link { ptx: Mutex::new(None), image: Mutex::new(Vec::new()) }))
    })
}

#[no_mangle]
pub unsafe extern "C" fn cuLinkAddData_v2(
    link: usize,
    kind: c_int,
    data: *const c_void,
    bytes: usize,
    _name: *const c_char,
    n_options: u32,
    options: *const c_int,
    values: *const *mut c_void,
) -> u32 {
    answer(|| {
        let context = state::working()?;
        let link = LINKS.get(link)?;
        if data.is_null() || kind != INPUT_PTX {
            return Err(complain("the linker takes PTX alone"));
        }
        // SAFETY:
        // - The caller gives this many bytes.
        let data = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) };
        let text = CStr::from_bytes_until_nul(data).map_or(data, CStr::to_bytes);
        let text = std::str::from_utf8(text).map_err(|_| Error::INVALID_PTX)?;
        // SAFETY:
        // - The caller of the driver gives what cuda.h asks for.
        let log = unsafe { Log::new(n_options, options, values) };
        read_ptx(text, context, &log)?;
        let mut ptx = state::lock(&link.ptx);
        if ptx.replace(text.to_string()).is_some() {
            return Err(complain("the linker takes one piece of PTX"));
        }
        Ok(())
    })
}

#[no_mangle]
pub extern "C" fn cuLinkComplete(link: usize, image: *mut *mut c_void, bytes: *mut usize) -> u32 {
    answer(|| {
        let context = state::working()?;
        let link = LINKS.get(link)?;
        let ptx = state::lock(&link.ptx).clone().ok_or(Error::INVALID_VALUE)?;
        let text = format!("{MAGIC}{}\n{ptx}\0", device::capability(context.ordinal)?);
        let mut stored = state::lock(&link.image);
        *stored = text.into_bytes();
        put(image, stored.as_mut_ptr().cast())?;
        put(bytes, stored.len())
    })
}

#[no_mangle]
pub extern "C" fn cuLinkDestroy(link: usize) -> u32 {
    answer(|| {
        state::check_ready()?;
        LINKS.remove(link).map(|_| ())
    })
}
