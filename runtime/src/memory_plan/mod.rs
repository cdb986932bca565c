//! Memory is planned, not discovered: every byte is added up before the first allocation, and a job that does not fit its
//! budget is refused with the plan.

use std::fmt;

use lichen_kernels::ops::attention::{self, KvFormat};
use lichen_kernels::ops::{matmul, rope::RopeTable};
use lichen_kernels::Device;

use crate::error::{Error, Result};
use crate::limits::BatchLimits;
use crate::model::block::{widest_input, ActivationSizes};
use crate::model::kv_cache::KvCache;
use crate::model_config::ModelConfig;
use crate::sampler::{Sampler, SamplerConfig};
use crate::setting::{CONTEXT, DEVICE, MEMORY_BUDGET, MODEL, PARALLEL};

pub use crate::limits::{Limits, DEFAULT_CHUNK, DEFAULT_CONTEXT};
pub use crate::model::upload::STAGING_BYTES;

pub mod available_memory;
mod gpu;

/// Largest f32 cache [`auto_kv_format`] accepts.
const EXACT_KV_BYTES: usize = 16 << 20;

/// Keys and values stay f32 while that takes at most 16 MiB (small models, short contexts), else f16: Gemma 3 1B with
/// 2,048 positions takes 22 MiB of f16.
pub fn auto_kv_format(config: &ModelConfig, context: usize, chunk: usize) -> KvFormat {
    let (local, global) = KvCache::size_bytes(config, KvFormat::F32, context, chunk);
    if local + global <= EXACT_KV_BYTES {
        KvFormat::F32
    } else {
        KvFormat::F16
    }
}

/// Where memory lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Mapped from a file: the system drops and reads again what does not fit.
    Mapped,
    Host,
    /// On the host and page-locked, so that a GPU copies to and from it while others compute.
    Pinned,
    /// On the GPU; on a board that shares its memory, the same as the host's.
    Device,
}

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub name: &'static str,
    pub bytes: usize,
    pub place: Place,
}

/// The memory plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    pub limits: Limits,
    /// `None` for a session.
    pub batch: Option<BatchLimits>,
    pub items: Vec<Item>,
}

/// What the model brings to the plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelBytes {
    /// Mapped from a file: the kernel may drop and read again what does not fit, at the price of speed.
    pub mapped: usize,
    /// On the heap.
    pub heap: usize,
    /// On the GPU.
    pub device: usize,
    pub tokenizer: usize,
    pub adapters: usize,
}

/// The program, its libraries and stacks, measured as the resident size before a model is opened.
const PROGRAM_BYTES: usize = 12 << 20;

impl Place {
    /// As a plan shows it.
    pub fn name(self) -> &'static str {
        match self {
            Place::Mapped => "mapped",
            Place::Host => "host",
            Place::Pinned => "pinned",
            Place::Device => "gpu",
        }
    }
}

impl MemoryPlan {
    /// Adds everything up. `limits.context` must already be at least 1 and at most the model's.
    pub fn new(config: &ModelConfig, model: ModelBytes, limits: Limits) -> Self {
        MemoryPlan::cpu_plan(config, model, limits, None)
    }

    /// The memory plan of one sequence on a device, or of several.
    pub fn on(
        device: &Device,
        config: &ModelConfig,
        model: ModelBytes,
        limits: Limits,
        batch: Option<BatchLimits>,
    ) -> Self {
        match device {
            Device::Cpu(_) => MemoryPlan::cpu_plan(config, model, limits, batch),
            Device::Cuda(cuda) => MemoryPlan::gpu_plan(config, model, limits, batch, cuda),
        }
    }

    fn cpu_plan(config: &ModelConfig, model: ModelBytes, limits: Limits, batch: Option<BatchLimits>) -> Self {
        let own = Variable::new(config, &limits, batch);
        let widest = widest_input(config);
        let scratch = ActivationSizes::new(config, &own.pass);
        use Place::Host;
        let items = [
            ("weights, mapped", model.mapped),
            ("weights, heap", model.heap),
            own.local_kv,
            own.global_kv,
            ("activations", 4 * scratch.total()),
            ("quantised activations", matmul::Scratch::size_bytes(own.pass.chunk, widest)),
            ("weight panels", limits.n_threads * matmul::worker_scratch_bytes(widest)),
            ("attention scores", attention::Scratch::size_bytes(limits.n_threads, limits.context)),
            ("rope tables", 2 * RopeTable::size_bytes(limits.context, config.head_dim)),
            ("logits", 4 * own.n_logits),
            ("sampler", Sampler::memory_bytes(&SamplerConfig::default(), config.vocab_size)),
            (SEQUENCES, own.sequences),
            ("tokenizer", model.tokenizer),
            ("adapters", model.adapters),
            ("program", PROGRAM_BYTES),
        ];
        let place = |name: &str| if name == "weights, mapped" { Place::Mapped } else { Host };
        MemoryPlan::of(limits, batch, items.into_iter().map(|(name, bytes)| (name, bytes, place(name))))
    }

    fn of(
        limits: Limits,
        batch: Option<BatchLimits>,
        items: impl Iterator<Item = (&'static str, usize, Place)>,
    ) -> Self {
        let items = items.filter(|(_, bytes, _)| *bytes > 0);
        let items = items.map(|(name, bytes, place)| Item { name, bytes, place }).collect();
        MemoryPlan { limits, batch, items }
    }

    /// Bytes that lie in one place.
    pub fn bytes_in(&self, place: Place) -> usize {
        self.items.iter().filter(|i| i.place == place).map(|i| i.bytes).sum()
    }

    pub fn total_bytes(&self) -> usize {
        self.items.iter().map(|i| i.bytes).sum()
    }

    /// Refuses a plan that passes the budget, with the three largest items and what to do.
    pub fn check(&self, budget_bytes: Option<usize>) -> Result<()> {
        let Some(budget) = budget_bytes else { return Ok(()) };
        let total = self.total_bytes();
        if total <= budget {
            return Ok(());
        }
        Err(Error::limit(format!(
            "needs {} ({}, ..), and the budget is {}: {}, choose a smaller {MODEL} or raise {MEMORY_BUDGET}",
            mib(total),
            largest(self.items.iter()),
            mib(budget),
            self.hint()
        )))
    }

    /// Refuses a plan that passes what the system or the GPU (`whose`) has left for these places. Mapped weights do not
    /// count: the system drops and reads again what does not fit.
    pub fn check_available(&self, places: &[Place], whose: &str, available_bytes: usize) -> Result<()> {
        let held = self.items.iter().filter(|i| i.place != Place::Mapped && places.contains(&i.place));
        let total: usize = held.clone().map(|i| i.bytes).sum();
        if total <= available_bytes {
            return Ok(());
        }
        let hint_for_place = match whose {
            "GPU" => format!("use {DEVICE} cpu"),
            _ => format!("set {MEMORY_BUDGET} to override"),
        };
        Err(Error::limit(format!(
            "needs {} beside mapped files ({}, ..), and the {whose} has {} left: {}, choose a smaller {MODEL}, or {hint_for_place}",
            mib(total),
            largest(held),
            mib(available_bytes),
            self.hint()
        )))
    }

    fn hint(&self) -> String {
        let context = self.limits.context;
        match &self.batch {
            Some(batch) => format!("lower {CONTEXT} (now {context}) or {PARALLEL} (now {})", batch.n_slots),
            None => format!("lower {CONTEXT} (now {context})"),
        }
    }
}

/// The plan as a table, one item a line.
impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "{:<26}{:>12}", item.name, mib(item.bytes))?;
        }
        write!(f, "{:<26}{:>12}", "total", mib(self.total_bytes()))
    }
}

/// The three largest.
fn largest<'a>(items: impl Iterator<Item = &'a Item>) -> String {
    let mut items: Vec<&Item> = items.collect();
    items.sort_by_key(|i| std::cmp::Reverse(i.bytes));
    let names: Vec<String> = items.iter().take(3).map(|i| format!("{} {}", i.name, mib(i.bytes))).collect();
    names.join(", ")
}

/// `1126.0 MiB`.
pub fn mib(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64)
}

/// What a batch has more of than a session.
struct Variable {
    local_kv: (&'static str, usize),
    global_kv: (&'static str, usize),
    /// For the activations: as many rows as a pass may have.
    pass: Limits,
    n_logits: usize,
    /// Tokens of prompts and answers, and the page tables: of a batch alone.
    sequences: usize,
}

const SEQUENCES: &str = "sequences and page tables";

impl Variable {
    fn new(config: &ModelConfig, limits: &Limits, batch: Option<BatchLimits>) -> Variable {
        let Some(batch) = batch else {
            let (local, global) = KvCache::size_bytes(config, limits.kv_format, limits.context, limits.chunk);
            return Variable {
                local_kv: ("kv cache, local layers", local),
                global_kv: ("kv cache, global layers", global),
                pass: *limits,
                n_logits: limits.logit_rows * config.vocab_size,
                sequences: 0,
            };
        };
        let bytes = batch.kv_bytes(config, limits);
        Variable {
            local_kv: ("kv pages, local layers", bytes.local),
            global_kv: ("kv pages, global layers", bytes.global),
            pass: batch.pass_limits(limits),
            n_logits: batch.n_rows() * config.vocab_size,
            sequences: batch.sequence_bytes(config, limits),
        }
    }
}
