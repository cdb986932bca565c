//! The bill of a model on a GPU. The driver's own memory (context, machine code) is its own and not on it.

use lichen_kernels::cuda::{Arena, Cuda, PackedMatrix};
use lichen_kernels::ops::attention;
use lichen_kernels::ops::matmul;
use lichen_kernels::ops::residual::Residual;
use lichen_kernels::ops::rope::RopeTable;
use lichen_kernels::ops::sampling::TopK;
use lichen_kernels::{Format, Step};

use super::{widest_input, widest_output, ActivationSizes, Item, Limits, MemoryPlan, ModelBytes, Place, PROGRAM_BYTES};
use crate::kv_cache::KvCache;
use crate::model_config::ModelConfig;
use crate::sampler::{Sampler, SamplerConfig};
use crate::upload::STAGING_BYTES;

impl MemoryPlan {
    /// The same on a GPU. `model.heap` is what the host holds while weights are converted on the way.
    pub fn on_gpu(config: &ModelConfig, model: ModelBytes, limits: Limits, cuda: &Cuda) -> Self {
        use Place::{Device, Host};
        // Keys and values of every layer, and some thirty other buffers, each rounded up.
        let rounding = Arena::padded(1) * (4 * config.n_layers + 32);
        let (local, global) = KvCache::size_bytes(config, limits.kv_format, limits.context, limits.chunk);
        let n = ActivationSizes::new(config, &limits);
        let streams = Residual::n_elements(true, limits.chunk, config.dim);
        let activations = 4 * (streams + n.total() - n.x - n.h);
        let workspace =
            matmul::Scratch::device_bytes(limits.chunk, widest_input(config), widest_output(config, &limits));
        let logits = 4 * limits.logit_rows * config.vocab_size;
        // A GPU with memory of its own keeps the logits there and a copy where the host reads them.
        let device_logits = if cuda.info().is_integrated { 0 } else { logits };
        MemoryPlan::of(
            limits,
            [
                (WEIGHTS, model.device, Device),
                ("kv cache, local layers", local, Device),
                ("kv cache, global layers", global, Device),
                ("activations", activations, Device),
                ("matrix workspace", workspace, Device),
                (
                    "attention workspace",
                    attention::Scratch::device_bytes(cuda, config.n_heads, config.head_dim),
                    Device,
                ),
                ("rope tables", 2 * RopeTable::size_bytes(limits.context, config.head_dim), Device),
                ("logits, gpu", device_logits, Device),
                ("sampling workspace", TopK::device_bytes(config.vocab_size), Device),
                ("tokens and rounding", 2 * Step::size_bytes(limits.chunk) + rounding, Device),
                (ADAPTERS, model.adapters, Device),
                ("upload buffer", STAGING_BYTES, Host),
                ("largest converted weight", model.heap, Host),
                ("logits, host", logits, Host),
                ("sampler", Sampler::memory_bytes(&SamplerConfig::default(), config.vocab_size), Host),
                ("tokenizer", model.tokenizer, Host),
                ("program", PROGRAM_BYTES, Host),
            ]
            .into_iter(),
        )
    }
}

/// What is not a session's own.
const WEIGHTS: &str = "weights, gpu";
const ADAPTERS: &str = "adapters";

impl MemoryPlan {
    /// Device bytes that each session takes.
    pub(crate) fn session_gpu_bytes(&self) -> usize {
        let shared = |item: &Item| item.name == WEIGHTS || item.name == ADAPTERS;
        self.items.iter().filter(|i| i.place == Place::Device && !shared(i)).map(|i| i.bytes).sum()
    }
}

/// Device bytes of a matrix stored in `format`, as the loader keeps it there.
pub(crate) fn matrix_bytes(format: Format, rows: usize, cols: usize) -> usize {
    PackedMatrix::planned_bytes(format, rows, cols)
}

/// Device bytes of a vector of `n` values.
pub(crate) fn vector_bytes(n: usize) -> usize {
    Arena::padded(4 * n)
}
