//! The workstation half of Lichen.
#![deny(unsafe_code)]

pub mod adapter;
pub mod demo;
pub mod quantize;
