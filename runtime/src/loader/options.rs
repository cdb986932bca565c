//! What to open, where to compute, and within which limits.

use std::fmt;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;

use lichen_kernels::cuda::{Cuda, CudaOptions, LEAST_CAPABILITY, NOT_COMPILED};
use lichen_kernels::Device;

use crate::board::device_config::{DeviceConfig, KvCacheChoice};
use crate::error::{Error, Result};
use crate::limits::{BatchLimits, Limits, CHUNK_MAX, DEFAULT_CHUNK, DEFAULT_CONTEXT};
use crate::memory_plan::available_memory::available_bytes;
use crate::memory_plan::{auto_kv_format, MemoryPlan, ModelBytes, Place};
use crate::model_config::ModelConfig;
use crate::setting::{CONTEXT, DEVICE};
use crate::text::chat_template::TemplateChoice;

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

impl DeviceChoice {
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> std::result::Result<DeviceChoice, String> {
        let wrong = || "auto, cpu, cuda or cuda:N".to_string();
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            _ => {
                let index = text.strip_prefix("cuda:").ok_or_else(wrong)?;
                index.parse::<u8>().map(|i| DeviceChoice::Cuda(usize::from(i))).map_err(|_| wrong())
            }
        }
    }
}

/// As [`DeviceChoice::parse`] takes it.
impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

/// An adapter on disk, and a factor for its strength.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterPath {
    pub path: PathBuf,
    pub scale: f32,
}

impl AdapterPath {
    /// `PATH` or `PATH:SCALE`. A path that exists is taken whole, whatever it ends in.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> std::result::Result<AdapterPath, String> {
        const SCALE_MAX: f32 = 100.0;
        let whole = AdapterPath { path: PathBuf::from(text), scale: 1.0 };
        if whole.path.exists() {
            return Ok(whole);
        }
        let Some((path, scale)) = text.rsplit_once(':') else { return Ok(whole) };
        match scale.parse::<f32>() {
            Ok(scale) if scale.abs() <= SCALE_MAX && !path.is_empty() => {
                Ok(AdapterPath { path: PathBuf::from(path), scale })
            }
            Ok(_) => Err(format!("a path, with a scale from -{SCALE_MAX} to {SCALE_MAX}")),
            // A colon inside a name.
            Err(_) => Ok(whole),
        }
    }
}

/// What to open, and within which limits. The default is the demo model on every core.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// A GGUF file or a Hugging Face folder; `None` for the demo model.
    pub model: Option<PathBuf>,
    /// By name; the first is the default.
    pub adapters: Vec<(String, AdapterPath)>,
    pub device: DeviceChoice,
    /// `None` for every core this process may use.
    pub threads: Option<usize>,
    /// `None` for what the system has left, where that is known.
    pub memory_budget: Option<usize>,
    /// A board's file, which says what holds where nothing is said here: see [`EngineOptions::with_board`].
    pub device_config: Option<PathBuf>,
    /// `None` for 2048, or what the model has.
    pub context: Option<usize>,
    /// What stands for the 2048 above, shortened to what the model has: a board's own.
    pub default_context: Option<usize>,
    /// Rows the prefill computes at once; `None` for 128.
    pub chunk: Option<usize>,
    /// `None` is auto, as [`KvCacheChoice::Auto`]; but a board's file may say otherwise.
    pub kv_cache: Option<KvCacheChoice>,
    /// Rows whose logits are kept at once: 1 to generate, more to score a text.
    pub logit_rows: usize,
    /// Sequences computed at once, each with a slot; `None` for one sequence on a ring.
    pub parallel: Option<usize>,
    /// `None` for the model's own chat template, or the built-in one that fits it.
    pub chat_template: Option<TemplateChoice>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        EngineOptions {
            model: None,
            adapters: Vec::new(),
            device: DeviceChoice::Auto,
            threads: None,
            memory_budget: None,
            device_config: None,
            context: None,
            default_context: None,
            chunk: None,
            kv_cache: None,
            logit_rows: 1,
            parallel: None,
            chat_template: None,
        }
    }
}

impl EngineOptions {
    /// What a session of a model of this shape may use. Refuses a context longer than the model's.
    pub fn limits(&self, config: &ModelConfig) -> Result<Limits> {
        let longest = config.context_length;
        let context = self.context.unwrap_or(longest.min(self.default_context.unwrap_or(DEFAULT_CONTEXT)));
        if context == 0 || context > longest {
            return Err(Error::usage(format!("{CONTEXT} is {context}; 1 to {longest} for this model")));
        }
        let of_session = self.chunk.unwrap_or(DEFAULT_CHUNK).min(context);
        let chunk = match self.parallel {
            None => of_session,
            Some(_) => self.chunk.unwrap_or(CHUNK_MAX).min(CHUNK_MAX).min(context),
        };
        Ok(Limits {
            context,
            chunk,
            logit_rows: self.logit_rows,
            // A batch keeps what a session of the same flags does: so its answers are the same.
            kv_format: match self.kv_cache {
                Some(KvCacheChoice::Format(format)) => format,
                Some(KvCacheChoice::Auto) | None => auto_kv_format(config, context, of_session),
            },
            n_threads: self.n_threads(),
            max_rank: 0,
        })
    }

    /// What was asked for, and what the board's file says where nothing was; and the file, for what else it says.
    ///
    /// # Errors
    /// The board's file cannot be read or says something it may not.
    pub fn with_board(self) -> Result<(EngineOptions, DeviceConfig)> {
        let board = self.device_config.as_deref().map(DeviceConfig::read).transpose()?.unwrap_or_default();
        Ok((self.or_board(&board), board))
    }

    /// What was asked for, and what a board's file says where nothing was.
    pub fn or_board(self, board: &DeviceConfig) -> EngineOptions {
        EngineOptions {
            threads: self.threads.or(board.threads),
            memory_budget: self.memory_budget.or(board.memory_budget_bytes()),
            default_context: self.default_context.or(board.context_tokens),
            chunk: self.chunk.or(board.prefill_chunk_tokens),
            kv_cache: self.kv_cache.or(board.kv_cache),
            ..self
        }
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
                Device::Cuda(cuda(ordinal).map_err(|e| Error::from(e).behind(format_args!("{DEVICE} cuda")))?)
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

    /// The bill of a session; or of a batch, whose pages hold as many sequences of the full context as there is room for,
    /// one at least.
    pub(super) fn plan(&self, config: &ModelConfig, bytes: ModelBytes, limits: Limits, device: &Device) -> MemoryPlan {
        let Some(n_slots) = self.parallel else { return MemoryPlan::on(device, config, bytes, limits, None) };
        let of = |n_contexts| MemoryPlan::on(device, config, bytes, limits, Some(BatchLimits { n_slots, n_contexts }));
        let mut plans = (1..=n_slots).rev().map(of);
        plans.find(|plan| self.check(plan, device).is_ok()).unwrap_or_else(|| of(1))
    }

    /// Refuses a plan that passes the budget, or without one, what the system and the GPU have left.
    pub(super) fn check(&self, plan: &MemoryPlan, device: &Device) -> Result<()> {
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

/// The first GPU this build has kernels for. An emulated one computes slower than the CPU that emulates it and is only
/// used when it is asked for.
fn first_gpu() -> Option<usize> {
    if NOT_COMPILED.is_some() {
        return None;
    }
    let devices = Cuda::list().ok()?;
    devices.iter().find(|d| !d.is_emulated() && d.capability >= LEAST_CAPABILITY).map(|d| d.ordinal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_with_a_scale() {
        let file = |path: &str, scale| Ok(AdapterPath { path: PathBuf::from(path), scale });
        assert_eq!(AdapterPath::parse("a/b"), file("a/b", 1.0));
        assert_eq!(AdapterPath::parse("a/b:0.5"), file("a/b", 0.5));
        assert_eq!(AdapterPath::parse("a:b"), file("a:b", 1.0));
        for text in ["a:nan", "a:inf", "a:1000", ":1"] {
            assert!(AdapterPath::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn devices() {
        for text in ["auto", "cpu", "cuda:0", "cuda:3"] {
            assert_eq!(DeviceChoice::parse(text).map(|device| device.to_string()), Ok(text.to_string()));
        }
        assert_eq!(DeviceChoice::parse("cuda"), Ok(DeviceChoice::Cuda(0)));
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:256", "cuda:-1"] {
            assert!(DeviceChoice::parse(text).is_err(), "{text}");
        }
    }
}
