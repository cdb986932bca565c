//! Where an op runs: a closed set, so an enum.

use crate::cuda::{Cuda, DeviceError};
use crate::pool::ThreadPool;
use crate::simd::Isa;

/// A device and everything an op needs to run there.
pub enum Device {
    Cpu(Cpu),
    Cuda(Cuda),
}

/// The CPU backend: threads, and the instruction set they use.
pub struct Cpu {
    pub pool: ThreadPool,
    pub isa: Isa,
}

impl Device {
    /// The CPU with `n_threads` threads and the best instruction set it has.
    pub fn cpu(n_threads: usize) -> std::io::Result<Device> {
        Ok(Device::Cpu(Cpu { pool: ThreadPool::new(n_threads)?, isa: Isa::detect() }))
    }

    /// The CPU with a given instruction set, for comparing them; `None` when this machine lacks it.
    pub fn cpu_with_isa(n_threads: usize, isa: Isa) -> Option<Device> {
        if !isa.is_available() {
            return None;
        }
        Some(Device::Cpu(Cpu { pool: ThreadPool::new(n_threads).ok()?, isa }))
    }

    /// `cpu (avx512, 2 threads)`.
    pub fn describe(&self) -> String {
        match self {
            Device::Cpu(cpu) => {
                let n = cpu.pool.n_threads();
                format!("cpu ({}, {n} thread{})", cpu.isa.name(), if n == 1 { "" } else { "s" })
            }
            Device::Cuda(cuda) => format!("cuda ({}, sm_{} kernels)", cuda.info().name, cuda.arch()),
        }
    }

    /// Waits for everything that was started, and reports the first thing that went wrong since the device was opened. The
    /// CPU has always finished.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        match self {
            Device::Cpu(_) => Ok(()),
            Device::Cuda(cuda) => cuda.synchronize(),
        }
    }
}
