//! A model in a Hugging Face folder.

use std::path::{Path, PathBuf};

use lichen_kernels::{Format, Matrix, SharedBytes};

use super::gguf_model::check_shape;
use super::{Part, PartShape, Stored, WeightBytes};
use crate::error::{Error, Result};
use crate::files::formats::bitsandbytes::{check_quantization_config, int8_matrix, scheme_of, Nf4Layout, Scheme};
use crate::files::formats::hf::{chat_template, Found, HfConfig, HfWeights};
use crate::files::formats::hf_config::model_config;
use crate::model_config::ModelConfig;
use crate::sampler::SamplingOverrides;

/// Where the text model sits: released text checkpoints, what transformers 5 and 4 write for multimodal Gemma 3, and a
/// bare base model.
const PREFIXES: [&str; 4] = ["model.", "model.language_model.", "language_model.model.", ""];
const HEADS: [&str; 2] = ["lm_head.weight", "language_model.lm_head.weight"];

pub(super) struct HfModel {
    pub dir: PathBuf,
    pub config: ModelConfig,
    pub weights: HfWeights,
    pub chat_template: Option<String>,
    pub stop_ids: Vec<u32>,
    pub bos_id: Option<u32>,
    pub sampling: SamplingOverrides,
    prefix: &'static str,
}

impl HfModel {
    /// Reads the JSON files and the tables, and checks every weight's presence and shape.
    pub fn open(dir: &Path) -> Result<HfModel> {
        let files = HfConfig::read(dir)?;
        let weights = HfWeights::open(dir)?;
        let in_config = |e: Error| e.in_file(&dir.join("config.json"));
        check_quantization_config(&files.config).map_err(in_config)?;
        let prefix = PREFIXES.into_iter().find(|p| weights.tensor(&format!("{p}embed_tokens.weight")).is_some());
        let Some(prefix) = prefix else {
            return Err(Error::input("tensor \"model.embed_tokens.weight\" is missing").in_file(dir));
        };
        let embedding = weights.tensor(&format!("{prefix}embed_tokens.weight")).expect("just found");
        let format = embedding.info.dtype.format().unwrap_or(Format::F32);
        let config = model_config(&files.config, format).map_err(in_config)?;
        let model = HfModel {
            dir: dir.to_path_buf(),
            weights,
            chat_template: chat_template(dir)?,
            stop_ids: files.stop_ids(config.vocab_size)?,
            bos_id: files.bos_id(config.vocab_size)?,
            sampling: files.sampling()?,
            config,
            prefix,
        };
        for (part, layer) in Part::of_model(&model.config) {
            model.check(part, layer)?;
        }
        Ok(model)
    }

    /// Norms are stored as `w` for a factor `1 + w`.
    pub fn norms_are_offsets(&self) -> bool {
        self.config.block.norm_is_offset
    }

    /// Refuses int8 folders: no kernel computes with them.
    pub fn refuse_int8(&self) -> Result<()> {
        for (part, layer) in Part::of_model(&self.config) {
            if let Some(Scheme::Int8 | Scheme::Quanto) = scheme_of(&self.weights, &self.name(part, layer)) {
                return Err(Error::input(
                    "holds int8 weights of bitsandbytes or quanto: convert them first with lichen-host quantize",
                )
                .in_file(&self.dir));
            }
        }
        Ok(())
    }

    pub fn is_plain(&self, part: Part, layer: Option<usize>) -> bool {
        scheme_of(&self.weights, &self.name(part, layer)).is_none()
    }

    /// A linear layer stored in one of the quantised schemes; `None` for a plain tensor.
    pub fn quantized(&self, part: Part, layer: Option<usize>, rows: usize, cols: usize) -> Result<Option<Matrix>> {
        let name = self.name(part, layer);
        let matrix = match scheme_of(&self.weights, &name) {
            None => return Ok(None),
            Some(Scheme::Nf4) => Nf4Layout::read(&self.weights, &name, rows, cols).and_then(|l| l.matrix()),
            Some(scheme) => int8_matrix(&self.weights, &name, scheme, rows, cols),
        };
        matrix.map(Some).map_err(|e| e.in_file(&self.dir))
    }

    /// Memory of the same; `None` for a plain tensor.
    pub fn quantized_memory(
        &self,
        part: Part,
        layer: Option<usize>,
        rows: usize,
        cols: usize,
    ) -> Result<Option<WeightBytes>> {
        let name = self.name(part, layer);
        Ok(match scheme_of(&self.weights, &name) {
            None => None,
            Some(Scheme::Nf4) => {
                let layout = Nf4Layout::read(&self.weights, &name, rows, cols).map_err(|e| e.in_file(&self.dir))?;
                let heap = layout.heap_bytes();
                let mapped = if heap == rows * cols * 4 { 0 } else { rows * cols / 2 };
                Some(WeightBytes { mapped, heap })
            }
            Some(Scheme::Int8 | Scheme::Quanto) => Some(WeightBytes { mapped: 0, heap: rows * cols * 4 }),
        })
    }

    pub fn stored(&self, part: Part, layer: Option<usize>) -> Result<Stored> {
        let found = self.find(part, layer)?;
        let format = self.plain_format(found)?;
        Ok(Stored { format, bytes: found.bytes() })
    }

    pub fn file_bytes(&self, part: Part, layer: Option<usize>) -> usize {
        self.planes(part, layer).iter().map(|(_, _, bytes)| bytes.as_slice().len()).sum()
    }

    /// Name, type and bytes of everything the weight is stored in: the tensor, and the parts of a quantised one.
    pub fn planes(&self, part: Part, layer: Option<usize>) -> Vec<(String, &'static str, SharedBytes)> {
        let name = self.name(part, layer);
        let parts = format!("{name}.");
        let scb = format!("{}SCB", name.strip_suffix("weight").unwrap_or(&name));
        let found = self.weights.tensor(&name).into_iter();
        let found = found.chain(self.weights.with_prefix(&parts)).chain(self.weights.tensor(&scb));
        found.map(|f| (f.info.name.clone(), f.info.dtype.name(), f.bytes())).collect()
    }

    pub fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.weights.shards().iter().map(|s| s.path.clone()).collect();
        let beside = ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"];
        files.extend(beside.iter().map(|name| self.dir.join(name)).filter(|path| path.exists()));
        files
    }

    fn name(&self, part: Part, layer: Option<usize>) -> String {
        if part == Part::Output {
            let present = HEADS.into_iter().find(|name| self.weights.tensor(name).is_some());
            return present.unwrap_or(HEADS[0]).to_string();
        }
        format!("{}{}", self.prefix, part.hf_name(self.config.architecture, layer))
    }

    fn find(&self, part: Part, layer: Option<usize>) -> Result<Found<'_>> {
        let name = self.name(part, layer);
        self.weights.tensor(&name).ok_or_else(|| self.missing(&name, layer))
    }

    fn missing(&self, name: &str, layer: Option<usize>) -> Error {
        let says = match layer {
            Some(_) => format!(" (config.json says {} layers)", self.config.n_layers),
            None => String::new(),
        };
        Error::input(format!("tensor \"{name}\" is missing{says}")).in_file(&self.dir)
    }

    fn plain_format(&self, found: Found) -> Result<Format> {
        found.info.dtype.format().ok_or_else(|| {
            Error::input(format!(
                "tensor \"{}\": {} is not a weight; F32, F16 or BF16 is needed",
                found.info.name,
                found.info.dtype.name()
            ))
            .in_file(&found.shard.path)
        })
    }

    fn check(&self, part: Part, layer: Option<usize>) -> Result<()> {
        let name = self.name(part, layer);
        let expected = part.shape(&self.config);
        match (scheme_of(&self.weights, &name), expected) {
            (Some(Scheme::Nf4), PartShape::Matrix(rows, cols)) => {
                Nf4Layout::read(&self.weights, &name, rows, cols).map(|_| ()).map_err(|e| e.in_file(&self.dir))
            }
            // Checked against its scales when it is converted.
            (Some(Scheme::Int8 | Scheme::Quanto), PartShape::Matrix(..)) => Ok(()),
            _ => {
                let found = self.find(part, layer)?;
                self.plain_format(found)?;
                check_shape(&found.info.name, found.info.shape(), expected, "config.json")
                    .map_err(|e| e.in_file(&found.shard.path))
            }
        }
    }
}
