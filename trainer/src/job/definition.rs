//! A training job as a value: everything that can be asked for. It knows no flags and no files.

use std::path::PathBuf;

use lichen_kernels::Format;
use lichen_runtime::board::device_config::DeviceConfig;
use lichen_runtime::engine::{DeviceChoice, EngineOptions};
use lichen_runtime::Result;

use crate::data::{DataOptions, LossOn, Truncation};
use crate::layers::Layers;
use crate::lora::Targets;
use crate::optimizer::{AdamWSettings, OptimizerKind};
use crate::plan::Recompute;
use crate::schedule::ScheduleShape;

/// The part of the rows that scores the result, where nobody says another.
pub(super) const DEFAULT_EVAL_SPLIT: f64 = 0.05;

/// What is trained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// An adapter over a frozen base.
    #[default]
    Lora,
    /// Every weight.
    Full,
}

impl Method {
    /// # Errors
    /// What is allowed.
    pub fn parse(name: &str) -> std::result::Result<Method, String> {
        match name {
            "lora" => Ok(Method::Lora),
            "full" => Ok(Method::Full),
            _ => Err("lora or full".to_string()),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Method::Lora => "lora",
            Method::Full => "full",
        }
    }
}

/// What decides how much memory a job takes: all that a memory plan needs.
#[derive(Clone, Debug, PartialEq)]
pub struct MemorySettings {
    /// A GGUF file or a Hugging Face folder; `None` for the demo model.
    pub model: Option<PathBuf>,
    pub method: Method,
    /// Of full training: what the forward pass multiplies, F32 or BF16.
    pub weights: Format,
    /// Of an adapter: its rank, its matrices, the layers that have them, and the share of its inputs that is dropped.
    pub rank: usize,
    pub targets: Targets,
    pub layers: Layers,
    pub dropout: f32,
    /// Tokens of the longest sample.
    pub max_seq: usize,
    /// Samples computed together.
    pub micro_batch_size: usize,
    pub checkpoint_activations: Recompute,
    pub optimizer: OptimizerKind,
    pub device: DeviceChoice,
    /// `None` for every core this process may use.
    pub threads: Option<usize>,
    /// Bytes; `None` for what the system and the GPU have left.
    pub memory_budget: Option<usize>,
    /// A board's file, for threads and memory where nothing else is given.
    pub device_config: Option<PathBuf>,
}

/// A training job: everything that can be asked for, each by its name. A C structure, flags and a file fill the same one.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    pub memory: MemorySettings,
    /// Of an adapter: its product is scaled by alpha / rank.
    pub alpha: f32,
    /// A PEFT folder to start from.
    pub init_adapter: Option<PathBuf>,
    /// `None` for what is usual for the method: see [`Job::learning_rate`].
    pub learning_rate: Option<f64>,
    /// Files of rows to train on, or patterns of their names, and the folder of the run: needed.
    pub data: Vec<PathBuf>,
    pub out: Option<PathBuf>,
    /// Files of rows that score the result, instead of a part of `data`.
    pub eval_data: Vec<PathBuf>,
    pub truncation: Truncation,
    pub strict: bool,
    /// What of a conversation is learned; `train_on_prompt` is its earlier name for everything.
    pub loss_on: LossOn,
    pub train_on_prompt: bool,
    /// Control tokens that are written in a row of `text` are tokens.
    pub parse_special: bool,
    pub no_shuffle: bool,
    /// Micro-batches of a step.
    pub gradient_accumulation_steps: usize,
    pub epochs: u64,
    /// Steps at most; `None` for all epochs.
    pub max_steps: Option<u64>,
    pub schedule: ScheduleShape,
    /// Steps, or below 1 a share of all.
    pub warmup: f64,
    /// Where the schedule ends, as a share of the learning rate.
    pub min_lr_ratio: f64,
    pub weight_decay: f64,
    /// Longest gradient; 0 takes any.
    pub max_grad_norm: f64,
    pub adam_beta1: f64,
    pub adam_beta2: f64,
    pub adam_eps: f64,
    /// The part of the rows that scores the result, where `eval_data` has none.
    pub eval_split: f64,
    /// Steps between evaluations, and between checkpoints; `None` for at the end alone, and by time alone.
    pub eval_every: Option<u64>,
    pub save_every: Option<u64>,
    /// Checkpoints that are kept.
    pub save_total_limit: usize,
    /// A file of prompts whose answers must stay right.
    pub regression_prompts: Option<PathBuf>,
    pub resume: bool,
    pub restart: bool,
    pub allow_changed_data: bool,
    pub allow_other_base: bool,
    pub seed: u64,
    pub power_budget_mw: Option<u32>,
    pub max_board_temp_c: Option<f32>,
}

impl Default for MemorySettings {
    fn default() -> Self {
        MemorySettings {
            model: None,
            method: Method::Lora,
            weights: Format::F32,
            rank: 8,
            targets: [true; 7],
            layers: Layers::default(),
            dropout: 0.0,
            max_seq: 256,
            micro_batch_size: 1,
            checkpoint_activations: Recompute::Auto,
            optimizer: OptimizerKind::AdamW,
            device: DeviceChoice::Auto,
            threads: None,
            memory_budget: None,
            device_config: None,
        }
    }
}

impl Default for Job {
    fn default() -> Self {
        Job {
            memory: MemorySettings::default(),
            alpha: 16.0,
            init_adapter: None,
            learning_rate: None,
            data: Vec::new(),
            out: None,
            eval_data: Vec::new(),
            truncation: Truncation::Cut,
            strict: false,
            loss_on: LossOn::Answers,
            train_on_prompt: false,
            parse_special: false,
            no_shuffle: false,
            gradient_accumulation_steps: 8,
            epochs: 1,
            max_steps: None,
            schedule: ScheduleShape::Cosine,
            warmup: 0.03,
            min_lr_ratio: 0.0,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_eps: 1e-8,
            eval_split: DEFAULT_EVAL_SPLIT,
            eval_every: None,
            save_every: None,
            save_total_limit: 3,
            regression_prompts: None,
            resume: false,
            restart: false,
            allow_changed_data: false,
            allow_other_base: false,
            seed: 0,
            power_budget_mw: None,
            max_board_temp_c: None,
        }
    }
}

impl MemorySettings {
    /// What a model is opened with, and the board's file for what else it says: what is given wins over the board.
    ///
    /// # Errors
    /// The board's file cannot be read or says something it may not.
    pub fn engine_options(&self) -> Result<(EngineOptions, DeviceConfig)> {
        let options = EngineOptions {
            model: self.model.clone(),
            device: self.device,
            threads: self.threads,
            memory_budget: self.memory_budget,
            device_config: self.device_config.clone(),
            ..EngineOptions::default()
        };
        options.with_board()
    }
}

impl Job {
    /// The default job of a method.
    pub fn of(method: Method) -> Job {
        Job { memory: MemorySettings { method, ..MemorySettings::default() }, ..Job::default() }
    }

    /// What was asked for, or what is usual: 2e-4 for an adapter, 1e-5 for every weight.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or(match self.memory.method {
            Method::Lora => 2e-4,
            Method::Full => 1e-5,
        })
    }

    /// What of a conversation is learned.
    pub fn loss_on(&self) -> LossOn {
        if self.train_on_prompt {
            LossOn::All
        } else {
            self.loss_on
        }
    }

    /// The part of `data` that scores the result: nothing where there are files for that.
    pub fn eval_split(&self) -> f64 {
        if self.eval_data.is_empty() {
            self.eval_split
        } else {
            0.0
        }
    }

    /// Share of an adapter's inputs that is dropped; full training drops nothing.
    pub fn dropout(&self) -> f32 {
        match self.memory.method {
            Method::Lora => self.memory.dropout,
            Method::Full => 0.0,
        }
    }

    /// How the rows are read, and in which order.
    pub fn data_options(&self) -> DataOptions {
        DataOptions {
            max_seq: self.memory.max_seq,
            truncation: self.truncation,
            strict: self.strict,
            loss_on: self.loss_on(),
            parse_special: self.parse_special,
            eval_split: self.eval_split(),
            seed: self.seed,
            shuffle: !self.no_shuffle,
        }
    }

    pub(crate) fn optimizer_settings(&self) -> AdamWSettings {
        match self.memory.optimizer {
            OptimizerKind::AdamW => AdamWSettings {
                beta1: self.adam_beta1,
                beta2: self.adam_beta2,
                eps: self.adam_eps,
                weight_decay: self.weight_decay,
                clip: (self.max_grad_norm > 0.0).then_some(self.max_grad_norm),
            },
        }
    }
}
