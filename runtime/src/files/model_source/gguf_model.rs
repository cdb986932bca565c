//! A model in a GGUF file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_kernels::SharedBytes;

use super::{Part, PartShape, Stored};
use crate::error::{Error, Result};
use crate::files::formats::gguf::{BytesOwner, Gguf, Metadata, TensorInfo};
use crate::files::formats::gguf_config::{model_config, TokenizerKeys};
use crate::files::formats::sampling::of_metadata;
use crate::files::mapped_file::MappedFile;
use crate::model_config::ModelConfig;
use crate::sampler::SamplingOverrides;

pub(super) struct GgufModel {
    pub path: PathBuf,
    /// `None` for a file in memory.
    pub file: Option<Arc<MappedFile>>,
    pub config: ModelConfig,
    pub sampling: SamplingOverrides,
    gguf: Gguf,
}

impl GgufModel {
    /// Reads the tables and checks every weight's presence and shape. Errors are without the file's name.
    pub fn new(path: &Path, bytes: BytesOwner, file: Option<Arc<MappedFile>>) -> Result<GgufModel> {
        let gguf = Gguf::parse(bytes)?;
        let config = model_config(&gguf)?;
        TokenizerKeys::read(gguf.metadata())?;
        let sampling = of_metadata(gguf.metadata())?;
        let model = GgufModel { path: path.to_path_buf(), file, config, sampling, gguf };
        for (part, layer) in Part::of_model(&model.config) {
            model.check(part, layer)?;
        }
        Ok(model)
    }

    pub fn tokenizer_keys(&self) -> TokenizerKeys<'_> {
        TokenizerKeys::read(self.gguf.metadata()).expect("checked when the file was opened")
    }

    pub fn metadata(&self) -> &Metadata {
        self.gguf.metadata()
    }

    pub fn stored(&self, part: Part, layer: Option<usize>) -> Result<Stored> {
        let tensor = self.tensor(part, layer)?;
        Ok(Stored { format: tensor.format, bytes: self.gguf.tensor_bytes(tensor) })
    }

    pub fn file_bytes(&self, part: Part, layer: Option<usize>) -> usize {
        self.gguf.tensor(&part.gguf_name(layer)).map_or(0, |t| t.range.len())
    }

    /// Name, format and bytes of everything the weight is stored in.
    pub fn planes(&self, part: Part, layer: Option<usize>) -> Vec<(String, &'static str, SharedBytes)> {
        let tensor = self.gguf.tensor(&part.gguf_name(layer));
        tensor.map(|t| (t.name.clone(), t.format.name(), self.gguf.tensor_bytes(t))).into_iter().collect()
    }

    fn tensor(&self, part: Part, layer: Option<usize>) -> Result<&TensorInfo> {
        let name = part.gguf_name(layer);
        self.gguf.tensor(&name).ok_or_else(|| match layer {
            Some(_) => Error::input(format!(
                "tensor \"{name}\" is missing (the metadata says {} blocks)",
                self.config.n_layers
            )),
            None => Error::input(format!("tensor \"{name}\" is missing")),
        })
    }

    fn check(&self, part: Part, layer: Option<usize>) -> Result<()> {
        let tensor = self.tensor(part, layer)?;
        if let Some(axis) = tensor.shape().iter().position(|d| *d == 0) {
            return Err(Error::input(format!("tensor \"{}\": dimension {axis} is 0", tensor.name)));
        }
        check_shape(&tensor.name, tensor.shape(), part.shape(&self.config), "the metadata")
    }
}

/// Refuses another shape than the config implies, naming both.
pub(super) fn check_shape(name: &str, found: &[usize], expected: PartShape, by: &str) -> Result<()> {
    let (text, same) = match expected {
        PartShape::Vector(n) => (n.to_string(), found == [n]),
        PartShape::Matrix(rows, cols) => (format!("{rows} x {cols}"), found == [rows, cols]),
    };
    if same {
        return Ok(());
    }
    let here = match found {
        [] => "a scalar".to_string(),
        dims => dims.iter().map(usize::to_string).collect::<Vec<_>>().join(" x "),
    };
    Err(Error::input(format!("tensor \"{name}\": {here} here, {text} by {by}")))
}
