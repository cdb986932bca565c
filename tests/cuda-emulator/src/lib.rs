//! A CUDA driver that runs our kernels on the CPU.
//!
//! The library is libcuda.so: it exports the symbols of a CUDA 10.2 driver that the product may use, and no newer one. The
//! kernels are the sources of kernels/src/ops, compiled as C++ (`foreign`); a thread of a block is a fiber (`block`),
//! blocks are spread over a few threads of the system (`launch`). Device memory ends at guard pages (`memory`). What the
//! module's PTX says of targets, kernels and parameters is held against the compiled kernels (`ptx`).
//!
//! What it is told, through the environment:
//! - `LICHEN_EMULATOR_DEVICES`: capabilities, in the order of ordinals; `53` by default.
//! - `LICHEN_EMULATOR_MEMORY_MIB`: of each device; 4096 by default.
//! - `LICHEN_EMULATOR_DRIVER`: the version reported; 10020 by default.
//! - `LICHEN_EMULATOR_THREADS`: threads of the system that run blocks; the processor's by default.
//! - `LICHEN_EMULATOR_SEED`: of the order in which fibers and blocks run; 1 by default.
//! - `LICHEN_EMULATOR_FAIL_ALLOC=n`: the n-th allocation of device memory fails.
//! - `LICHEN_EMULATOR_LOSE_AFTER=n`: the n-th launch fails, and with it the context, as if the device had gone.
//! - `LICHEN_EMULATOR_FAULT=sticky`: a fault in a kernel becomes an error of the context; otherwise the process is aborted.
#![allow(clippy::missing_safety_doc)]

mod api;
mod block;
mod copies;
mod device;
mod environment;
mod error;
mod fault;
mod fiber;
mod foreign;
mod graph;
mod launch;
mod memory;
mod order;
mod ptx;
mod shared;
mod state;
