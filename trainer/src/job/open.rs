//! From a job's settings to files that are open, data that is counted and a bill that fits. No weight has been read.

use std::path::Path;
use std::sync::Arc;

use lichen_kernels::Device;
use lichen_runtime::adapter_file::AdapterFile;
use lichen_runtime::chat_template::ChatTemplate;
use lichen_runtime::engine::{self, EngineOptions};
use lichen_runtime::memory_plan::ModelBytes;
use lichen_runtime::model::Model;
use lichen_runtime::setting::MODEL;
use lichen_runtime::{Error, ModelConfig, ModelSource, Result};
use serde_json::{json, Map, Value};

use super::gate::{answer_format, canary_bytes};
use super::{Job, Kind};
use crate::data::{read_canaries, Canary, Dataset, TextEncoder};
use crate::full::Full;
use crate::lora::Lora;
use crate::machine::{host, prepare_kernels, Machine};
use crate::network::{Mode, Network};
use crate::plan::{HostAndGpu, JobSize, TrainPlan};
use crate::schedule::Schedule;
use crate::setting::{CANARY, INIT_ADAPTER, MAX_SEQ};

/// A job that can start.
pub struct Opened {
    pub job: Job,
    /// The model's path, or the demo model's name.
    pub name: String,
    pub source: ModelSource,
    pub device: Arc<Device>,
    pub data: Dataset,
    pub canaries: Vec<Canary>,
    pub plan: TrainPlan,
    mode: Mode,
    init: Option<AdapterFile>,
}

impl Opened {
    /// # Errors
    /// What is missing, malformed, not supported or too large, in one sentence.
    pub fn new(job: Job) -> Result<Opened> {
        let device = job.engine.start_device()?;
        let machine = Machine::of(&device)?;
        let cpu = EngineOptions { device: engine::DeviceChoice::Cpu, ..job.engine.clone() };
        let engine::Opened { name, source, tokenizer, .. } = engine::Opened::new(&cpu)?;
        let config = source.config();
        check_kind(&job, config)?;
        let encoder = match &tokenizer {
            Some(tokenizer) => {
                let own = source.chat_template();
                let template = ChatTemplate::new(own.as_deref(), config.architecture, tokenizer)
                    .map_err(|e| e.in_file(Path::new(&name)))?;
                Some(TextEncoder::new(tokenizer.clone(), template))
            }
            None => None,
        };
        let canaries = match &job.canary {
            Some(path) if encoder.is_none() => {
                return Err(
                    Error::input(format!("{CANARY} asks in words, and the model has no tokenizer")).in_file(path)
                )
            }
            Some(path) => read_canaries(path)?,
            None => Vec::new(),
        };
        let init = match &job.kind {
            Kind::Lora { init: Some(path), .. } => Some(AdapterFile::open(path, config)?),
            _ => None,
        };
        let mode = mode_of(&job.kind, config);
        let bytes = model_bytes(&job.kind, &source, &machine)?;
        let bytes = ModelBytes { tokenizer: tokenizer.map_or(0, |t| t.memory_bytes()), ..bytes };
        let canary_bytes = match canaries.is_empty() {
            true => HostAndGpu::default(),
            false => canary_bytes(config, &mode, job.engine.n_threads(), &device)?,
        };
        let plan = plan_of(&job, config, bytes, &machine, canary_bytes);
        plan.check(job.engine.memory_budget)?;
        // Last, because it reads the whole file.
        let data = Dataset::open(&job.data, encoder, config.vocab_size, &job.data_options)?;
        Ok(Opened { name, source, device, data, canaries, plan, mode, init, job })
    }

    /// Samples of an optimiser step.
    pub fn step_samples(&self) -> u64 {
        (self.job.batch * self.job.accumulate) as u64
    }

    /// Samples of the whole run.
    pub fn n_samples(&self) -> u64 {
        let all = self.data.n_train() as u64 * self.job.epochs;
        self.job.max_steps.map_or(all, |steps| all.min(steps.saturating_mul(self.step_samples())))
    }

    pub fn n_steps(&self) -> u64 {
        self.n_samples().div_ceil(self.step_samples())
    }

    pub fn schedule(&self) -> Schedule {
        let (job, n_steps) = (&self.job, self.n_steps());
        let warmup = if job.warmup < 1.0 { job.warmup * n_steps as f64 } else { job.warmup };
        Schedule {
            shape: job.schedule,
            peak: job.learning_rate,
            floor: job.floor,
            warmup_steps: warmup.round() as u64,
            n_steps,
        }
    }

    /// Reads the weights and allocates what the plan says.
    pub fn load(&mut self) -> Result<Network> {
        let (formats, files) = match &self.job.kind {
            Kind::Lora { .. } => (Model::planned_formats(&self.source)?, self.device.clone()),
            Kind::Full { format } => (vec![*format], Arc::new(host()?)),
        };
        let asks = !self.canaries.is_empty();
        let answers = asks.then(|| answer_format(self.source.config(), &self.mode, &self.device)).transpose()?;
        prepare_kernels(&self.device, &formats, answers)?;
        // In full training the weights go through the host, where the network takes them over.
        let model = Arc::new(Model::load(&self.source, &files)?);
        let mode = mode_of(&self.job.kind, &model.config);
        let job = &self.job;
        let mut network = Network::new(self.device.clone(), model, mode, job.settings, &self.plan.rows, job.batch)?;
        if let Mode::Lora(lora) = &self.mode {
            let mut loaded = Ok(());
            network.set_values(|values| match &self.init {
                Some(file) => loaded = lora.load(values, file),
                None => lora.initialise(values, job.seed),
            })?;
            loaded.map_err(|e| e.behind(INIT_ADAPTER))?;
        }
        Ok(network)
    }

    pub fn n_parameters(&self) -> usize {
        self.mode.n_parameters()
    }

    /// What a resumed run must have the same: everything that a parameter depends on.
    pub fn settings(&self) -> Map<String, Value> {
        let job = &self.job;
        let d = &job.data_options;
        let s = &job.settings;
        let kind = match &job.kind {
            Kind::Lora { rank, alpha, targets, dropout, .. } => {
                json!({"--rank": rank, "--alpha": alpha, "--targets": targets, "--dropout": dropout,
                       "--init-adapter": self.init.as_ref().map(|f| crate::hex(&f.fingerprint()))})
            }
            Kind::Full { format } => json!({"--format": format.name()}),
        };
        let mut settings = json!({
            "--max-seq": d.max_seq, "--over-long": format!("{:?}", d.over_long), "--train-on-prompt": d.train_on_prompt,
            "--eval-split": d.eval_split, "--no-shuffle": !d.shuffle, "--seed": job.seed,
            "--batch": job.batch, "--accumulate": job.accumulate, "--epochs": job.epochs, "--max-steps": job.max_steps,
            "--schedule": job.schedule.name(), "--learning-rate": job.learning_rate, "--final-rate": job.floor,
            "--warmup": job.warmup, "--adam-beta1": s.beta1, "--adam-beta2": s.beta2, "--adam-eps": s.eps,
            "--weight-decay": s.weight_decay, "--clip": s.clip, "--eval-every": job.eval_every,
        });
        let map = settings.as_object_mut().expect("an object");
        map.extend(kind.as_object().expect("an object").clone());
        std::mem::take(map)
    }
}

/// Combinations that cannot be had.
fn check_kind(job: &Job, config: &ModelConfig) -> Result<()> {
    let is_folder = job.engine.model.as_ref().is_some_and(|path| path.is_dir());
    if matches!(job.kind, Kind::Full { .. }) && !is_folder {
        return Err(Error::usage(format!(
            "{MODEL}: full training starts from a Hugging Face folder with float weights, and writes one"
        )));
    }
    if job.data_options.max_seq > config.context_length {
        return Err(Error::usage(format!(
            "{MAX_SEQ} is {}; 2 to {} for this model",
            job.data_options.max_seq, config.context_length
        )));
    }
    Ok(())
}

fn mode_of(kind: &Kind, config: &ModelConfig) -> Mode {
    match kind {
        Kind::Lora { rank, alpha, targets, .. } => Mode::Lora(Lora::new(config, *targets, *rank, *alpha)),
        Kind::Full { format } => Mode::Full(Full::new(config), *format),
    }
}

/// What a model's files bring to the bill. No weight is read to say so.
///
/// # Errors
/// A weight is missing or of another shape.
pub fn model_bytes(kind: &Kind, source: &ModelSource, machine: &Machine) -> Result<ModelBytes> {
    let is_full = matches!(kind, Kind::Full { .. });
    Ok(match machine.gpu {
        Some(_) if !is_full => {
            let (device, heap) = Model::planned_gpu_bytes(source)?;
            ModelBytes { device, heap, ..ModelBytes::default() }
        }
        _ => {
            let (mapped, heap) = Model::planned_bytes(source)?;
            ModelBytes { mapped, heap, ..ModelBytes::default() }
        }
    })
}

/// The bill of a job over a model of this shape.
pub fn plan_of(
    job: &Job,
    config: &ModelConfig,
    bytes: ModelBytes,
    machine: &Machine,
    canaries: HostAndGpu,
) -> TrainPlan {
    let mode = mode_of(&job.kind, config);
    let (rank, dropout, full_format) = match &job.kind {
        Kind::Lora { rank, dropout, .. } => (*rank, *dropout, None),
        Kind::Full { format } => (0, 0.0, Some(*format)),
    };
    let size = JobSize {
        n_parameters: mode.n_parameters(),
        full_format,
        batch: job.batch,
        max_seq: job.data_options.max_seq,
        rank,
        has_dropout: dropout > 0.0,
        canaries,
    };
    TrainPlan::new(config, bytes, &size, machine, job.recompute, job.engine.memory_budget)
}

/// Files beside the weights of a Hugging Face folder, so that what full training writes opens like what it started from.
const COMPANIONS: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
];

impl Opened {
    /// The files that go with full training's weights, byte for byte; none for an adapter.
    pub(super) fn companions(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let (Kind::Full { .. }, Some(folder)) = (&self.job.kind, &self.job.engine.model) else { return Ok(Vec::new()) };
        let there = COMPANIONS.iter().map(|name| (name, folder.join(name))).filter(|(_, path)| path.is_file());
        let read = |(name, path): (&&str, std::path::PathBuf)| match std::fs::read(&path) {
            Ok(bytes) => Ok((name.to_string(), bytes)),
            Err(e) => Err(Error::io(&path, &e)),
        };
        there.map(read).collect()
    }
}
