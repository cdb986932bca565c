//! From a job's settings to files that are open, data that is counted and a memory plan that fits. No weight has been read.

use std::path::Path;
use std::sync::Arc;

use lichen_kernels::Device;
use lichen_runtime::engine::{self, EngineOptions};
use lichen_runtime::files::adapter_file::{AdapterFile, BaseCheck, BaseRecord};
use lichen_runtime::files::model_source::locate;
use lichen_runtime::memory_plan::ModelBytes;
use lichen_runtime::model::Model;
use lichen_runtime::setting::{ALLOW_OTHER_BASE, MODEL};
use lichen_runtime::text::chat_template::ChatTemplate;
use lichen_runtime::text::tokenizer::Tokenizer;
use lichen_runtime::{Error, ModelConfig, ModelSource, Result};
use serde_json::{Map, Value};

use super::evaluation::{answer_format, regression_prompt_bytes};
use super::{Job, MemorySettings, Method, Note, JOB_SETTINGS};
use crate::data::{find_files, read_regression_prompts, Dataset, RegressionPrompt, TextEncoder};
use crate::full::Full;
use crate::lora::Lora;
use crate::machine::{host, prepare_kernels, Machine};
use crate::network::{Mode, Network};
use crate::plan::{HostAndGpu, JobSize, TrainPlan};
use crate::schedule::Schedule;
use crate::setting::{DATA, EVAL_DATA, INIT_ADAPTER, LAYERS, MAX_SEQ, REGRESSION_PROMPTS};

/// A job that can start.
pub struct PreparedJob {
    pub job: Job,
    /// What the job and the board's file come to: threads, memory, device.
    pub engine: EngineOptions,
    /// The model's path, or the demo model's name.
    pub name: String,
    pub source: ModelSource,
    pub device: Arc<Device>,
    pub data: Dataset,
    pub regression_prompts: Vec<RegressionPrompt>,
    pub plan: TrainPlan,
    /// What the model is, for whoever goes on with what is trained.
    pub base: BaseRecord,
    /// What a person should know before the first step.
    pub notes: Vec<Note>,
    mode: Mode,
    init: Option<AdapterFile>,
}

impl PreparedJob {
    /// # Errors
    /// What is missing, malformed, not supported or too large, in one sentence.
    pub fn new(mut job: Job) -> Result<PreparedJob> {
        job.validate()?;
        let (engine, board) = job.memory.engine_options()?;
        job.max_board_temp_c = job.max_board_temp_c.or(board.max_board_temp_c);
        job.power_budget_mw = job.power_budget_mw.or(board.power_budget_mw);
        let device = engine.start_device()?;
        let machine = Machine::of(&device)?;
        let cpu = EngineOptions { device: engine::DeviceChoice::Cpu, ..engine.clone() };
        let engine::PreparedModel { name, source, tokenizer, .. } = engine::PreparedModel::new(&cpu)?;
        let config = source.config();
        check_model(&job.memory, config)?;
        let encoder = match &tokenizer {
            Some(tokenizer) => Some(text_encoder(&source, tokenizer).map_err(|e| e.in_file(Path::new(&name)))?),
            None => None,
        };
        let regression_prompts = match &job.regression_prompts {
            Some(path) if encoder.is_none() => {
                let what = format!("{REGRESSION_PROMPTS} asks in words, and the model has no tokenizer");
                return Err(Error::input(what).in_file(path));
            }
            Some(path) => read_regression_prompts(path)?,
            None => Vec::new(),
        };
        let init = match (&job.init_adapter, job.memory.method) {
            (Some(path), Method::Lora) => Some(AdapterFile::open(path, config)?),
            _ => None,
        };
        let base = BaseRecord::of(&source, tokenizer.as_deref())?;
        let mut notes = Vec::new();
        if let (Some(file), Some(path)) = (&init, &job.init_adapter) {
            notes.extend(check_base(file, path, &source, tokenizer.as_ref(), job.allow_other_base)?);
        }
        let mode = mode_of(&job.memory, job.alpha, config);
        let bytes = model_bytes(job.memory.method, &source, &machine)?;
        let bytes = ModelBytes { tokenizer: tokenizer.map_or(0, |t| t.memory_bytes()), ..bytes };
        let regression_prompt_bytes = match regression_prompts.is_empty() {
            true => HostAndGpu::default(),
            false => regression_prompt_bytes(config, &mode, engine.n_threads(), &device)?,
        };
        let plan = plan_of(&job.memory, config, bytes, &machine, regression_prompt_bytes, engine.memory_budget);
        plan.check(engine.memory_budget)?;
        // Last, because it reads the whole file.
        let data = open_data(&job, encoder, config.vocab_size)?;
        Ok(PreparedJob { name, source, device, data, regression_prompts, plan, base, notes, mode, init, job, engine })
    }

    /// Samples of an optimiser step.
    pub fn step_samples(&self) -> u64 {
        (self.job.memory.micro_batch_size * self.job.gradient_accumulation_steps) as u64
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
            peak: job.learning_rate(),
            floor: job.min_lr_ratio,
            warmup_steps: warmup.round() as u64,
            n_steps,
        }
    }

    /// Reads the weights and allocates what the plan says.
    pub fn load(&mut self) -> Result<Network> {
        let memory = &self.job.memory;
        let (formats, files) = match memory.method {
            Method::Lora => (Model::planned_formats(&self.source)?, self.device.clone()),
            Method::Full => (vec![memory.weights], Arc::new(host()?)),
        };
        let asks = !self.regression_prompts.is_empty();
        let answers = asks.then(|| answer_format(self.source.config(), &self.mode, &self.device)).transpose()?;
        prepare_kernels(&self.device, &formats, answers)?;
        // In full training the weights go through the host, where the network takes them over.
        let model = Arc::new(Model::load(&self.source, &files)?);
        let mode = mode_of(memory, self.job.alpha, &model.config);
        let (settings, rows, seed) = (self.job.optimizer_settings(), &self.plan.rows, self.job.seed);
        let mut network = Network::new(self.device.clone(), model, mode, settings, rows, memory.micro_batch_size)?;
        if let Mode::Lora(lora) = &self.mode {
            let mut loaded = Ok(());
            network.set_values(|values| match &self.init {
                Some(file) => loaded = lora.load(values, file),
                None => lora.initialise(values, seed),
            })?;
            loaded.map_err(|e| e.behind(INIT_ADAPTER))?;
        }
        Ok(network)
    }

    pub fn n_parameters(&self) -> usize {
        self.mode.n_parameters()
    }

    /// The folder of the run.
    pub fn out(&self) -> &Path {
        self.job.out.as_deref().expect("a validated job has one")
    }

    /// The files of rows to train on, for people: `rows.jsonl`, `a.jsonl, b.jsonl`.
    pub fn data_name(&self) -> String {
        let files = self.data.files().iter().filter(|file| !file.is_eval);
        files.map(|file| file.path.display().to_string()).collect::<Vec<_>>().join(", ")
    }

    /// What a resumed run must have the same, by name: everything that a trained value depends on, but for the model and the
    /// data.
    pub fn settings(&self) -> Map<String, Value> {
        let method = self.job.memory.method;
        let fixed = JOB_SETTINGS.iter().filter(|s| s.is_fixed && s.is_of(method));
        let mut settings: Map<String, Value> =
            fixed.map(|s| (s.setting.name().to_string(), as_json(s.get(&self.job)))).collect();
        if let Some(init) = settings.get_mut(INIT_ADAPTER.name()) {
            // What the file holds, wherever it lies.
            *init = self.init.as_ref().map_or(Value::Null, |file| crate::hex(&file.fingerprint()).into());
        }
        settings
    }
}

fn open_data(job: &Job, encoder: Option<TextEncoder>, vocab_size: usize) -> Result<Dataset> {
    let (train, eval) = (find_files(&job.data, DATA)?, find_files(&job.eval_data, EVAL_DATA)?);
    Dataset::open_files(&train, &eval, encoder, vocab_size, &job.data_options())
}

/// Numbers as numbers, and what was not given as null.
fn as_json(value: Option<String>) -> Value {
    let Some(text) = value else { return Value::Null };
    match text.parse::<Value>() {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => Value::String(text),
    }
}

fn text_encoder(source: &ModelSource, tokenizer: &Arc<Tokenizer>) -> Result<TextEncoder> {
    let own = source.chat_template();
    let template = ChatTemplate::new(own.as_deref(), source.config().architecture, tokenizer)?;
    Ok(TextEncoder::new(tokenizer.clone(), template))
}

/// Compares the base of the adapter that training starts from with the model; a note where they differ and may.
fn check_base(
    file: &AdapterFile,
    path: &Path,
    source: &ModelSource,
    tokenizer: Option<&Arc<Tokenizer>>,
    allow_other_base: bool,
) -> Result<Option<Note>> {
    let note = |text: String| Some(Note::new(format!("{}: {text}", path.display())));
    Ok(match file.base.check(source, || Ok(tokenizer)).map_err(|e| e.in_file(path))? {
        BaseCheck::Fits => None,
        BaseCheck::OtherFormat => note(format!("the adapter was made for {MODEL} in another format")),
        BaseCheck::OtherFile => note(format!(
            "the adapter was made for another file than {MODEL}; whether of the same model is not recorded"
        )),
        BaseCheck::OtherModel(why) if allow_other_base => {
            note(format!("the adapter was made for another model than {MODEL}: {why}"))
        }
        BaseCheck::OtherModel(why) => {
            return Err(Error::input(format!(
                "the adapter was made for another model than {MODEL} ({why}): {ALLOW_OTHER_BASE} goes on nevertheless"
            ))
            .in_file(path));
        }
    })
}

/// Combinations that cannot be had.
fn check_model(memory: &MemorySettings, config: &ModelConfig) -> Result<()> {
    let is_folder = memory.model.as_ref().is_some_and(|path| path.is_dir());
    if memory.method == Method::Full && !is_folder {
        return Err(Error::usage(format!(
            "{MODEL}: full training starts from a Hugging Face folder with float weights, and writes one"
        )));
    }
    check_layers(memory, config)?;
    if memory.max_seq > config.context_length {
        return Err(Error::usage(format!(
            "{MAX_SEQ} is {}; 2 to {} for this model",
            memory.max_seq, config.context_length
        )));
    }
    Ok(())
}

/// # Errors
/// A layer is to be trained that the model does not have.
pub fn check_layers(memory: &MemorySettings, config: &ModelConfig) -> Result<()> {
    match memory.layers.last().filter(|last| memory.method == Method::Lora && *last >= config.n_layers) {
        Some(last) => {
            Err(Error::usage(format!("{LAYERS} names layer {last}; 0 to {} in this model", config.n_layers - 1)))
        }
        None => Ok(()),
    }
}

fn mode_of(memory: &MemorySettings, alpha: f32, config: &ModelConfig) -> Mode {
    match memory.method {
        Method::Lora => Mode::Lora(Lora::new(config, memory.targets, &memory.layers, memory.rank, alpha)),
        Method::Full => Mode::Full(Full::new(config), memory.weights),
    }
}

/// What a model's files bring to the memory plan. No weight is read to say so.
///
/// # Errors
/// A weight is missing or of another shape.
pub fn model_bytes(method: Method, source: &ModelSource, machine: &Machine) -> Result<ModelBytes> {
    let is_full = method == Method::Full;
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

/// The memory plan of a job over a model of this shape.
pub fn plan_of(
    memory: &MemorySettings,
    config: &ModelConfig,
    bytes: ModelBytes,
    machine: &Machine,
    regression_prompts: HostAndGpu,
    budget: Option<usize>,
) -> TrainPlan {
    // Nothing that is planned depends on alpha.
    let mode = mode_of(memory, 1.0, config);
    let (rank, dropout, full_format) = match memory.method {
        Method::Lora => (memory.rank, memory.dropout, None),
        Method::Full => (0, 0.0, Some(memory.weights)),
    };
    let size = JobSize {
        n_parameters: mode.n_parameters(),
        first_layer: mode.first_layer(),
        full_format,
        batch: memory.micro_batch_size,
        max_seq: memory.max_seq,
        rank,
        has_dropout: dropout > 0.0,
        regression_prompts,
    };
    TrainPlan::new(config, bytes, &size, machine, memory.checkpoint_activations, budget)
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

impl PreparedJob {
    /// The files that go with full training's weights, byte for byte; none for an adapter.
    pub(super) fn companions(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let (Method::Full, Some(model)) = (self.job.memory.method, &self.engine.model) else { return Ok(Vec::new()) };
        let folder = locate(model)?;
        let there = COMPANIONS.iter().map(|name| (name, folder.join(name))).filter(|(_, path)| path.is_file());
        let read = |(name, path): (&&str, std::path::PathBuf)| match std::fs::read(&path) {
            Ok(bytes) => Ok((name.to_string(), bytes)),
            Err(e) => Err(Error::io(&path, &e)),
        };
        there.map(read).collect()
    }
}
