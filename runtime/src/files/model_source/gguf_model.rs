//! A model in a GGUF file, or in the parts of a split one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_kernels::SharedBytes;

use super::{Part, PartShape, Stored};
use crate::error::{Error, Result};
use crate::files::formats::gguf::{has_magic, BytesOwner, Gguf, GgufSet, Metadata, PartName, TensorInfo};
use crate::files::formats::gguf_config::model_config;
use crate::files::formats::gguf_tokenizer::TokenizerKeys;
use crate::files::formats::sampling::of_metadata;
use crate::files::mapped_file::MappedFile;
use crate::model_config::ModelConfig;
use crate::sampler::SamplingOverrides;

/// Missing parts that a message names.
const MISSING_NAMED: usize = 8;

pub(super) struct GgufModel {
    /// Of each part, in order; the name of a file in memory.
    pub paths: Vec<PathBuf>,
    /// Of each part; none for a file in memory.
    pub files: Vec<Arc<MappedFile>>,
    pub config: ModelConfig,
    pub sampling: SamplingOverrides,
    set: GgufSet,
}

impl GgufModel {
    /// Opens a file, or all parts of a split one from any of them. The file's name is in front of errors.
    pub fn open(path: &Path) -> Result<GgufModel> {
        let paths = part_paths(path)?;
        let files = paths.iter().map(|path| MappedFile::open(path)).collect::<Result<Vec<_>>>()?;
        let parse = |(path, file): (&PathBuf, &Arc<MappedFile>)| {
            refuse_other_kinds(path, (**file).as_ref())
                .and_then(|()| Gguf::parse(file.clone()))
                .map_err(|e| e.in_file(path))
        };
        let mut tables = paths.iter().zip(&files).map(parse).collect::<Result<Vec<_>>>()?;
        let set = match tables.len() {
            1 => GgufSet::whole(tables.remove(0)).map_err(|e| e.in_file(path)),
            _ => GgufSet::join(tables).map_err(|(part, e)| e.in_file(&paths[part])),
        };
        GgufModel::new(set?, paths, files).map_err(|e| e.in_file(path))
    }

    /// A file in memory; `name` stands for its path. Errors are without it.
    pub fn from_bytes(name: &str, bytes: BytesOwner) -> Result<GgufModel> {
        GgufModel::new(GgufSet::whole(Gguf::parse(bytes)?)?, vec![PathBuf::from(name)], Vec::new())
    }

    /// Checks every weight's presence and shape. Errors are without the file's name.
    fn new(set: GgufSet, paths: Vec<PathBuf>, files: Vec<Arc<MappedFile>>) -> Result<GgufModel> {
        let config = model_config(&set)?;
        TokenizerKeys::read(set.metadata())?;
        let sampling = of_metadata(set.metadata())?;
        let model = GgufModel { paths, files, config, sampling, set };
        for (part, layer) in Part::of_model(&model.config) {
            model.check(part, layer)?;
        }
        Ok(model)
    }

    pub fn tokenizer_keys(&self) -> TokenizerKeys<'_> {
        TokenizerKeys::read(self.set.metadata()).expect("checked when the file was opened")
    }

    pub fn metadata(&self) -> &Metadata {
        self.set.metadata()
    }

    pub fn stored(&self, part: Part, layer: Option<usize>) -> Result<Stored> {
        let (file, tensor) = self.tensor(part, layer)?;
        Ok(Stored { format: tensor.format, bytes: file.tensor_bytes(tensor) })
    }

    pub fn file_bytes(&self, part: Part, layer: Option<usize>) -> usize {
        self.set.tensor(&part.gguf_name(layer)).map_or(0, |(_, t)| t.range.len())
    }

    /// Name, format and bytes of everything the weight is stored in.
    pub fn planes(&self, part: Part, layer: Option<usize>) -> Vec<(String, &'static str, SharedBytes)> {
        let found = self.set.tensor(&part.gguf_name(layer));
        found.map(|(file, t)| (t.name.clone(), t.format.name(), file.tensor_bytes(t))).into_iter().collect()
    }

    fn tensor(&self, part: Part, layer: Option<usize>) -> Result<(&Gguf, &TensorInfo)> {
        let name = part.gguf_name(layer);
        self.set.tensor(&name).ok_or_else(|| match layer {
            Some(_) => Error::input(format!(
                "tensor \"{name}\" is missing (the metadata says {} blocks)",
                self.config.n_layers
            )),
            None => Error::input(format!("tensor \"{name}\" is missing")),
        })
    }

    fn check(&self, part: Part, layer: Option<usize>) -> Result<()> {
        let (_, tensor) = self.tensor(part, layer)?;
        if let Some(axis) = tensor.shape().iter().position(|d| *d == 0) {
            return Err(Error::input(format!("tensor \"{}\": dimension {axis} is 0", tensor.name)));
        }
        check_shape(&tensor.name, tensor.shape(), part.shape(&self.config), "the metadata")
    }
}

/// The file, or all parts of the split it is one of, in order.
///
/// # Errors
/// A part is missing; each is named.
fn part_paths(path: &Path) -> Result<Vec<PathBuf>> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(PartName::parse).filter(|n| n.count > 1);
    let Some(name) = name else { return Ok(vec![path.to_path_buf()]) };
    let paths: Vec<PathBuf> = (1..=name.count).map(|number| path.with_file_name(name.of(number))).collect();
    let missing: Vec<usize> = (1..=name.count).filter(|number| !paths[number - 1].exists()).collect();
    match missing.len() {
        0 => Ok(paths),
        // None is there: the path is wrong, and the system's words for that are known.
        n if n == name.count => Ok(vec![path.to_path_buf()]),
        n => {
            let named: Vec<String> = missing.iter().take(MISSING_NAMED).map(|number| name.of(*number)).collect();
            let more = if n > MISSING_NAMED { format!(" and {} more", n - MISSING_NAMED) } else { String::new() };
            Err(Error::input(format!(
                "{n} of the model's {} parts {} missing beside it: {}{more}",
                name.count,
                if n == 1 { "is" } else { "are" },
                named.join(", ")
            ))
            .in_file(path))
        }
    }
}

/// Files of a model folder that were given for the folder.
fn refuse_other_kinds(path: &Path, bytes: &[u8]) -> Result<()> {
    let is_of_folder = path.extension().is_some_and(|e| e == "safetensors" || e == "json");
    match is_of_folder && !has_magic(bytes) {
        true => Err(Error::input("is one file of a model: pass the folder it is in")),
        false => Ok(()),
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
