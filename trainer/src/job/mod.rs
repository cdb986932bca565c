//! A training job from its settings to a published adapter: opened and billed (`open.rs`), run step by step (`run.rs`), saved
//! (`files.rs`, `state.rs`) and judged (`gate.rs`).

mod files;
mod gate;
mod observer;
mod open;
mod outcome;
mod run;
mod state;
mod summary;

use std::path::PathBuf;

use lichen_kernels::Format;
use lichen_runtime::engine::EngineOptions;

use crate::data::DataOptions;
use crate::lora::Targets;
use crate::optimizer::Settings;
use crate::plan::Recompute;
use crate::schedule::Shape;

pub use gate::{Answer, Scores, Verdict};
pub use observer::{Note, Observer};
pub use open::{model_bytes, plan_of, Opened};
pub use outcome::{Ending, Outcome};
pub use state::{State, STATE_FILE};

/// The rows of a run, in its folder.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// What the rows do not say of it.
pub const SUMMARY_FILE: &str = "summary.json";
/// Where an adapter comes from and what it was worth, in its generation.
pub const ADAPTER_FILE: &str = "adapter.json";

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Lora {
        rank: usize,
        alpha: f32,
        targets: Targets,
        /// Share of an adapter's inputs that is dropped.
        dropout: f32,
        /// A PEFT folder to start from.
        init: Option<PathBuf>,
    },
    Full {
        /// What the forward pass multiplies: F32 or BF16.
        format: Format,
    },
}

/// Everything that was asked for.
#[derive(Clone, Debug)]
pub struct Job {
    pub kind: Kind,
    /// The model, threads and memory.
    pub engine: EngineOptions,
    pub data: PathBuf,
    pub out: PathBuf,
    pub data_options: DataOptions,
    /// Samples of a micro-batch, and micro-batches of a step.
    pub batch: usize,
    pub accumulate: usize,
    pub epochs: u64,
    /// Steps at most; `None` for all epochs.
    pub max_steps: Option<u64>,
    pub schedule: Shape,
    pub learning_rate: f64,
    /// Where the schedule ends, as a share of the learning rate.
    pub floor: f64,
    /// Steps, or below 1 a share of all.
    pub warmup: f64,
    pub settings: Settings,
    pub recompute: Recompute,
    /// Steps between evaluations, and between checkpoints; `None` for at the end alone, and by time alone.
    pub eval_every: Option<u64>,
    pub save_every: Option<u64>,
    pub keep: usize,
    pub resume: bool,
    pub restart: bool,
    pub allow_changed_data: bool,
    pub stop_temp_c: Option<f32>,
    pub power_budget_mw: Option<u32>,
    pub canary: Option<PathBuf>,
    pub seed: u64,
}
