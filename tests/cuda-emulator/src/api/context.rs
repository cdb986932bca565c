//! Primary contexts.

use std::ffi::c_int;

use super::{answer, put};
use crate::error::Error;
use crate::state::{self, Context};

fn of(device: c_int) -> Result<&'static Context, Error> {
    Context::of(usize::try_from(device).map_err(|_| Error::INVALID_DEVICE)?)
}

#[no_mangle]
pub extern "C" fn cuDevicePrimaryCtxRetain(context: *mut usize, device: c_int) -> u32 {
    answer(|| {
        let found = of(device)?;
        put(context, found.handle())?;
        found.retain();
        Ok(())
    })
}

#[no_mangle]
pub extern "C" fn cuDevicePrimaryCtxRelease(device: c_int) -> u32 {
    answer(|| of(device)?.release())
}

#[no_mangle]
pub extern "C" fn cuDevicePrimaryCtxReset(device: c_int) -> u32 {
    answer(|| {
        of(device)?.reset();
        Ok(())
    })
}

/// As a 10.2 driver: flags cannot change while the context is in use.
#[no_mangle]
pub extern "C" fn cuDevicePrimaryCtxSetFlags(device: c_int, flags: u32) -> u32 {
    const SCHEDULING_MAX: u32 = 4;
    const KNOWN: u32 = 0x1f;
    answer(|| match of(device)? {
        _ if flags & !KNOWN != 0 || flags & 7 > SCHEDULING_MAX => Err(Error::INVALID_VALUE),
        context if context.n_retained() > 0 => Err(Error::PRIMARY_CONTEXT_ACTIVE),
        _ => Ok(()),
    })
}

#[no_mangle]
pub extern "C" fn cuCtxSetCurrent(context: usize) -> u32 {
    answer(|| {
        state::check_ready()?;
        state::set_current(if context == 0 { None } else { Some(Context::from_handle(context)?) });
        Ok(())
    })
}

#[no_mangle]
pub extern "C" fn cuCtxGetCurrent(context: *mut usize) -> u32 {
    answer(|| {
        state::check_ready()?;
        put(context, state::current().map_or(0, Context::handle))
    })
}

#[no_mangle]
pub extern "C" fn cuCtxGetDevice(device: *mut c_int) -> u32 {
    answer(|| put(device, state::working()?.ordinal as c_int))
}

#[no_mangle]
pub extern "C" fn cuCtxSynchronize() -> u32 {
    answer(|| {
        state::working()?;
        state::check_no_capture()
    })
}
