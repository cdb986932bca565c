//! Training on a CUDA device, each architecture's kernels: against PyTorch and PEFT, against the CPU, and against itself. The
//! emulator stands in where the machine has no GPU.

/// What a job leaves on a disk in memory, whenever it was stopped.
mod jobs;
/// Gradients and losses of the peers.
mod parity;
/// The program: its memory plan, its refusals, SIGKILL.
mod program;
/// Micro-batches that are replayed.
mod recordings;
/// One step against the CPU's and against itself.
mod steps;

#[path = "../../cuda-emulator/tests/common/mod.rs"]
mod common;
#[allow(dead_code)]
#[path = "../train_program/library.rs"]
mod library;
#[allow(dead_code)]
#[path = "../training/support.rs"]
mod networks;
#[allow(dead_code)]
#[path = "../train_program/support.rs"]
mod support;

use std::sync::Arc;

use lichen_kernels::cuda::Cuda;
use lichen_kernels::Device;
use lichen_tests::heap::CountingAllocator;

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator;

/// The devices of this machine, the emulator built first where cargo is there to build it. Of the emulator one of each family:
/// a step of a tiny model takes it a second.
fn devices() -> Vec<Arc<Device>> {
    let of_a_family = |cuda: &&Cuda| !cuda.info().is_emulated() || [53, 72, 80].contains(&cuda.arch());
    opened().iter().filter(of_a_family).map(|cuda| Arc::new(Device::Cuda(cuda.clone()))).collect()
}

/// The oldest family and the newest.
fn two_devices() -> Vec<Arc<Device>> {
    let mut devices = devices();
    if devices.len() > 2 {
        devices.drain(1..devices.len() - 1);
    }
    devices
}

fn opened() -> &'static [Cuda] {
    if std::env::var_os(lichen_tests::programs::PROGRAMS).is_none() {
        lichen_tests::programs::cuda_emulator();
    }
    common::opened()
}

fn arch(device: &Device) -> u32 {
    common::cuda(device).arch()
}
