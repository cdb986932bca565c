//! A model whose files are open and checked, before any weight is read: what `plan` prints.

use std::sync::Arc;

use lichen_kernels::{Device, Format};

use super::{EngineOptions, NamedAdapter};
use crate::error::{Error, Result};
use crate::files::adapter_file::AdapterFile;
use crate::files::model_source::{ModelSource, TokenizerSource};
use crate::loader::demo;
use crate::memory_plan::{MemoryPlan, ModelBytes};
use crate::model::adapter::Adapter;
use crate::model::presets;
use crate::model::synthetic;
use crate::model::Model;
use crate::setting::ADAPTER;
use crate::text::tokenizer::Tokenizer;

/// A model whose files are open and checked, and whose memory plan is known. No weight has been read.
pub struct PreparedModel {
    /// The path, or the demo model's name.
    pub name: String,
    pub source: ModelSource,
    /// `None` for a folder without `tokenizer.json`.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Requests choose one by name; the first is the default.
    pub adapters: Vec<NamedAdapter>,
    pub device: Arc<Device>,
    pub plan: MemoryPlan,
    /// What the plan was made from.
    pub(super) bytes: ModelBytes,
}

impl PreparedModel {
    /// # Errors
    /// What is missing, malformed or not supported, in one sentence that names the file.
    pub fn new(options: &EngineOptions) -> Result<PreparedModel> {
        let device = options.start_device()?;
        let source = match &options.model {
            Some(path) => ModelSource::open(path)?,
            None => demo::source()?,
        };
        let config = source.config();
        let mut limits = options.limits(config)?;
        let names = options.adapters.iter().map(|(name, _)| name);
        if let Some(name) = names.clone().enumerate().find_map(|(i, n)| names.clone().skip(i + 1).find(|m| *m == n)) {
            return Err(Error::usage(format!("{ADAPTER} \"{name}\" is given twice")));
        }
        let adapters: Vec<NamedAdapter> = options
            .adapters
            .iter()
            .map(|(name, file)| {
                let adapter =
                    Arc::new(Adapter::new(AdapterFile::open(&file.path, config)?, config, file.scale, &device)?);
                Ok(NamedAdapter { name: name.clone(), adapter })
            })
            .collect::<Result<_>>()?;
        let tokenizer = open_tokenizer(&source)?.map(Arc::new);
        limits.max_rank = adapters.iter().map(|a| a.adapter.max_rank()).max().unwrap_or(0);
        let mut bytes = ModelBytes {
            tokenizer: tokenizer.as_ref().map_or(0, |t| t.memory_bytes()),
            adapters: adapters.iter().map(|a| a.adapter.size_bytes()).sum(),
            ..ModelBytes::default()
        };
        match &*device {
            Device::Cpu(_) => (bytes.mapped, bytes.heap) = Model::planned_bytes(&source)?,
            Device::Cuda(_) => (bytes.device, bytes.heap) = Model::planned_gpu_bytes(&source)?,
        }
        let plan = options.plan(config, bytes, limits, &device);
        let name = options.model.as_deref().map_or(demo::NAME.to_string(), |p| p.display().to_string());
        Ok(PreparedModel { name, source, tokenizer, adapters, device, plan, bytes })
    }
}

/// The memory plan of a synthetic model; nothing is allocated to say so.
pub fn plan_synthetic(name: &str, format: Format, options: &EngineOptions, device: &Device) -> Result<MemoryPlan> {
    let config = presets::config(name)?;
    let limits = options.limits(&config)?;
    let bytes = synthetic_bytes(name, format, device)?;
    Ok(options.plan(&config, bytes, limits, device))
}
/// What a synthetic model brings to a memory plan.
pub(super) fn synthetic_bytes(name: &str, format: Format, device: &Device) -> Result<ModelBytes> {
    let config = presets::config(name)?;
    Ok(match device {
        Device::Cpu(_) => ModelBytes { heap: synthetic::weights_bytes(&config, format)?, ..ModelBytes::default() },
        Device::Cuda(_) => {
            let (device, heap) = synthetic::gpu_bytes(&config, format)?;
            ModelBytes { device, heap, ..ModelBytes::default() }
        }
    })
}

pub(super) fn open_tokenizer(source: &ModelSource) -> Result<Option<Tokenizer>> {
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
