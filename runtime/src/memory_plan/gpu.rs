//! The memory plan of a model on a GPU. The driver's own memory (context, machine code) is its own and not on it.

use lichen_kernels::cuda::{Arena, Cuda};
use lichen_kernels::ops::attention;
use lichen_kernels::ops::matmul;
use lichen_kernels::ops::residual::Residual;
use lichen_kernels::ops::rope::RopeTable;
use lichen_kernels::ops::sampling::TopK;
use lichen_kernels::Step;

use super::{Item, Limits, MemoryPlan, ModelBytes, Place, Variable, PROGRAM_BYTES, SEQUENCES};
use crate::limits::BatchLimits;
use crate::model::block::{widest_input, widest_output, ActivationSizes};
use crate::model::upload::STAGING_BYTES;
use crate::model_config::ModelConfig;
use crate::sampler::{Sampler, SamplerConfig};

impl MemoryPlan {
    /// On a GPU `model.heap` is what the host holds while weights are converted on the way.
    pub(super) fn gpu_plan(
        config: &ModelConfig,
        model: ModelBytes,
        limits: Limits,
        batch: Option<BatchLimits>,
        cuda: &Cuda,
    ) -> Self {
        use Place::{Device, Host};
        let own = Variable::new(config, &limits, batch);
        let (pass, n_rows) = (&own.pass, batch.map_or(1, |b| b.n_rows()));
        // Keys and values of every layer, and some thirty other buffers, each rounded up.
        let rounding = Arena::padded(1) * (4 * config.n_layers + 32);
        let n = ActivationSizes::new(config, pass);
        let streams = Residual::n_elements(true, pass.chunk, config.dim);
        let activations = 4 * (streams + n.total() - n.x - n.h);
        let workspace = matmul::Scratch::device_bytes(pass.chunk, widest_input(config), widest_output(config, pass));
        let (n_heads, head_dim) = (config.n_heads, config.head_dim);
        let attention = match batch {
            None => attention::Scratch::device_bytes(cuda, n_heads, head_dim),
            Some(_) => attention::Scratch::batch_device_bytes(limits.context, n_heads, head_dim, n_rows),
        };
        let logits = 4 * own.n_logits;
        let step = if batch.is_some() { Step::batch_size_bytes(pass.chunk) } else { Step::size_bytes(pass.chunk) };
        let tables = batch.map_or(0, |b| b.table_bytes(config, &limits));
        // A GPU with memory of its own keeps the logits there and a copy where the host reads them.
        let device_logits = if cuda.info().is_integrated { 0 } else { logits };
        MemoryPlan::of(
            limits,
            batch,
            [
                (WEIGHTS, model.device, Device),
                (own.local_kv.0, own.local_kv.1, Device),
                (own.global_kv.0, own.global_kv.1, Device),
                ("activations", activations, Device),
                ("matrix workspace", workspace, Device),
                ("attention workspace", attention, Device),
                ("rope tables", 2 * RopeTable::size_bytes(limits.context, config.head_dim), Device),
                ("logits, gpu", device_logits, Device),
                ("sampling workspace", TopK::device_bytes(config.vocab_size, n_rows), Device),
                ("tokens and rounding", 2 * step + tables + rounding, Device),
                (ADAPTERS, model.adapters, Device),
                ("upload buffer", STAGING_BYTES, Host),
                ("largest converted weight", model.heap, Host),
                ("logits, host", logits, Host),
                (SEQUENCES, own.sequences, Host),
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
