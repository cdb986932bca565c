//! From a path to a model that can answer, in one call: files, tokenizer, memory plan, weights, threads.
//!
//! [`Opened`] knows everything but holds no weights: what `plan` prints. [`Engine`] has loaded them.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lichen_kernels::cuda::{Cuda, CudaOptions, LEAST_CAPABILITY, NOT_COMPILED};
use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::ops::modules_for;
use lichen_kernels::{Device, Format};

use crate::adapter::Adapter;
use crate::adapter_file::AdapterFile;
use crate::available_memory::available_bytes;
use crate::chat_template::ChatTemplate;
use crate::error::{Error, Result};
use crate::memory_plan::{auto_kv_format, Limits, MemoryPlan, ModelBytes, Place, DEFAULT_CHUNK, DEFAULT_CONTEXT};
use crate::model::Model;
use crate::model_config::{Architecture, ModelConfig};
use crate::model_source::{ModelSource, TokenizerSource};
use crate::sampler::SamplerConfig;
use crate::session::Session;
use crate::stop::StopIds;
use crate::tokenizer::Tokenizer;
use crate::{demo, geometry};

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best one this build can use.
    #[default]
    Auto,
    Cpu,
    /// The GPU of this index.
    Cuda(usize),
}

/// An adapter on disk, and a factor for its strength.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterPath {
    pub path: PathBuf,
    pub scale: f32,
}

/// What to open, and within which limits. The default is the demo model on every core.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// A GGUF file or a Hugging Face folder; `None` for the demo model.
    pub model: Option<PathBuf>,
    pub adapter: Option<AdapterPath>,
    pub device: DeviceChoice,
    /// `None` for every core this process may use.
    pub threads: Option<usize>,
    /// `None` for what the system has left, where that is known.
    pub memory_budget: Option<usize>,
    /// `None` for 2048, or what the model has.
    pub context: Option<usize>,
    /// What stands for the 2048 above, shortened to what the model has: a board's own.
    pub usual_context: Option<usize>,
    /// Rows the prefill computes at once; `None` for 128.
    pub chunk: Option<usize>,
    /// `None` for f32 where that is small, else f16.
    pub kv_format: Option<KvFormat>,
    /// Rows whose logits are kept at once: 1 to generate, more to score a text.
    pub logit_rows: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            model: None,
            adapter: None,
            device: DeviceChoice::Auto,
            threads: None,
            memory_budget: None,
            context: None,
            usual_context: None,
            chunk: None,
            kv_format: None,
            logit_rows: 1,
        }
    }
}

impl EngineOptions {
    /// What a session of a model of this shape may use. Refuses a context longer than the model's.
    pub fn limits(&self, config: &ModelConfig) -> Result<Limits> {
        let longest = config.context_length;
        let context = self.context.unwrap_or(longest.min(self.usual_context.unwrap_or(DEFAULT_CONTEXT)));
        if context == 0 || context > longest {
            return Err(Error::usage(format!("--context is {context}; 1 to {longest} for this model")));
        }
        let chunk = self.chunk.unwrap_or(DEFAULT_CHUNK).min(context);
        Ok(Limits {
            context,
            chunk,
            logit_rows: self.logit_rows,
            kv_format: self.kv_format.unwrap_or_else(|| auto_kv_format(config, context, chunk)),
            n_threads: self.n_threads(),
            max_rank: 0,
        })
    }

    pub fn n_threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get))
    }

    /// Opens the GPU, or starts the threads.
    ///
    /// # Errors
    /// The device that was asked for cannot be used, and why.
    pub fn start_device(&self) -> Result<Arc<Device>> {
        let cuda = |ordinal| Cuda::open(&CudaOptions { ordinal, ..CudaOptions::default() });
        let device = match self.device {
            DeviceChoice::Cuda(ordinal) => {
                Device::Cuda(cuda(ordinal).map_err(|e| Error::from(e).in_flag("--device cuda"))?)
            }
            DeviceChoice::Auto => match first_gpu().map(cuda) {
                Some(Ok(cuda)) => Device::Cuda(cuda),
                Some(Err(e)) => {
                    log::warn!("computing on the CPU: {e}");
                    self.start_cpu()?
                }
                None => self.start_cpu()?,
            },
            DeviceChoice::Cpu => self.start_cpu()?,
        };
        Ok(Arc::new(device))
    }

    fn start_cpu(&self) -> Result<Device> {
        let n = self.n_threads();
        Device::cpu(n).map_err(|e| Error::limit(format!("{n} threads could not be started: {e}")))
    }

    /// Refuses a plan that passes the budget, or without one, what the system and the GPU have left.
    fn check(&self, plan: &MemoryPlan, device: &Device) -> Result<()> {
        if self.memory_budget.is_some() {
            return plan.check(self.memory_budget);
        }
        let host = match device {
            Device::Cuda(cuda) if cuda.info().is_integrated => [Place::Host, Place::Device].as_slice(),
            _ => &[Place::Host],
        };
        if let Some(available) = available_bytes() {
            plan.check_available(host, "system", available)?;
        }
        match device {
            Device::Cuda(cuda) => plan.check_available(&[Place::Device], "GPU", cuda.free_bytes()?),
            Device::Cpu(_) => Ok(()),
        }
    }
}

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
        let plan = match &*device {
            Device::Cpu(_) => {
                (bytes.mapped, bytes.heap) = Model::planned_bytes(&source)?;
                MemoryPlan::new(config, bytes, limits)
            }
            Device::Cuda(cuda) => {
                (bytes.device, bytes.heap) = Model::planned_gpu_bytes(&source)?;
                MemoryPlan::on_gpu(config, bytes, limits, cuda)
            }
        };
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
        prepare_kernels(&device, &[format, geometry::table_format(format)], &plan)?;
        let model = Arc::new(geometry::synthetic(geometry::config(name)?, format, &device)?);
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

    /// # Errors: the model has no tokenizer.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_deref().ok_or_else(|| {
            Error::input("no tokenizer.json in this folder: text needs one, --tokens works without")
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
    let config = geometry::config(name)?;
    let limits = options.limits(&config)?;
    match device {
        Device::Cpu(_) => {
            let bytes = ModelBytes { heap: geometry::weights_bytes(&config, format)?, ..ModelBytes::default() };
            Ok(MemoryPlan::new(&config, bytes, limits))
        }
        Device::Cuda(cuda) => {
            let (device, heap) = geometry::gpu_bytes(&config, format)?;
            let bytes = ModelBytes { device, heap, ..ModelBytes::default() };
            Ok(MemoryPlan::on_gpu(&config, bytes, limits, cuda))
        }
    }
}

/// Loads what a model of these formats launches, before its weights take memory that the driver's compiler needs: a launch
/// would load it too, one module after the other.
fn prepare_kernels(device: &Device, formats: &[Format], plan: &MemoryPlan) -> Result<()> {
    if let Device::Cuda(cuda) = device {
        cuda.prepare(&modules_for(formats, plan.limits.kv_format))?;
    }
    Ok(())
}

/// The first GPU this build has kernels for. An emulated one computes slower than the CPU that emulates it and is only
/// used when it is asked for.
fn first_gpu() -> Option<usize> {
    if NOT_COMPILED.is_some() {
        return None;
    }
    let devices = Cuda::list().ok()?;
    devices.iter().find(|d| !d.is_emulated() && d.capability >= LEAST_CAPABILITY).map(|d| d.ordinal)
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
