//! What the emulator promises, each with a kernel or a call that would show it broken.

#[macro_use]
mod raw;

mod calls;
mod faults;
mod instructions;
mod symbols;
mod tensor;
mod threads;
