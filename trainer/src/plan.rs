//! The memory plan of a training job, added up before anything is allocated.

use std::fmt;

use lichen_kernels::cuda::Arena;
use lichen_kernels::{Format, PackedMatrix};
use lichen_runtime::files::model_source::{Part, PartShape};
use lichen_runtime::memory_plan::{mib, Item, ModelBytes, Place, STAGING_BYTES};
use lichen_runtime::setting::{DEVICE, MEMORY_BUDGET, MODEL};
use lichen_runtime::{Error, ModelConfig, Result};

use crate::activations::{ActivationSizes, Activations};
use crate::batch::Batch;
use crate::forward::Rope;
use crate::machine::{Gpu, Machine};
use crate::optimizer::Optimizer;
use crate::setting::{CHECKPOINT_ACTIVATIONS, MAX_SEQ, MICRO_BATCH_SIZE, RANK};

/// Whether layers are recomputed in the backward pass, instead of kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// Those that do not fit.
    #[default]
    Auto,
    On,
    Off,
}

impl Recompute {
    pub fn parse(name: &str) -> std::result::Result<Recompute, String> {
        match name {
            "auto" => Ok(Recompute::Auto),
            "on" => Ok(Recompute::On),
            "off" => Ok(Recompute::Off),
            _ => Err("auto, on or off".to_string()),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Recompute::Auto => "auto",
            Recompute::On => "on",
            Recompute::Off => "off",
        }
    }
}

/// The program, its libraries and stacks, and the buffers that files are written through.
const PROGRAM_BYTES: usize = 20 << 20;
/// Memory that is left to others when nothing was said: a tenth of what all share, and of a GPU's own a fortieth, for what the
/// driver takes when kernels are first used.
const SHARE_LEFT: usize = 10;
const GPU_SHARE_LEFT: usize = 40;

/// What a job needs to know of its size.
#[derive(Clone, Copy, Debug)]
pub struct JobSize {
    /// Parameters that are trained.
    pub n_parameters: usize,
    /// The first layer that is trained.
    pub first_layer: usize,
    /// In full training the format of the matrices; `None` for an adapter.
    pub full_format: Option<Format>,
    /// Samples of a micro-batch, and tokens of the longest sample.
    pub batch: usize,
    pub max_seq: usize,
    pub rank: usize,
    pub has_dropout: bool,
    /// What the session that answers regression prompts takes beside.
    pub regression_prompts: HostAndGpu,
}

/// Bytes of both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostAndGpu {
    pub host: usize,
    pub gpu: usize,
}

/// The memory plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainPlan {
    pub items: Vec<Item>,
    pub rows: ActivationSizes,
    pub n_parameters: usize,
    machine: Machine,
    n_layers: usize,
}

type Line = (&'static str, usize, Place);

/// Memory that must be enough: whose it is, which places share it, and what there is of it.
struct MemoryLimit {
    owner: Owner,
    places: &'static [Place],
    bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Budget,
    System,
    Gpu,
}

impl Owner {
    fn has(self) -> &'static str {
        match self {
            Owner::Budget => "the budget is",
            Owner::System => "the system has left",
            Owner::Gpu => "the GPU has left",
        }
    }

    /// Where else a job fits that does not fit this.
    fn hint(self) -> String {
        match self {
            Owner::Budget | Owner::System => format!("a larger {MEMORY_BUDGET}"),
            Owner::Gpu => format!("{DEVICE} cpu"),
        }
    }
}

impl TrainPlan {
    /// Adds everything up; decides about recomputation where that is left to it.
    pub fn new(
        c: &ModelConfig,
        model: ModelBytes,
        size: &JobSize,
        machine: &Machine,
        recompute: Recompute,
        budget: Option<usize>,
    ) -> Self {
        let plan = |kept_layers| TrainPlan::with(c, model, size, machine, kept_layers);
        let n_walked = c.n_layers - size.first_layer;
        match recompute {
            Recompute::On => plan(0),
            Recompute::Off => plan(n_walked),
            Recompute::Auto => {
                (1..=n_walked).rev().map(plan).find(|p| p.fits_easily(budget)).unwrap_or_else(|| plan(0))
            }
        }
    }

    fn with(c: &ModelConfig, model: ModelBytes, size: &JobSize, machine: &Machine, kept_layers: usize) -> Self {
        let rows = ActivationSizes {
            rows: size.batch * size.max_seq,
            longest: size.max_seq,
            rank: size.rank,
            has_dropout: size.has_dropout,
            trained_weights: size.full_format,
            loss_rows: machine.loss_rows(c.vocab_size),
            kept_layers,
            first_layer: size.first_layer,
        };
        let n = size.n_parameters;
        let mut lines = match machine.gpu {
            None => cpu_lines(c, model, size, &rows, machine),
            Some(gpu) => gpu_lines(c, model, size, &rows, gpu),
        };
        lines.extend([
            ("tokenizer", model.tokenizer, Place::Host),
            ("regression prompts, gpu", size.regression_prompts.gpu, Place::Device),
            ("regression prompts", size.regression_prompts.host, Place::Host),
            ("program", PROGRAM_BYTES, Place::Host),
        ]);
        let lines = lines.into_iter().filter(|(_, bytes, _)| *bytes > 0);
        let items = lines.map(|(name, bytes, place)| Item { name, bytes, place }).collect();
        TrainPlan { items, rows, n_parameters: n, machine: *machine, n_layers: c.n_layers }
    }

    pub fn total_bytes(&self) -> usize {
        self.items.iter().map(|i| i.bytes).sum()
    }

    /// What it is for.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Bytes that lie in one of these places.
    pub fn bytes_in(&self, places: &[Place]) -> usize {
        self.items.iter().filter(|i| places.contains(&i.place)).map(|i| i.bytes).sum()
    }

    /// `all layers kept`, `20 of 26 layers recomputed`; `the last 8 of 26 layers walked back, all kept`.
    pub fn describe_layers(&self) -> String {
        let n_walked = self.n_layers - self.rows.first_layer;
        let n_recomputed = n_walked.saturating_sub(self.rows.kept_layers.max(1));
        match (self.rows.first_layer, n_recomputed) {
            (0, 0) => "all layers kept".to_string(),
            (0, n) => format!("{n} of {n_walked} layers recomputed"),
            (_, 0) => format!("the last {n_walked} of {} layers walked back, all kept", self.n_layers),
            (_, n) => format!("the last {n_walked} of {} layers walked back, {n} of them recomputed", self.n_layers),
        }
    }

    /// What a job without a budget must fit.
    fn limits(&self) -> Vec<MemoryLimit> {
        use Place::{Device, Host, Pinned};
        let mut limits = Vec::new();
        let (places, gpu): (&[Place], _) = match self.machine.gpu {
            Some(gpu) if gpu.is_integrated => (&[Host, Pinned, Device], Some(gpu)),
            gpu => (&[Host, Pinned], gpu),
        };
        if let Some(bytes) = self.machine.host_bytes {
            limits.push(MemoryLimit { owner: Owner::System, places, bytes });
        }
        if let Some(gpu) = gpu {
            limits.push(MemoryLimit { owner: Owner::Gpu, places: &[Device], bytes: gpu.free_bytes });
        }
        limits
    }

    /// True when it fits, and leaves some to others.
    fn fits_easily(&self, budget: Option<usize>) -> bool {
        if let Some(budget) = budget {
            return self.total_bytes() <= budget;
        }
        let is_alone = self.machine.gpu.is_some_and(|gpu| !gpu.is_integrated);
        self.limits().into_iter().all(|MemoryLimit { owner, places, bytes }| {
            let share = if owner == Owner::Gpu && is_alone { GPU_SHARE_LEFT } else { SHARE_LEFT };
            // Mapped weights that are multiplied count here: what is dropped has to be read again for every step.
            let mapped = if self.machine.gpu.is_none() { self.bytes_in(&[Place::Mapped]) } else { 0 };
            self.bytes_in(places) + mapped <= bytes - bytes / share
        })
    }

    /// Refuses a plan that passes the budget, or without one, what the system and the GPU have left.
    pub fn check(&self, budget: Option<usize>) -> Result<()> {
        let places = &[Place::Mapped, Place::Host, Place::Pinned, Place::Device];
        let limits = match budget {
            Some(bytes) => vec![MemoryLimit { owner: Owner::Budget, places, bytes }],
            None => self.limits(),
        };
        match limits.into_iter().find(|limit| self.bytes_in(limit.places) > limit.bytes) {
            Some(limit) => Err(self.refusal(&limit)),
            None => Ok(()),
        }
    }

    fn refusal(&self, limit: &MemoryLimit) -> Error {
        let mut largest: Vec<&Item> = self.items.iter().filter(|i| limit.places.contains(&i.place)).collect();
        largest.sort_by_key(|i| std::cmp::Reverse(i.bytes));
        let names: Vec<String> = largest.iter().take(3).map(|i| format!("{} {}", i.name, mib(i.bytes))).collect();
        let recompute = match self.rows.kept_layers {
            0 => String::new(),
            _ => format!(" {CHECKPOINT_ACTIVATIONS} on,"),
        };
        Error::limit(format!(
            "needs {} ({}, ..), and {} {}:{recompute} a lower {MAX_SEQ} (now {}), {MICRO_BATCH_SIZE} or {RANK}, a smaller {MODEL}, or {}",
            mib(self.bytes_in(limit.places)),
            names.join(", "),
            limit.owner.has(),
            mib(limit.bytes),
            self.rows.longest,
            limit.owner.hint(),
        ))
    }
}

fn cpu_lines(
    c: &ModelConfig,
    model: ModelBytes,
    size: &JobSize,
    rows: &ActivationSizes,
    machine: &Machine,
) -> Vec<Line> {
    use Place::{Host, Mapped};
    let n = size.n_parameters;
    let (mapped, heap) = match size.full_format {
        Some(format) => (0, model_bytes(c, format)),
        None => (model.mapped, model.heap),
    };
    let mut lines = vec![
        ("weights, mapped", mapped, Mapped),
        ("weights, heap", heap, Host),
        ("trained parameters", 4 * n, Host),
        ("gradients", 4 * n, Host),
        ("optimiser moments", Optimizer::size_bytes(n), Host),
    ];
    lines.extend(Activations::plan_lines(c, rows, machine));
    lines.push(("rope tables", Rope::size_bytes(c, rows.longest), Host));
    lines
}

/// The driver's own memory (context, machine code) is its own and not planned.
fn gpu_lines(c: &ModelConfig, model: ModelBytes, size: &JobSize, rows: &ActivationSizes, gpu: Gpu) -> Vec<Line> {
    use Place::{Device, Host, Mapped, Pinned};
    let mut lines = match size.full_format {
        // The files are read once, on their way into the f32 values.
        Some(_) => vec![("weights, mapped", model.mapped, Mapped), ("weights, heap", model.heap, Host)],
        None => vec![
            ("weights, gpu", model.device, Device),
            ("upload buffer", STAGING_BYTES, Pinned),
            ("largest converted weight", model.heap, Host),
        ],
    };
    lines.extend(network_lines(c, size.n_parameters, size.full_format, rows, gpu));
    // Values on their way into a checkpoint, and out of one.
    lines.push(("parameters, host copy", 4 * size.n_parameters, Host));
    lines
}

/// What [`crate::network::Network::new`] takes with a GPU, and its pinned memory.
fn network_lines(
    c: &ModelConfig,
    n: usize,
    full_format: Option<Format>,
    rows: &ActivationSizes,
    gpu: Gpu,
) -> Vec<Line> {
    use Place::{Device, Pinned};
    let machine = Machine { gpu: Some(gpu), ..Machine::default() };
    // What the host reads: where memory is shared it has one place.
    let partials = Optimizer::size_bytes(n) - 8 * n;
    // A sample has a row at least.
    let (read, batch) = (8 * rows.rows + partials, Batch::size_bytes(rows.rows, rows.rows));
    let read_there = if gpu.is_integrated { 0 } else { read };
    // Beside them values, gradients, moments, tokens, targets and tables.
    let rounding = Arena::padded(1) * (Activations::n_buffers(c, rows) + 16);
    let mut lines = vec![
        ("weights, gpu", full_format.map_or(0, |format| packed_model_bytes(c, format)), Device),
        ("trained parameters", 4 * n, Device),
        ("gradients", 4 * n, Device),
        ("optimiser moments", 8 * n, Device),
    ];
    lines.extend(Activations::plan_lines(c, rows, &machine));
    lines.extend([
        ("rope tables", Rope::size_bytes(c, rows.longest), Device),
        ("tokens and rounding", read_there + batch + rounding, Device),
        ("tokens and losses", read + batch, Pinned),
    ]);
    lines
}

/// Bytes of [`crate::network::Network::new`]'s memory on a GPU: one piece, so that no buffer is rounded up by itself.
pub(crate) fn network_gpu_bytes(
    c: &ModelConfig,
    n_parameters: usize,
    full_format: Option<Format>,
    rows: &ActivationSizes,
    gpu: Gpu,
) -> usize {
    let lines = network_lines(c, n_parameters, full_format, rows, gpu);
    lines.into_iter().filter(|(.., place)| *place == Place::Device).map(|(_, bytes, _)| bytes).sum()
}

/// Bytes of every weight in one float format, norms and biases in f32.
fn model_bytes(c: &ModelConfig, format: Format) -> usize {
    let bytes = |part: Part| match part.shape(c) {
        PartShape::Vector(n) => 4 * n,
        PartShape::Matrix(rows, cols) => rows * format.row_bytes(cols).unwrap_or(4 * cols),
    };
    Part::of_model(c).map(|(part, _)| bytes(part)).sum()
}

/// The same as a GPU keeps them.
fn packed_model_bytes(c: &ModelConfig, format: Format) -> usize {
    let bytes = |part: Part| match part.shape(c) {
        PartShape::Vector(n) => Arena::padded(4 * n),
        PartShape::Matrix(rows, cols) => PackedMatrix::planned_bytes(format, rows, cols),
    };
    Part::of_model(c).map(|(part, _)| bytes(part)).sum()
}

/// The memory plan as a table, one item a line; with a GPU, where each lies.
impl fmt::Display for TrainPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            let place = if self.machine.gpu.is_some() { item.place.name() } else { "" };
            let line = format!("{:<26}{:>12}  {place}", item.name, mib(item.bytes));
            writeln!(f, "{}", line.trim_end())?;
        }
        if self.machine.gpu.is_some() {
            writeln!(f, "{:<26}{:>12}  gpu", "together", mib(self.bytes_in(&[Place::Device])))?;
        }
        write!(f, "{:<26}{:>12}", "total", mib(self.total_bytes()))
    }
}

#[cfg(test)]
mod tests;
