//! What a memory plan depends on beside the job: memory, and who computes. A plan can be made for a machine that is not here.

use lichen_kernels::cuda::Cuda;
use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::ops::{matmul, modules_for, modules_for_training};
use lichen_kernels::{Device, Format};
use lichen_runtime::memory_plan::available_memory::available_bytes;
use lichen_runtime::{Error, Result};

/// ActivationSizes whose logits exist at once on a CPU, at most: 134 MB over 262,144 entries. The head is decoded once for them: with 64
/// that was an eighth of the loss's time.
pub const LOSS_ROWS: usize = 128;
/// Of a GPU's memory, what the logits of a chunk may take: a sixty-fourth, so that 80 GB hold 1,152 rows of Gemma 3's 262,144
/// entries and 4 GB hold 64. The head is decoded once for a chunk.
const LOGITS_SHARE: usize = 64;
/// Rows of a chunk on a GPU, at least and at most; above the most, the head's product fills any GPU.
const LOSS_ROWS_MIN: usize = 16;
const LOSS_ROWS_MAX: usize = 4096;

/// Where a job computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// What the system has left, where that is known.
    pub host_bytes: Option<usize>,
    /// Of the CPU, when it computes.
    pub n_threads: usize,
    /// `None` when the CPU computes.
    pub gpu: Option<Gpu>,
}

/// A GPU's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// All of it: of a board that shares it, the board's.
    pub total_bytes: usize,
    /// What is left.
    pub free_bytes: usize,
    /// Shares the CPU's memory.
    pub is_integrated: bool,
    /// Multiplies bf16 for gradients of weights, in memory of its own.
    pub has_bf16: bool,
}

impl Gpu {
    /// # Errors
    /// The driver cannot say what is left.
    pub fn of(cuda: &Cuda) -> Result<Gpu> {
        let info = cuda.info();
        let free_bytes = cuda.free_bytes()?;
        let has_bf16 = matmul::Scratch::gradients_are_bf16(cuda);
        Ok(Gpu { total_bytes: info.total_bytes, free_bytes, is_integrated: info.is_integrated, has_bf16 })
    }
}

impl Machine {
    /// This machine, with this device.
    ///
    /// # Errors
    /// The device cannot say what it has left.
    pub fn of(device: &Device) -> Result<Machine> {
        let host_bytes = available_bytes();
        Ok(match device {
            Device::Cpu(cpu) => Machine { host_bytes, n_threads: cpu.pool.n_threads(), gpu: None },
            Device::Cuda(cuda) => Machine { host_bytes, n_threads: 0, gpu: Some(Gpu::of(cuda)?) },
        })
    }

    /// Another machine, that has nothing else to do. Its GPU is one that multiplies bf16: an older one takes less.
    pub fn with_gpu(total_bytes: usize, is_integrated: bool) -> Machine {
        let gpu = Gpu { total_bytes, free_bytes: total_bytes, is_integrated, has_bf16: true };
        Machine { host_bytes: is_integrated.then_some(total_bytes), n_threads: 0, gpu: Some(gpu) }
    }

    /// Rows whose logits exist at once, at most. A function of what the machine is, not of what it has left: sums over such a
    /// chunk would be others else.
    pub fn loss_rows(&self, vocab_size: usize) -> usize {
        match self.gpu {
            None => LOSS_ROWS,
            Some(gpu) => {
                let rows = gpu.total_bytes / LOGITS_SHARE / (4 * vocab_size);
                // Whole tiles of a product.
                let tiles = if rows >= 128 { rows / 64 * 64 } else { rows };
                tiles.clamp(LOSS_ROWS_MIN, LOSS_ROWS_MAX)
            }
        }
    }
}

/// Loads what training over weights of these formats launches, before they take memory that the driver's compiler needs; with
/// a format of keys and values, what answers launch too.
///
/// # Errors
/// The driver refuses a kernel.
pub fn prepare_kernels(device: &Device, formats: &[Format], answers: Option<KvFormat>) -> Result<()> {
    if let Device::Cuda(cuda) = device {
        let training = modules_for_training(formats);
        let answers = answers.map(|kv| modules_for(formats, kv));
        cuda.prepare(&|module| training(module) || answers.as_ref().is_some_and(|wants| wants(module)))?;
    }
    Ok(())
}

/// The CPU with one thread: where weights are before a network takes them over.
///
/// # Errors
/// The thread cannot be started.
pub fn host() -> Result<Device> {
    Device::cpu(1).map_err(|e| Error::limit(format!("a thread could not be started: {e}")))
}
