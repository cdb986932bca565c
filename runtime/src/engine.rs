//! From a path to a model that can answer, in one call: files, tokenizer, memory plan, weights, threads.
//!
//! [`Opened`] knows everything but holds no weights: what `plan` prints. [`Engine`] has loaded them.

mod options;

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lichen_kernels::ops::{modules_for, modules_for_batch};
use lichen_kernels::{Device, Format};

use crate::adapter::Adapter;
use crate::adapter_file::AdapterFile;
use crate::batch::Batch;
use crate::chat_template::ChatTemplate;
use crate::error::{Error, Result};
use crate::memory_plan::{MemoryPlan, ModelBytes};
use crate::model::Model;
use crate::model_config::{Architecture, ModelConfig};
use crate::model_source::{ModelSource, TokenizerSource};
use crate::sampler::SamplerConfig;
use crate::session::Session;
use crate::setting::TOKENS;
use crate::stop::StopIds;
use crate::tokenizer::Tokenizer;
use crate::{demo, presets, synthetic};

pub use options::{AdapterPath, DeviceChoice, EngineOptions};

/// A model whose files are open and checked, and whose bill is known. No weight has been read.
pub struct Opened {
    /// The path, or the demo model's name.
    pub name: String,
    pub source: ModelSource,
    /// `None` for a folder without `tokenizer.json`.
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub adapter: Option<Arc<Adapter>>,
    pub device: Arc<Device>,
    pub plan: MemoryPlan,
}

impl Opened {
    /// # Errors
    /// What is missing, malformed or not supported, in one sentence that names the file.
    pub fn new(options: &EngineOptions) -> Result<Opened> {
        let device = options.start_device()?;
        let source = match &options.model {
            Some(path) => ModelSource::open(path)?,
            None => demo::source()?,
        };
        let config = source.config();
        let mut limits = options.limits(config)?;
        let adapter = match &options.adapter {
            Some(file) => Some(Arc::new(load_adapter(file, config, &device)?)),
            None => None,
        };
        let tokenizer = open_tokenizer(&source)?.map(Arc::new);
        limits.max_rank = adapter.as_ref().map_or(0, |a| a.max_rank());
        let mut bytes = ModelBytes {
            tokenizer: tokenizer.as_ref().map_or(0, |t| t.memory_bytes()),
            adapters: adapter.as_ref().map_or(0, |a| a.size_bytes()),
            ..ModelBytes::default()
        };
        match &*device {
            Device::Cpu(_) => (bytes.mapped, bytes.heap) = Model::planned_bytes(&source)?,
            Device::Cuda(_) => (bytes.device, bytes.heap) = Model::planned_gpu_bytes(&source)?,
        }
        let plan = options.plan(config, bytes, limits, &device);
        let name = options.model.as_deref().map_or(demo::NAME.to_string(), |p| p.display().to_string());
        Ok(Opened { name, source, tokenizer, adapter, device, plan })
    }
}

/// A model ready to answer; sessions of it share its weights and threads.
pub struct Engine {
    /// The path, or the demo model's or geometry's name.
    pub name: String,
    /// `None` for a synthetic model.
    pub source: Option<ModelSource>,
    pub model: Arc<Model>,
    pub tokenizer: Option<Arc<Tokenizer>>,
    pub adapter: Option<Arc<Adapter>>,
    pub device: Arc<Device>,
    pub plan: MemoryPlan,
    /// Seconds it took to open.
    pub load_s: f64,
    is_demo: bool,
}

impl Engine {
    /// Opens a model within its memory plan.
    ///
    /// # Errors
    /// What is missing, malformed or not supported, in one sentence that names the file; or the bill, when it passes
    /// the budget.
    pub fn open(options: &EngineOptions) -> Result<Engine> {
        let start = Instant::now();
        let opened = Opened::new(options)?;
        options.check(&opened.plan, &opened.device)?;
        if matches!(*opened.device, Device::Cpu(_)) {
            for file in opened.source.mapped_files() {
                file.advise_will_need(0..usize::MAX);
            }
        }
        prepare_kernels(&opened.device, &Model::planned_formats(&opened.source)?, &opened.plan)?;
        let model = Arc::new(Model::load(&opened.source, &opened.device)?);
        Ok(Engine {
            name: opened.name,
            source: Some(opened.source),
            model,
            tokenizer: opened.tokenizer,
            adapter: opened.adapter,
            device: opened.device,
            plan: opened.plan,
            load_s: start.elapsed().as_secs_f64(),
            is_demo: options.model.is_none(),
        })
    }

    /// A model of a released one's shape with random weights, made in memory.
    pub fn synthetic(name: &str, format: Format, options: &EngineOptions) -> Result<Engine> {
        let start = Instant::now();
        let device = options.start_device()?;
        let plan = plan_synthetic(name, format, options, &device)?;
        options.check(&plan, &device)?;
        prepare_kernels(&device, &[format, synthetic::table_format(format)], &plan)?;
        let model = Arc::new(synthetic::model(presets::config(name)?, format, &device)?);
        Ok(Engine {
            name: name.to_string(),
            source: None,
            model,
            tokenizer: None,
            adapter: None,
            device,
            plan,
            load_s: start.elapsed().as_secs_f64(),
            is_demo: false,
        })
    }

    /// An empty conversation, with the adapter applied.
    ///
    /// # Errors
    /// The device has no room.
    pub fn session(&self) -> Result<Session> {
        let mut session = Session::new(self.model.clone(), self.device.clone(), &self.plan)?;
        session.set_adapter(self.adapter.clone())?;
        Ok(session)
    }

    /// A batch without requests, with the adapter applied: for an engine whose options said so.
    ///
    /// # Errors
    /// The device has no room, or the options asked for no batch.
    pub fn batch(&self) -> Result<Batch<'_>> {
        let (model, device, adapter) = (self.model.clone(), self.device.clone(), self.adapter.clone());
        Batch::new(model, device, adapter, &self.plan, self.tokenizer.as_deref(), self.stop_ids())
    }

    /// # Errors: the model has no tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_deref().ok_or_else(|| {
            Error::input(format!("no tokenizer.json in this folder: text needs one, {TOKENS} work without"))
                .in_file(Path::new(&self.name))
        })
    }

    /// The model's chat template, or the built-in one that fits it.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        let own = self.source.as_ref().and_then(|s| s.chat_template());
        let template = ChatTemplate::new(own.as_deref(), self.model.config.architecture, self.tokenizer()?);
        template.map_err(|e| e.in_file(Path::new(&self.name)))
    }

    /// Every token that ends an answer.
    pub fn stop_ids(&self) -> StopIds {
        stop_ids(self.source.as_ref(), self.tokenizer.as_deref())
    }

    /// How the model's makers sample from it: Gemma 3's and Qwen 2.5's generation_config.json. The demo model is too small
    /// to be sampled from.
    pub fn default_sampling(&self) -> SamplerConfig {
        let plain = SamplerConfig::default();
        if self.is_demo {
            return SamplerConfig::greedy();
        }
        match self.model.config.architecture {
            Architecture::Gemma3 => SamplerConfig { temperature: 1.0, top_k: 64, top_p: 0.95, ..plain },
            Architecture::Qwen2 => {
                SamplerConfig { temperature: 0.7, top_k: 20, top_p: 0.8, repeat_penalty: 1.05, ..plain }
            }
        }
    }

    /// Loads another adapter for this model.
    pub fn load_adapter(&self, file: &AdapterPath) -> Result<Arc<Adapter>> {
        load_adapter(file, &self.model.config, &self.device).map(Arc::new)
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

/// The bill of a synthetic model; nothing is allocated to say so.
pub fn plan_synthetic(name: &str, format: Format, options: &EngineOptions, device: &Device) -> Result<MemoryPlan> {
    let config = presets::config(name)?;
    let limits = options.limits(&config)?;
    let bytes = match device {
        Device::Cpu(_) => ModelBytes { heap: synthetic::weights_bytes(&config, format)?, ..ModelBytes::default() },
        Device::Cuda(_) => {
            let (device, heap) = synthetic::gpu_bytes(&config, format)?;
            ModelBytes { device, heap, ..ModelBytes::default() }
        }
    };
    Ok(options.plan(&config, bytes, limits, device))
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

fn open_tokenizer(source: &ModelSource) -> Result<Option<Tokenizer>> {
    let embedding_rows = source.config().vocab_size;
    match source.tokenizer()? {
        TokenizerSource::Arrays(arrays) => {
            let tokenizer = Tokenizer::from_arrays(arrays, embedding_rows);
            let file = source.files().into_iter().next().unwrap_or_default();
            tokenizer.map(Some).map_err(|e| e.in_file(&file))
        }
        TokenizerSource::Json(folder) => {
            let path = folder.join("tokenizer.json");
            // Token ids can be used without it.
            if !path.exists() {
                return Ok(None);
            }
            Tokenizer::from_json(&path, embedding_rows).map(Some)
        }
    }
}

fn load_adapter(file: &AdapterPath, config: &ModelConfig, device: &Device) -> Result<Adapter> {
    Adapter::new(AdapterFile::open(&file.path, config)?, config, file.scale, device)
}
