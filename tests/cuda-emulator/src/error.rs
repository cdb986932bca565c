//! The driver's error codes.

use std::ffi::CStr;

/// A CUresult that is not 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error(pub u32);

pub type Result<T> = std::result::Result<T, Error>;

macro_rules! errors {
    ($($name:ident = $code:literal, $text:literal;)*) => {
        impl Error {
            $(pub const $name: Error = Error($code);)*
        }
        /// Name and description of every code this driver gives.
        const TABLE: &[(u32, &CStr, &CStr)] = &[$(($code, named!($name), $text)),*];
    };
}
macro_rules! named {
    ($name:ident) => {
        match CStr::from_bytes_with_nul(concat!("CUDA_ERROR_", stringify!($name), "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!("no zero byte inside a name"),
        }
    };
}

errors! {
    INVALID_VALUE = 1, c"invalid argument";
    OUT_OF_MEMORY = 2, c"out of memory";
    NOT_INITIALIZED = 3, c"initialization error";
    NO_DEVICE = 100, c"no CUDA-capable device is detected";
    INVALID_DEVICE = 101, c"invalid device ordinal";
    INVALID_IMAGE = 200, c"device kernel image is invalid";
    INVALID_CONTEXT = 201, c"invalid device context";
    NO_BINARY_FOR_GPU = 209, c"no kernel image is available for execution on the device";
    INVALID_PTX = 218, c"a PTX JIT compilation failed";
    INVALID_HANDLE = 400, c"invalid resource handle";
    NOT_FOUND = 500, c"named symbol not found";
    ILLEGAL_ADDRESS = 700, c"an illegal memory access was encountered";
    PRIMARY_CONTEXT_ACTIVE = 708, c"primary context is already active";
    MISALIGNED_ADDRESS = 716, c"misaligned address";
    LAUNCH_FAILED = 719, c"unspecified launch failure";
    NOT_SUPPORTED = 801, c"operation not supported";
    STREAM_CAPTURE_UNSUPPORTED = 900, c"operation not permitted when stream is capturing";
    STREAM_CAPTURE_INVALIDATED = 901, c"operation failed due to a previous error during capture";
    STREAM_CAPTURE_IMPLICIT = 906, c"operation would make the legacy stream depend on a capturing blocking stream";
}

pub fn name(code: u32) -> Option<&'static CStr> {
    if code == 0 {
        return Some(c"CUDA_SUCCESS");
    }
    TABLE.iter().find(|row| row.0 == code).map(|row| row.1)
}

/// Where the emulator itself is what is missing, the description says so.
pub fn text(code: u32) -> Option<&'static CStr> {
    match code {
        0 => Some(c"no error"),
        _ if code == Error::NO_DEVICE.0 => {
            Some(crate::foreign::missing().unwrap_or(c"no CUDA-capable device is detected"))
        }
        _ => TABLE.iter().find(|row| row.0 == code).map(|row| row.2),
    }
}
