//! The symbols of the driver, as cuda.h of CUDA 10.2 declares them. Results are CUresult; out-pointers must not be null.

mod context;
mod device;
mod graph;
mod kernel;
mod memory;
mod module;
mod stream;

use std::ffi::{c_char, CStr};

use crate::error::{Error, Result};

/// The code of an outcome.
fn answer(f: impl FnOnce() -> Result<()>) -> u32 {
    match f() {
        Ok(()) => 0,
        Err(error) => error.0,
    }
}

/// Writes a result where the caller wants it.
fn put<T>(to: *mut T, value: T) -> Result<()> {
    if to.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY:
    // - The caller of the driver gives room for a T, or null.
    unsafe { to.write(value) };
    Ok(())
}

/// A C string of the caller.
fn text<'a>(from: *const c_char) -> Result<&'a str> {
    if from.is_null() {
        return Err(Error::INVALID_VALUE);
    }
    // SAFETY:
    // - The caller of the driver gives a string that ends with a zero byte, or null.
    unsafe { CStr::from_ptr(from) }.to_str().map_err(|_| Error::INVALID_VALUE)
}

/// What only a programmer can have done wrong is worth a sentence.
fn complain(what: &str) -> Error {
    eprintln!("lichen emulator: {what}");
    Error::INVALID_VALUE
}
