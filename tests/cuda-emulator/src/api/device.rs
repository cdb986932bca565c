//! Initialisation, versions, errors and devices.

use std::ffi::{c_char, c_int};
use std::ptr;
use std::sync::Once;

use super::{answer, put};
use crate::environment::environment;
use crate::error::{self, Error};
use crate::{block, device, foreign, state};

#[no_mangle]
pub extern "C" fn cuInit(flags: u32) -> u32 {
    answer(|| {
        if flags != 0 {
            return Err(Error::INVALID_VALUE);
        }
        if let Some(why) = foreign::missing() {
            eprintln!("lichen emulator: {}", why.to_string_lossy());
            return Err(Error::NO_DEVICE);
        }
        static CONNECT: Once = Once::new();
        CONNECT.call_once(|| foreign::connect(block::calls()));
        state::set_ready();
        Ok(())
    })
}

#[no_mangle]
pub extern "C" fn cuDriverGetVersion(version: *mut c_int) -> u32 {
    answer(|| put(version, environment().driver_version))
}

#[no_mangle]
pub extern "C" fn cuGetErrorName(code: u32, name: *mut *const c_char) -> u32 {
    answer(|| {
        let found = error::name(code);
        put(name, found.map_or(ptr::null(), |n| n.as_ptr()))?;
        found.map(|_| ()).ok_or(Error::INVALID_VALUE)
    })
}

#[no_mangle]
pub extern "C" fn cuGetErrorString(code: u32, text: *mut *const c_char) -> u32 {
    answer(|| {
        let found = error::text(code);
        put(text, found.map_or(ptr::null(), |t| t.as_ptr()))?;
        found.map(|_| ()).ok_or(Error::INVALID_VALUE)
    })
}

#[no_mangle]
pub extern "C" fn cuDeviceGetCount(count: *mut c_int) -> u32 {
    answer(|| {
        state::check_ready()?;
        put(count, environment().devices.len() as c_int)
    })
}

/// A device's handle is its ordinal.
fn checked(device: c_int) -> Result<usize, Error> {
    state::check_ready()?;
    let ordinal = usize::try_from(device).map_err(|_| Error::INVALID_DEVICE)?;
    device::capability(ordinal)?;
    Ok(ordinal)
}

#[no_mangle]
pub extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> u32 {
    answer(|| put(device, checked(ordinal)? as c_int))
}

#[no_mangle]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, device: c_int) -> u32 {
    answer(|| {
        let text = device::name(checked(device)?)?;
        let room = usize::try_from(len).ok().filter(|n| *n > 0 && !name.is_null()).ok_or(Error::INVALID_VALUE)?;
        let n = text.len().min(room - 1);
        // SAFETY:
        // - The caller gives `len` bytes.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr().cast(), name, n);
            *name.add(n) = 0;
        }
        Ok(())
    })
}

#[no_mangle]
pub extern "C" fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) -> u32 {
    answer(|| {
        let mut bytes = *b"lichen emulated ";
        bytes[15] = checked(device)? as u8;
        put(uuid, bytes)
    })
}

#[no_mangle]
pub extern "C" fn cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int) -> u32 {
    answer(|| put(value, device::attribute(checked(device)?, attribute)?))
}

#[no_mangle]
pub extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> u32 {
    answer(|| {
        checked(device)?;
        put(bytes, environment().memory_bytes)
    })
}
