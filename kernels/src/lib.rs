//! Numbers, shapes, weight formats and devices. This crate has never heard of text, a file, a model or a session.
#![deny(unsafe_code)]

pub mod cuda;
pub mod device;
pub mod formats;
pub mod math;
pub mod matrix;
pub mod ops;
pub mod pool;
pub mod readback;
pub mod simd;
pub mod staged;
pub mod step;
pub mod view;

pub use cuda::DeviceError;
pub use device::{Cpu, Device};
pub use formats::Format;
pub use matrix::{Matrix, PackedMatrix, SharedBytes};
pub use readback::Readback;
pub use simd::Isa;
pub use staged::Staged;
pub use step::{Row, Step, NO_SLOT};
pub use view::{Buffer, View, ViewMut};
