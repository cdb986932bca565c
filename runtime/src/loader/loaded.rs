//! A model ready to answer: weights, tokenizer, template, adapters, on one device and within one memory plan. It never changes,
//! and everything that answers with it shares it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use lichen_kernels::ops::{modules_for, modules_for_batch};
use lichen_kernels::{Device, Format};

use super::prepared::{plan_synthetic, synthetic_bytes, with_tables};
use super::text_model::{no_tokenizer, template_of};
use super::{AdapterSize, EngineOptions, NamedAdapter, PreparedModel};
use crate::error::{Error, Result};
use crate::files::model_source::ModelSource;
use crate::limits::Limits;
use crate::memory_plan::available_memory::available_bytes;
use crate::memory_plan::{mib, MemoryPlan, ModelBytes};
use crate::model::presets;
use crate::model::session::Session;
use crate::model::synthetic;
use crate::model::Model;
use crate::model_config::Architecture;
use crate::sampler::SamplerConfig;
use crate::text::chat_template::ChatTemplate;
use crate::text::stop::StopIds;
use crate::text::tokenizer::Tokenizer;

/// A model ready to answer; engines and sessions of it share its weights and threads.
pub struct LoadedModel {
    /// The path, or the demo model's or geometry's name.
    pub name: String,
    /// `None` for a synthetic model.
    pub source: Option<ModelSource>,
    pub model: Arc<Model>,
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Requests choose one by name; the first is the default.
    pub adapters: Vec<NamedAdapter>,
    /// What a person should know about them, a sentence each.
    pub notes: Vec<String>,
    pub device: Arc<Device>,
    pub plan: MemoryPlan,
    /// Every token that ends an answer.
    pub stop_ids: StopIds,
    /// How the model's makers sample from it.
    pub default_sampling: SamplerConfig,
    /// Seconds it took to open.
    pub load_s: f64,
    /// What the plan was made from.
    bytes: ModelBytes,
    memory_budget: Option<usize>,
    template: OnceLock<ChatTemplate>,
}

impl LoadedModel {
    /// Opens a model within its memory plan.
    ///
    /// # Errors
    /// What is missing, malformed or not supported, in one sentence that names the file; or the memory plan, when it passes
    /// the budget.
    pub fn open(options: &EngineOptions) -> Result<LoadedModel> {
        let start = Instant::now();
        let prepared = PreparedModel::new(options)?;
        options.check(&prepared.plan, &prepared.device).map_err(|e| prepared.with_tables(&e))?;
        if matches!(*prepared.device, Device::Cpu(_)) {
            for file in prepared.source.mapped_files() {
                file.advise_will_need(0..usize::MAX);
            }
        }
        prepare_kernels(&prepared.device, &Model::planned_formats(&prepared.source)?, &prepared.plan)?;
        let model = Arc::new(Model::load(&prepared.source, &prepared.device)?);
        let stop_ids = stop_ids(Some(&prepared.source), prepared.tokenizer.as_deref());
        // The demo model is too small to be sampled from.
        let default_sampling = match &options.model {
            Some(_) => prepared.source.sampling().resolve(default_sampling(model.config.architecture)),
            None => SamplerConfig::greedy(),
        };
        let loaded = LoadedModel {
            name: prepared.name,
            source: Some(prepared.source),
            tokenizer: prepared.tokenizer,
            adapters: prepared.adapters,
            notes: prepared.notes,
            stop_ids,
            default_sampling,
            load_s: start.elapsed().as_secs_f64(),
            bytes: prepared.bytes,
            memory_budget: options.memory_budget,
            ..LoadedModel::of(model, prepared.device, prepared.plan)
        };
        // What was asked for and cannot be used is refused before anything is answered.
        if let Some(choice) = &options.chat_template {
            let template = choice.open(loaded.tokenizer()?)?;
            loaded.template.get_or_init(|| template);
        }
        Ok(loaded)
    }

    /// A model of a released one's shape with random weights, made in memory.
    pub fn synthetic(name: &str, format: Format, options: &EngineOptions) -> Result<LoadedModel> {
        let start = Instant::now();
        let device = options.start_device()?;
        let plan = plan_synthetic(name, format, options, &device)?;
        options.check(&plan, &device)?;
        prepare_kernels(&device, &[format, synthetic::table_format(format)], &plan)?;
        let model = Arc::new(synthetic::model(presets::config(name)?, format, &device)?);
        Ok(LoadedModel {
            name: name.to_string(),
            load_s: start.elapsed().as_secs_f64(),
            bytes: synthetic_bytes(name, format, &device)?,
            memory_budget: options.memory_budget,
            ..LoadedModel::of(model, device, plan)
        })
    }

    /// A model that is in memory already, without text and end tokens: fields that differ are set by whoever has them.
    pub fn of(model: Arc<Model>, device: Arc<Device>, plan: MemoryPlan) -> LoadedModel {
        LoadedModel {
            name: "model".to_string(),
            source: None,
            default_sampling: default_sampling(model.config.architecture),
            model,
            tokenizer: None,
            adapters: Vec::new(),
            notes: Vec::new(),
            device,
            plan,
            stop_ids: StopIds::default(),
            load_s: 0.0,
            bytes: ModelBytes::default(),
            memory_budget: None,
            template: OnceLock::new(),
        }
    }

    /// A session of its own, for whoever measures or scores: it has the default adapter.
    ///
    /// # Errors
    /// The device has no room.
    pub fn session(&self) -> Result<Session> {
        let mut session = Session::new(self.model.clone(), self.device.clone(), &self.plan)?;
        session.set_adapter(self.adapters.first().map(|a| a.adapter.clone()))?;
        Ok(session)
    }

    /// # Errors: the model has no tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_deref().ok_or_else(|| no_tokenizer(&self.name))
    }

    /// The template that was asked for, the model's own, or the built-in one that fits it.
    ///
    /// # Errors
    /// The model has no tokenizer, or its own template cannot be used.
    pub fn chat_template(&self) -> Result<&ChatTemplate> {
        let architecture = self.model.config.architecture;
        template_of(&self.template, self.source.as_ref(), architecture, self.tokenizer()?, &self.name)
    }

    /// Refuses an adapter that passes the budget, or without one, what the system or the GPU has left. `others` are the bytes of
    /// those that stay, `max_rank` the rank that is planned for.
    pub(crate) fn check_adapter(&self, others: usize, size: AdapterSize, max_rank: usize) -> Result<()> {
        let rank = size.rank.max(max_rank);
        let model = ModelBytes { adapters: others + size.bytes, ..self.bytes };
        let plan = |max_rank| {
            let limits = Limits { max_rank, ..self.plan.limits };
            MemoryPlan::on(&self.device, &self.model.config, model, limits, self.plan.batch)
        };
        if self.memory_budget.is_some() {
            return plan(rank).check(self.memory_budget).map_err(|e| with_tables(&e, size.tables_bytes));
        }
        let scratch = plan(rank).total_bytes() - plan(max_rank).total_bytes();
        let more = scratch + if size.is_allocated { 0 } else { size.bytes };
        let (whose, left) = match &*self.device {
            Device::Cpu(_) => ("system", available_bytes()),
            Device::Cuda(cuda) => ("GPU", Some(cuda.free_bytes()?)),
        };
        match left.filter(|left| more > *left) {
            Some(left) => {
                let (more, left) = (mib(more), mib(left));
                let e = Error::limit(format!("the adapter needs {more} more, and the {whose} has {left} left"));
                Err(with_tables(&e, size.tables_bytes))
            }
            None => Ok(()),
        }
    }
}

/// Gemma 3's and Qwen 2.5's generation_config.json.
fn default_sampling(architecture: Architecture) -> SamplerConfig {
    let plain = SamplerConfig::default();
    match architecture {
        Architecture::Gemma3 => SamplerConfig { temperature: 1.0, top_k: 64, top_p: 0.95, ..plain },
        Architecture::Qwen2 => SamplerConfig { temperature: 0.7, top_k: 20, top_p: 0.8, repeat_penalty: 1.05, ..plain },
    }
}

/// Every token that ends an answer: those the files name, and the turn ends the tokenizer has.
pub fn stop_ids(source: Option<&ModelSource>, tokenizer: Option<&Tokenizer>) -> StopIds {
    let named = source.map(|s| s.stop_ids()).unwrap_or_default();
    match tokenizer {
        Some(tokenizer) => StopIds::from_tokenizer(tokenizer, &named),
        None => StopIds::new(named),
    }
}

/// Loads what a model of these formats launches, before its weights take memory that the driver's compiler needs: a launch
/// would load it too, one module after the other.
fn prepare_kernels(device: &Device, formats: &[Format], plan: &MemoryPlan) -> Result<()> {
    if let Device::Cuda(cuda) = device {
        match plan.batch {
            None => cuda.prepare(&modules_for(formats, plan.limits.kv_format))?,
            Some(_) => cuda.prepare(&modules_for_batch(formats, plan.limits.kv_format))?,
        }
    }
    Ok(())
}
