//! Numbers, shapes, weight formats and devices. This crate has never heard of text, a file, a model or a session.
#![deny(unsafe_code)]

pub mod formats;
pub mod matrix;

pub use formats::Format;
pub use matrix::{Matrix, SharedBytes};
