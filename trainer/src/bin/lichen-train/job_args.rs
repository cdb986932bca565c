//! The flags of a training job, which are also the keys of a job file.

use std::path::PathBuf;

use clap::Args;
use lichen_kernels::Format;
use lichen_runtime::cli::args::{number, DeviceArgs};
use lichen_runtime::Error;
use lichen_trainer::data::{DataOptions, OverLong};
use lichen_trainer::job::{Job, Kind};
use lichen_trainer::optimizer::Settings;
use lichen_trainer::plan::Recompute;
use lichen_trainer::schedule::Shape;

use crate::flags::TargetList;

/// What both kinds of training take.
#[derive(Args, Clone, Debug)]
pub struct JobArgs {
    /// A file with these flags as keys (`rank = 8`); flags on the command line win
    #[arg(value_name = "JOB.toml")]
    pub job_file: Option<PathBuf>,
    /// GGUF file or Hugging Face folder [default: the small demo model inside this program]
    #[arg(long, value_name = "PATH")]
    pub model: Option<PathBuf>,
    /// JSONL: Alpaca (instruction, input, output), chat (messages), or rows of input_ids and labels
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Folder of the run: checkpoints, metrics, and `current`, the link to what was published
    #[arg(long, value_name = "RUN_DIR")]
    pub out: Option<PathBuf>,
    /// Longest sample
    #[arg(long, value_name = "TOKENS", default_value = "256", value_parser = number(2usize, 1 << 20))]
    pub max_seq: usize,
    /// What happens to longer ones: cut (the first tokens are kept) or drop
    #[arg(long, value_name = "RULE", default_value = "cut", value_parser = over_long)]
    pub over_long: OverLong,
    /// Refuse the data at its first bad row instead of skipping up to 100
    #[arg(long)]
    pub strict: bool,
    /// Learn the questions too, not the answers alone
    #[arg(long)]
    pub train_on_prompt: bool,
    /// Take the rows in the order of the file
    #[arg(long)]
    pub no_shuffle: bool,
    /// Samples computed together; no padding is computed
    #[arg(long, value_name = "N", default_value = "1", value_parser = number(1usize, 4096))]
    pub batch: usize,
    /// Batches of one optimiser step
    #[arg(long, value_name = "N", default_value = "8", value_parser = number(1usize, 1 << 16))]
    pub accumulate: usize,
    /// Passes over the data
    #[arg(long, value_name = "N", default_value = "1", value_parser = number(1u64, 1 << 20))]
    pub epochs: u64,
    /// Optimiser steps at most
    #[arg(long, value_name = "N", value_parser = number(1u64, 1 << 40))]
    pub max_steps: Option<u64>,
    /// How the learning rate goes down: cosine, linear or constant
    #[arg(long, value_name = "SHAPE", default_value = "cosine", value_parser = Shape::parse)]
    pub schedule: Shape,
    /// Steps over which the learning rate rises; below 1 a share of all steps
    #[arg(long, value_name = "STEPS", default_value = "0.03", value_parser = number(0.0f64, 1e9))]
    pub warmup: f64,
    /// Where the schedule ends, as a share of the learning rate
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = number(0.0f64, 1.0))]
    pub final_rate: f64,
    #[arg(long, value_name = "X", default_value = "0", value_parser = number(0.0f64, 10.0))]
    pub weight_decay: f64,
    /// Longest gradient (global norm); 0 takes any
    #[arg(long, value_name = "NORM", default_value = "1.0", value_parser = number(0.0f64, 1e9))]
    pub clip: f64,
    /// The one optimiser there is: adamw
    #[arg(long, value_name = "NAME", default_value = "adamw", value_parser = optimizer)]
    pub optimizer: &'static str,
    #[arg(long, value_name = "X", default_value = "0.9", value_parser = number(0.0f64, 0.999_999))]
    pub adam_beta1: f64,
    #[arg(long, value_name = "X", default_value = "0.999", value_parser = number(0.0f64, 0.999_999))]
    pub adam_beta2: f64,
    #[arg(long, value_name = "X", default_value = "1e-8", value_parser = number(1e-30f64, 1.0))]
    pub adam_eps: f64,
    /// Compute layers again on the way back instead of keeping them: auto (those that do not fit), on or off
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = Recompute::parse)]
    pub checkpoint_activations: Recompute,
    /// Part of the rows that is never trained on and scores the result; 0 for none
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = number(0.0f64, 0.9))]
    pub eval_split: f64,
    /// Steps between evaluations [default: at the end alone]
    #[arg(long, value_name = "N", value_parser = number(1u64, 1 << 40))]
    pub eval_every: Option<u64>,
    /// JSONL of questions and what their answers must contain: {"prompt": "..", "expect": ".."}
    #[arg(long, value_name = "FILE")]
    pub canary: Option<PathBuf>,
    /// Steps between checkpoints [default: every ten minutes]
    #[arg(long, value_name = "N", value_parser = number(1u64, 1 << 40))]
    pub save_every: Option<u64>,
    /// Checkpoints that are kept, beside the best and the published ones
    #[arg(long, value_name = "N", default_value = "3", value_parser = number(1usize, 1000))]
    pub keep: usize,
    /// Go on from the last checkpoint in --out, or start when there is none
    #[arg(long, conflicts_with = "restart")]
    pub resume: bool,
    /// Remove the checkpoints in --out and begin again
    #[arg(long)]
    pub restart: bool,
    /// Resume although --data has changed
    #[arg(long)]
    pub allow_changed_data: bool,
    /// Of everything random: first values, order, dropout, split
    #[arg(long, value_name = "N", default_value = "0", value_parser = number(0u64, u64::MAX))]
    pub seed: u64,
    #[command(flatten)]
    pub device: DeviceArgs,
    /// Rest between steps so that the board draws this on average: 5000mW, 5W
    #[arg(long, value_name = "POWER", value_parser = power)]
    pub power_budget: Option<u32>,
    /// Save and pause above this temperature, resume 20 degrees below it [default: the board's, or 95]
    #[arg(long, value_name = "CELSIUS", value_parser = number(30.0f32, 125.0))]
    pub stop_temp: Option<f32>,
    /// Print one JSON object at the end
    #[arg(long)]
    pub json: bool,
}

impl JobArgs {
    /// The job, once it is known what is trained.
    ///
    /// # Errors
    /// A flag that is needed is missing, or two do not go together.
    pub fn job(&self, kind: Kind, learning_rate: f64) -> Result<Job, Error> {
        let needed = |flag: &str, path: &Option<PathBuf>| {
            path.clone().ok_or_else(|| Error::usage(format!("{flag} is missing; --help shows an example")))
        };
        let mut job = self.sized(kind, learning_rate)?;
        job.data = needed("--data", &self.data)?;
        job.out = needed("--out", &self.out)?;
        Ok(job)
    }

    /// The same for the bill alone, which needs neither data nor a folder.
    pub fn sized(&self, kind: Kind, learning_rate: f64) -> Result<Job, Error> {
        let data_options = DataOptions {
            max_seq: self.max_seq,
            over_long: self.over_long,
            strict: self.strict,
            train_on_prompt: self.train_on_prompt,
            eval_split: self.eval_split,
            seed: self.seed,
            shuffle: !self.no_shuffle,
        };
        let settings = Settings {
            beta1: self.adam_beta1,
            beta2: self.adam_beta2,
            eps: self.adam_eps,
            weight_decay: self.weight_decay,
            clip: (self.clip > 0.0).then_some(self.clip),
        };
        let (engine, board) = self.device.options(self.model.clone())?;
        Ok(Job {
            kind,
            engine,
            data: PathBuf::new(),
            out: PathBuf::new(),
            data_options,
            batch: self.batch,
            accumulate: self.accumulate,
            epochs: self.epochs,
            max_steps: self.max_steps,
            schedule: self.schedule,
            learning_rate,
            floor: self.final_rate,
            warmup: self.warmup,
            settings,
            recompute: self.checkpoint_activations,
            eval_every: self.eval_every,
            save_every: self.save_every,
            keep: self.keep,
            resume: self.resume,
            restart: self.restart,
            allow_changed_data: self.allow_changed_data,
            stop_temp_c: self.stop_temp.or(board.max_board_temp_c),
            power_budget_mw: self.power_budget.or(board.power_budget_mw),
            canary: self.canary.clone(),
            seed: self.seed,
        })
    }
}

/// What an adapter takes beside.
#[derive(Args, Clone, Debug)]
pub struct LoraFlags {
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value = "8", value_parser = number(1usize, 1024))]
    pub rank: usize,
    /// The adapter's product is scaled by alpha / rank
    #[arg(long, value_name = "X", default_value = "16", value_parser = number(1e-3f32, 1e6))]
    pub alpha: f32,
    /// Matrices with an adapter: all, or some of q,k,v,o,gate,up,down
    #[arg(long, value_name = "LIST", default_value = "all", value_parser = TargetList::parse)]
    pub targets: TargetList,
    /// Share of an adapter's inputs that is dropped in each step
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = number(0.0f32, 0.95))]
    pub dropout: f32,
    /// PEFT folder to start from, of the same rank, alpha and targets
    #[arg(long, value_name = "PEFT_DIR")]
    pub init_adapter: Option<PathBuf>,
    /// Highest learning rate
    #[arg(long, value_name = "X", default_value = "2e-4", value_parser = number(1e-12f64, 10.0))]
    pub learning_rate: f64,
}

impl LoraFlags {
    pub fn kind(&self) -> Kind {
        Kind::Lora {
            rank: self.rank,
            alpha: self.alpha,
            targets: self.targets.0,
            dropout: self.dropout,
            init: self.init_adapter.clone(),
        }
    }
}

/// What full training takes beside.
#[derive(Args, Clone, Debug)]
pub struct FullFlags {
    /// Format that the forward pass multiplies: f32 or bf16; the trained weights are f32 either way
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = float_format)]
    pub weights: Format,
    /// Highest learning rate
    #[arg(long, value_name = "X", default_value = "1e-5", value_parser = number(1e-12f64, 10.0))]
    pub learning_rate: f64,
}

impl FullFlags {
    pub fn kind(&self) -> Kind {
        Kind::Full { format: self.weights }
    }
}

fn float_format(text: &str) -> Result<Format, String> {
    match text {
        "f32" => Ok(Format::F32),
        "bf16" => Ok(Format::BF16),
        _ => Err("f32 or bf16".to_string()),
    }
}

fn over_long(text: &str) -> Result<OverLong, String> {
    match text {
        "cut" => Ok(OverLong::Cut),
        "drop" => Ok(OverLong::Drop),
        _ => Err("cut or drop".to_string()),
    }
}

fn optimizer(text: &str) -> Result<&'static str, String> {
    match text {
        "adamw" => Ok("adamw"),
        _ => Err("adamw".to_string()),
    }
}

/// Milliwatts.
fn power(text: &str) -> Result<u32, String> {
    let wrong = || "a power such as 5W or 5000mW, 100 mW to 1000 W".to_string();
    let (number, factor) = match (text.strip_suffix("mW"), text.strip_suffix('W')) {
        (Some(number), _) => (number, 1.0),
        (None, Some(number)) => (number, 1000.0),
        (None, None) => return Err(wrong()),
    };
    let mw = number.trim().parse::<f64>().map_err(|_| wrong())? * factor;
    match (100.0..=1e6).contains(&mw) {
        true => Ok(mw as u32),
        false => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers() {
        assert_eq!(power("5W"), Ok(5000));
        assert_eq!(power("7500mW"), Ok(7500));
        for text in ["5", "", "W", "-5W", "nanW", "infW", "1mW", "5kW"] {
            assert!(power(text).is_err(), "{text}");
        }
    }
}
