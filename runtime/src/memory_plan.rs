//! Memory is planned, not discovered: every byte is added up before the first allocation, and a job that does not fit its
//! budget is refused with the bill.

use std::fmt;

use lichen_kernels::ops::attention::{self, KvFormat};
use lichen_kernels::ops::{matmul, rope::RopeTable};

use crate::error::{Error, Result};
use crate::kv_cache::KvCache;
use crate::model_config::ModelConfig;
use crate::sampler::{Sampler, SamplerConfig};

pub use crate::upload::STAGING_BYTES;

pub(crate) mod gpu;

/// What a session may use; everything else follows from the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Positions a session can hold.
    pub context: usize,
    /// Rows the prefill computes at once.
    pub chunk: usize,
    /// Rows whose logits are kept at once: 1 to generate, more to score a text.
    pub logit_rows: usize,
    pub kv_format: KvFormat,
    pub n_threads: usize,
    /// Highest rank of an adapter that may be applied; 0 for none.
    pub max_rank: usize,
}

/// Rows the prefill computes at once unless told otherwise: enough to amortise the widening of a weight panel (4% of the
/// work at 128 rows), little enough that Gemma 3 1B's activations stay at 12 MB.
pub const DEFAULT_CHUNK: usize = 128;
/// Context unless told otherwise, shortened to the model's.
pub const DEFAULT_CONTEXT: usize = 2048;

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

/// One line of the bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub name: &'static str,
    pub bytes: usize,
    pub place: Place,
}

/// The bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    pub limits: Limits,
    pub items: Vec<Item>,
}

/// What the model brings to the bill.
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
    /// As a bill shows it.
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
        let (local, global) = KvCache::size_bytes(config, limits.kv_format, limits.context, limits.chunk);
        let widest = widest_input(config);
        let scratch = ActivationSizes::new(config, &limits);
        use Place::Host;
        let items = [
            ("weights, mapped", model.mapped),
            ("weights, heap", model.heap),
            ("kv cache, local layers", local),
            ("kv cache, global layers", global),
            ("activations", 4 * scratch.total()),
            ("quantised activations", matmul::Scratch::size_bytes(limits.chunk, widest)),
            ("weight panels", limits.n_threads * matmul::worker_scratch_bytes(widest)),
            ("attention scores", attention::Scratch::size_bytes(limits.n_threads, limits.context)),
            ("rope tables", 2 * RopeTable::size_bytes(limits.context, config.head_dim)),
            ("logits", 4 * limits.logit_rows * config.vocab_size),
            ("sampler", Sampler::memory_bytes(&SamplerConfig::default(), config.vocab_size)),
            ("tokenizer", model.tokenizer),
            ("adapters", model.adapters),
            ("program", PROGRAM_BYTES),
        ];
        let place = |name: &str| if name == "weights, mapped" { Place::Mapped } else { Host };
        MemoryPlan::of(limits, items.into_iter().map(|(name, bytes)| (name, bytes, place(name))))
    }

    fn of(limits: Limits, items: impl Iterator<Item = (&'static str, usize, Place)>) -> Self {
        let items = items.filter(|(_, bytes, _)| *bytes > 0);
        MemoryPlan { limits, items: items.map(|(name, bytes, place)| Item { name, bytes, place }).collect() }
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
            "needs {} ({}, ..), and the budget is {}: lower --context (now {}), choose a smaller --model or raise \
             --memory-budget",
            mib(total),
            largest(self.items.iter()),
            mib(budget),
            self.limits.context
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
        let way_out = match whose {
            "GPU" => "use --device cpu",
            _ => "set --memory-budget to override",
        };
        Err(Error::limit(format!(
            "needs {} beside mapped files ({}, ..), and the {whose} has {} left: lower --context (now {}), choose a smaller \
             --model, or {way_out}",
            mib(total),
            largest(held),
            mib(available_bytes),
            self.limits.context
        )))
    }
}

/// The bill as a table, one item a line.
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

/// Columns of the widest matrix.
pub(crate) fn widest_input(config: &ModelConfig) -> usize {
    config.dim.max(config.hidden_dim).max(config.q_dim())
}

/// Rows of the widest matrix whose products a chunk computes; the head's alone for the rows whose logits are kept.
pub(crate) fn widest_output(config: &ModelConfig, limits: &Limits) -> usize {
    let body = config.dim.max(config.hidden_dim).max(config.q_dim());
    if limits.logit_rows > 1 {
        body.max(config.vocab_size)
    } else {
        body
    }
}

/// Elements of each activation buffer, all f32.
pub(crate) struct ActivationSizes {
    pub x: usize,
    pub h: usize,
    pub q: usize,
    pub kv: usize,
    pub hidden: usize,
    pub lora: usize,
}

impl ActivationSizes {
    pub(crate) fn new(config: &ModelConfig, limits: &Limits) -> Self {
        let rows = limits.chunk;
        ActivationSizes {
            x: rows * config.dim,
            h: rows * config.dim,
            q: rows * config.q_dim(),
            kv: rows * config.kv_dim(),
            hidden: rows * config.hidden_dim,
            lora: rows * limits.max_rank,
        }
    }

    /// x; h and the projection; q and the attention output; k and v; gate and up; the low-rank product.
    fn total(&self) -> usize {
        self.x + 2 * self.h + 2 * self.q + 2 * self.kv + 2 * self.hidden + self.lora
    }
}
