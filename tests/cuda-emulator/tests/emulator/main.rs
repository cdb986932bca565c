//! What the emulator promises, each with a kernel or a call that would show it broken.
// `call!` takes the arguments of C functions, which are themselves calls at times.
#![allow(clippy::macro_metavars_in_unsafe)]

#[path = "../common/newest.rs"]
mod newest;
#[macro_use]
mod raw;

mod calls;
mod faults;
mod instructions;
mod symbols;
mod tensor;
mod threads;
