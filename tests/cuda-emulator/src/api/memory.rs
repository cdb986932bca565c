//! Device and pinned memory, copies and fills.

use std::ffi::c_void;

use super::{answer, put};
use crate::environment::environment;
use crate::error::{Error, Result};
use crate::graph::Work;
use crate::memory::{self, Kind};
use crate::{device, state};

/// Stream 0: of calls that name none.
const LEGACY: usize = 0;

#[no_mangle]
pub extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32 {
    answer(|| {
        let context = state::working()?;
        put(free, environment().memory_bytes - memory::used(context.ordinal))?;
        put(total, environment().memory_bytes)
    })
}

#[no_mangle]
pub extern "C" fn cuMemAlloc_v2(pointer: *mut u64, bytes: usize) -> u32 {
    answer(|| {
        let context = state::working()?;
        state::check_no_capture()?;
        put(pointer, memory::alloc(Kind::Device, Some(context.ordinal), bytes)? as u64)
    })
}

#[no_mangle]
pub extern "C" fn cuMemFree_v2(pointer: u64) -> u32 {
    answer(|| {
        state::working()?;
        state::check_no_capture()?;
        if pointer == 0 {
            return Ok(());
        }
        memory::free(Kind::Device, pointer as usize)
    })
}

/// Boards whose GPU has no memory of its own pay for pinned memory too.
#[no_mangle]
pub extern "C" fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, flags: u32) -> u32 {
    const KNOWN: u32 = 7;
    answer(|| {
        let context = state::working()?;
        state::check_no_capture()?;
        if flags & !KNOWN != 0 {
            return Err(Error::INVALID_VALUE);
        }
        let is_shared = device::is_integrated(device::capability(context.ordinal)?);
        put(pointer, memory::alloc(Kind::Pinned, is_shared.then_some(context.ordinal), bytes)? as *mut c_void)
    })
}

#[no_mangle]
pub extern "C" fn cuMemFreeHost(pointer: *mut c_void) -> u32 {
    answer(|| {
        state::working()?;
        state::check_no_capture()?;
        memory::free(Kind::Pinned, pointer as usize)
    })
}

#[no_mangle]
pub extern "C" fn cuMemHostGetDevicePointer_v2(device: *mut u64, host: *mut c_void, flags: u32) -> u32 {
    answer(|| {
        state::working()?;
        if flags != 0 || !memory::is_pinned(host as usize) {
            return Err(Error::INVALID_VALUE);
        }
        put(device, host as u64)
    })
}

/// Copies between the host and the device, or on the device; the device's ends are checked.
fn copy(to: (usize, bool), from: (usize, bool), bytes: usize, stream: Option<usize>) -> Result<()> {
    let context = state::working()?;
    if stream.is_none() {
        state::check_no_capture()?;
    }
    if bytes == 0 {
        return Ok(());
    }
    for (address, _) in [to, from].iter().filter(|(_, is_device)| *is_device) {
        memory::check(*address, bytes)?;
    }
    if to.0 == 0 || from.0 == 0 {
        return Err(Error::INVALID_VALUE);
    }
    state::enqueue(stream.unwrap_or(LEGACY), context, Work::Copy { to: to.0, from: from.0, bytes })
}

#[no_mangle]
pub extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) -> u32 {
    answer(|| copy((to as usize, true), (from as usize, false), bytes, None))
}

#[no_mangle]
pub extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) -> u32 {
    answer(|| copy((to as usize, false), (from as usize, true), bytes, None))
}

#[no_mangle]
pub extern "C" fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> u32 {
    answer(|| copy((to as usize, true), (from as usize, true), bytes, None))
}

#[no_mangle]
pub extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: usize) -> u32 {
    answer(|| copy((to as usize, true), (from as usize, false), bytes, Some(stream)))
}

#[no_mangle]
pub extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: usize) -> u32 {
    answer(|| copy((to as usize, false), (from as usize, true), bytes, Some(stream)))
}

#[no_mangle]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> u32 {
    answer(|| copy((to as usize, true), (from as usize, true), bytes, Some(stream)))
}

fn fill(to: u64, value: u32, width: usize, count: usize, stream: Option<usize>) -> Result<()> {
    let context = state::working()?;
    if stream.is_none() {
        state::check_no_capture()?;
    }
    let bytes = count.checked_mul(width).ok_or(Error::INVALID_VALUE)?;
    if bytes == 0 {
        return Ok(());
    }
    if !(to as usize).is_multiple_of(width) {
        return Err(Error::INVALID_VALUE);
    }
    memory::check(to as usize, bytes)?;
    state::enqueue(stream.unwrap_or(LEGACY), context, Work::Fill { to: to as usize, value, width, count })
}

#[no_mangle]
pub extern "C" fn cuMemsetD8_v2(to: u64, value: u8, count: usize) -> u32 {
    answer(|| fill(to, value.into(), 1, count, None))
}

#[no_mangle]
pub extern "C" fn cuMemsetD32_v2(to: u64, value: u32, count: usize) -> u32 {
    answer(|| fill(to, value, 4, count, None))
}

#[no_mangle]
pub extern "C" fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: usize) -> u32 {
    answer(|| fill(to, value.into(), 1, count, Some(stream)))
}

#[no_mangle]
pub extern "C" fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: usize) -> u32 {
    answer(|| fill(to, value, 4, count, Some(stream)))
}
