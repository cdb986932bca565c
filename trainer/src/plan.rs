//! The memory bill of a training job, added up before anything is allocated.

use std::fmt;

use lichen_kernels::{Device, Format};
use lichen_runtime::available_memory::available_bytes;
use lichen_runtime::engine::EngineOptions;
use lichen_runtime::memory_plan::{mib, Item, ModelBytes, Place};
use lichen_runtime::model_source::{Part, PartShape};
use lichen_runtime::{Error, ModelConfig, Result};

use crate::activations::{Activations, Rows};
use crate::forward::Rope;
use crate::optimizer::Optimizer;

/// Whether layers are computed again on the way back, instead of kept.
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
}

/// The program, its libraries and stacks, and the buffers that files are written through.
const PROGRAM_BYTES: usize = 20 << 20;
/// Memory that is left to others when nothing was said: a tenth.
const SHARE_LEFT: usize = 10;

/// What a job needs to know of its size.
#[derive(Clone, Copy, Debug)]
pub struct JobSize {
    /// Parameters that are trained.
    pub n_parameters: usize,
    /// In full training the format of the matrices; `None` for an adapter.
    pub full_format: Option<Format>,
    /// Samples of a micro-batch, and tokens of the longest sample.
    pub batch: usize,
    pub max_seq: usize,
    pub rank: usize,
    pub has_dropout: bool,
    pub n_threads: usize,
}

/// The bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrainPlan {
    pub items: Vec<Item>,
    pub rows: Rows,
    pub n_parameters: usize,
    n_layers: usize,
}

impl TrainPlan {
    /// Adds everything up; decides about recomputation where that is left to it.
    pub fn new(
        c: &ModelConfig,
        model: ModelBytes,
        size: &JobSize,
        recompute: Recompute,
        budget: Option<usize>,
    ) -> Self {
        let plan = |kept_layers| TrainPlan::with(c, model, size, kept_layers);
        match recompute {
            Recompute::On => plan(0),
            Recompute::Off => plan(c.n_layers),
            Recompute::Auto => {
                // Mapped weights count here: what is dropped has to be read again for every step.
                let room = budget.or_else(|| available_bytes().map(|bytes| bytes - bytes / SHARE_LEFT));
                let fits = |plan: &TrainPlan| room.is_none_or(|room| plan.total_bytes() <= room);
                (1..=c.n_layers).rev().map(plan).find(fits).unwrap_or_else(|| plan(0))
            }
        }
    }

    fn with(c: &ModelConfig, model: ModelBytes, size: &JobSize, kept_layers: usize) -> Self {
        let rows = Rows {
            rows: size.batch * size.max_seq,
            longest: size.max_seq,
            rank: size.rank,
            has_dropout: size.has_dropout,
            kept_layers,
        };
        let n = size.n_parameters;
        let (mapped, heap) = match size.full_format {
            Some(format) => (0, model_bytes(c, format)),
            None => (model.mapped, model.heap),
        };
        let mut items = vec![
            ("weights, mapped", mapped),
            ("weights, heap", heap),
            ("trained parameters", 4 * n),
            ("gradients", 4 * n),
            ("optimiser moments", Optimizer::size_bytes(n)),
        ];
        items.extend(Activations::bill(c, &rows, size.n_threads));
        items.extend([
            ("rope tables", Rope::size_bytes(c, rows.longest)),
            ("tokenizer", model.tokenizer),
            ("program", PROGRAM_BYTES),
        ]);
        let place = |name: &str| if name == "weights, mapped" { Place::Mapped } else { Place::Host };
        let items = items.into_iter().filter(|(_, bytes)| *bytes > 0);
        let items = items.map(|(name, bytes)| Item { name, bytes, place: place(name) }).collect();
        TrainPlan { items, rows, n_parameters: n, n_layers: c.n_layers }
    }

    pub fn total_bytes(&self) -> usize {
        self.items.iter().map(|i| i.bytes).sum()
    }

    /// `all layers kept`, `20 of 26 layers computed twice`.
    pub fn describe_layers(&self) -> String {
        match self.n_layers.saturating_sub(self.rows.kept_layers.max(1)) {
            0 => "all layers kept".to_string(),
            n => format!("{n} of {} layers computed twice", self.n_layers),
        }
    }

    /// Refuses a plan that passes the budget, or without one, what the system has left.
    pub fn check(&self, budget: Option<usize>) -> Result<()> {
        let (needed, limit, whose) = match budget {
            Some(budget) => (self.total_bytes(), budget, "the budget is"),
            None => {
                let held = self.items.iter().filter(|i| i.place != Place::Mapped);
                let Some(available) = available_bytes() else { return Ok(()) };
                (held.map(|i| i.bytes).sum(), available, "the system has left")
            }
        };
        if needed <= limit {
            return Ok(());
        }
        let mut largest: Vec<&Item> = self.items.iter().collect();
        largest.sort_by_key(|i| std::cmp::Reverse(i.bytes));
        let names: Vec<String> = largest.iter().take(3).map(|i| format!("{} {}", i.name, mib(i.bytes))).collect();
        let recompute = if self.rows.kept_layers == 0 { "" } else { " --checkpoint-activations on," };
        Err(Error::limit(format!(
            "needs {} ({}, ..), and {whose} {}:{recompute} a lower --max-seq (now {}), --batch or --rank, a smaller --model, \
             or a larger --memory-budget",
            mib(needed),
            names.join(", "),
            mib(limit),
            self.rows.longest,
        )))
    }
}

/// Bytes of every weight in one float format, norms and biases in f32.
fn model_bytes(c: &ModelConfig, format: Format) -> usize {
    let bytes = |part: Part| match part.shape(c) {
        PartShape::Vector(n) => 4 * n,
        PartShape::Matrix(rows, cols) => rows * format.row_bytes(cols).unwrap_or(4 * cols),
    };
    Part::of_model(c).map(|(part, _)| bytes(part)).sum()
}

/// Training computes on the CPU in this version.
///
/// # Errors
/// A GPU was asked for; the threads cannot be started.
pub fn start_device(options: &EngineOptions) -> Result<std::sync::Arc<Device>> {
    use lichen_runtime::engine::DeviceChoice;
    if let DeviceChoice::Cuda(_) = options.device {
        return Err(Error::usage("--device cuda: training has no kernels for a GPU in this version; use --device cpu"));
    }
    EngineOptions { device: DeviceChoice::Cpu, ..options.clone() }.start_device()
}

/// The bill as a table, one item a line.
impl fmt::Display for TrainPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for item in &self.items {
            writeln!(f, "{:<26}{:>12}", item.name, mib(item.bytes))?;
        }
        write!(f, "{:<26}{:>12}", "total", mib(self.total_bytes()))
    }
}
