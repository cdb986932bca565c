//! LoRA adapters on disk: PEFT folders and GGUF adapters, checked against the model they are to be applied to; and the
//! writer of PEFT folders.

mod base;
mod gguf;
mod peft;
mod peft_config;
mod peft_modules;
mod peft_pattern;
mod peft_table;
mod peft_tensor;
mod peft_write;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use lichen_kernels::Matrix;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::formats::gguf::{has_magic, BytesOwner};
use crate::files::mapped_file::MappedFile;
use crate::files::model_source::{Part, PartShape};
use crate::model_config::ModelConfig;

pub use base::{BaseCheck, BaseRecord};
pub use peft::{CONFIG_FILE, WEIGHTS_FILE};
pub use peft_config::{ModuleRule, PeftConfig};
pub use peft_write::{PeftAdapter, PeftTensor};

/// Largest rank taken. Ranks in the wild are 4 to 256.
pub const MAX_RANK: usize = 1024;

/// The matrices of a block an adapter may touch.
const TARGETS: [Part; 7] =
    [Part::AttnQ, Part::AttnK, Part::AttnV, Part::AttnOutput, Part::FfnGate, Part::FfnUp, Part::FfnDown];

/// A low-rank pair beside one matrix: `y += scale * B (A x)`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterTarget {
    pub part: Part,
    pub layer: usize,
    pub rank: usize,
    /// alpha / rank, or alpha / sqrt(rank) for rank-stabilised LoRA.
    pub scale: f32,
    /// `(rank, inputs)`, row-major.
    pub a: Vec<f32>,
    /// `(outputs, rank)`, row-major.
    pub b: Vec<f32>,
}

/// An adapter as its files have it. Holding one proves: each target exists in the model the file was opened for, shapes fit
/// it, every value is finite, and what of the files is not used stands in `notes`.
#[derive(Clone, Debug)]
pub struct AdapterFile {
    /// By layer, then in the order q, k, v, o, gate, up, down; at least one.
    pub targets: Vec<AdapterTarget>,
    pub tables: Tables,
    /// The base model as the files name it; a hint for messages, not checked.
    pub base_name: Option<String>,
    /// The base as its maker recorded it.
    pub base: BaseRecord,
    /// What a person should know about the files, a sentence each.
    pub notes: Vec<String>,
}

/// A whole embedding and a whole head, each `(vocab_size, dim)`, that stand in place of the base's (PEFT's
/// `modules_to_save`), in the file's own bytes.
#[derive(Clone, Default)]
pub struct Tables {
    pub embedding: Option<Matrix>,
    pub head: Option<Matrix>,
}

impl Tables {
    pub fn is_empty(&self) -> bool {
        self.embedding.is_none() && self.head.is_none()
    }

    /// One where both are the same.
    pub fn each(&self) -> impl Iterator<Item = &Matrix> {
        let is_shared = matches!((&self.embedding, &self.head), (Some(a), Some(b)) if is_same(a, b));
        self.embedding.iter().chain(self.head.iter().filter(move |_| !is_shared))
    }

    pub fn size_bytes(&self) -> usize {
        self.each().map(Matrix::size_bytes).sum()
    }
}

/// Whether two matrices of files are the same bytes in memory.
fn is_same(a: &Matrix, b: &Matrix) -> bool {
    std::ptr::eq(a.bytes(), b.bytes())
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |table: &Option<Matrix>| table.as_ref().map(|m| format!("{} {} x {}", m.format(), m.rows(), m.cols()));
        f.debug_struct("Tables").field("embedding", &shown(&self.embedding)).field("head", &shown(&self.head)).finish()
    }
}

impl AdapterFile {
    /// Pairs alone, of no file.
    pub fn of(targets: Vec<AdapterTarget>) -> AdapterFile {
        let (tables, base) = (Tables::default(), BaseRecord::default());
        AdapterFile { targets, tables, base_name: None, base, notes: Vec::new() }
    }

    /// Opens a PEFT folder (`adapter_config.json`, `adapter_model.safetensors`) or a GGUF adapter for `config`. What of the
    /// files is not used is logged as warnings.
    ///
    /// # Errors
    /// What is missing, malformed, not supported or made for another model, in one sentence that names the file.
    pub fn open(path: &Path, config: &ModelConfig) -> Result<AdapterFile> {
        let file = AdapterFile::open_quietly(path, config)?;
        for note in &file.notes {
            log::warn!("{}: {note}", path.display());
        }
        Ok(file)
    }

    fn open_quietly(path: &Path, config: &ModelConfig) -> Result<AdapterFile> {
        if path.is_dir() {
            return peft::open(path, config);
        }
        let file = MappedFile::open(path)?;
        if !has_magic((*file).as_ref()) {
            let why = match path.extension().and_then(|e| e.to_str()) {
                Some("safetensors") => "is one file of an adapter: pass the folder it is in",
                Some("bin" | "pt" | "pth") => "is a pickle, which is not read: save the adapter as safetensors",
                _ => "is neither a PEFT folder nor a GGUF adapter",
            };
            return Err(Error::input(why).in_file(path));
        }
        AdapterFile::from_gguf(file, config).map_err(|e| e.in_file(path))
    }

    /// A GGUF adapter in memory. Errors are without a file's name.
    pub fn from_gguf(bytes: BytesOwner, config: &ModelConfig) -> Result<AdapterFile> {
        gguf::parse(bytes, config)
    }

    /// A PEFT adapter in memory: the bytes of [`CONFIG_FILE`] and of [`WEIGHTS_FILE`]. Errors name one of the two.
    pub fn from_peft(peft: &[u8], weights: BytesOwner, config: &ModelConfig) -> Result<AdapterFile> {
        peft::parse(peft, weights, config)
    }

    pub fn max_rank(&self) -> usize {
        self.targets.iter().map(|t| t.rank).max().unwrap_or(0)
    }

    /// Bytes of all pairs and tables.
    pub fn size_bytes(&self) -> usize {
        self.targets.iter().map(|t| 4 * (t.a.len() + t.b.len())).sum::<usize>() + self.tables.size_bytes()
    }

    /// sha256 over the targets, ranks, scales, values and tables: the same for the same adapter in either format.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for target in &self.targets {
            hash.update(format!("{:?} {} {} {:08x}\n", target.part, target.layer, target.rank, target.scale.to_bits()));
            hash.update(bytemuck::cast_slice::<f32, u8>(&target.a));
            hash.update(bytemuck::cast_slice::<f32, u8>(&target.b));
        }
        for (name, table) in [("embedding", &self.tables.embedding), ("head", &self.tables.head)] {
            if let Some(table) = table {
                hash.update(format!("{name} {}\n", table.format()));
                hash.update(table.bytes());
            }
        }
        hash.finalize().into()
    }
}

/// Which of the two matrices of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    A,
    B,
}

/// One matrix as a file has it.
struct HalfMatrix {
    /// As messages quote it.
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

/// Collects halves and checks the pairs they make.
struct Pairs<'a> {
    config: &'a ModelConfig,
    /// By (layer, index in [`TARGETS`]).
    halves: BTreeMap<(usize, usize), [Option<HalfMatrix>; 2]>,
}

impl<'a> Pairs<'a> {
    fn new(config: &'a ModelConfig) -> Self {
        Pairs { config, halves: BTreeMap::new() }
    }

    /// # Errors: no such layer, not a matrix, values that are not finite, or the half is already there.
    fn add(&mut self, part: Part, layer: usize, half: Half, matrix: HalfMatrix) -> Result<()> {
        let name = &matrix.name;
        if layer >= self.config.n_layers {
            let message = format!("\"{name}\" is for layer {layer}; the model has {} layers", self.config.n_layers);
            return Err(Error::input(message));
        }
        if matrix.shape.len() != 2 {
            return Err(Error::input(format!("\"{name}\" has {} dimensions; 2 are needed", matrix.shape.len())));
        }
        let n_bad = matrix.values.iter().filter(|v| !v.is_finite()).count();
        if n_bad > 0 {
            let what = if n_bad == 1 { "value is" } else { "values are" };
            return Err(Error::input(format!("\"{name}\": {n_bad} {what} not finite")));
        }
        let target = TARGETS.iter().position(|t| *t == part).expect("callers look targets up in TARGETS");
        let slot = &mut self.halves.entry((layer, target)).or_default()[half as usize];
        if let Some(other) = slot {
            return Err(Error::input(format!("\"{}\" and \"{name}\" are the same matrix", other.name)));
        }
        *slot = Some(matrix);
        Ok(())
    }

    /// Checks every pair. `scale_of` is told part, layer, rank and the name of A, and gives the scale.
    fn finish(self, scale_of: impl Fn(Part, usize, usize, &str) -> Result<f32>) -> Result<Vec<AdapterTarget>> {
        let mut targets = Vec::with_capacity(self.halves.len());
        for ((layer, index), [a, b]) in self.halves {
            let part = TARGETS[index];
            let (a, b) = match (a, b) {
                (Some(a), Some(b)) => (a, b),
                (Some(a), None) => return Err(Error::input(format!("\"{}\" has no lora_B", a.name))),
                (None, Some(b)) => return Err(Error::input(format!("\"{}\" has no lora_A", b.name))),
                (None, None) => unreachable!("an entry is made for a half"),
            };
            let rank = check_shapes(self.config, part, &a, &b)?;
            let scale = scale_of(part, layer, rank, &a.name)?;
            targets.push(AdapterTarget { part, layer, rank, scale, a: a.values, b: b.values });
        }
        if targets.is_empty() {
            return Err(Error::input("holds no LoRA matrices"));
        }
        Ok(targets)
    }
}

/// The rank, when A `(rank, inputs)` and B `(outputs, rank)` fit each other and the model.
fn check_shapes(config: &ModelConfig, part: Part, a: &HalfMatrix, b: &HalfMatrix) -> Result<usize> {
    let PartShape::Matrix(outputs, inputs) = part.shape(config) else { unreachable!("targets are matrices") };
    let [rank, a_inputs] = [a.shape[0], a.shape[1]];
    let [b_outputs, b_rank] = [b.shape[0], b.shape[1]];
    if !(1..=MAX_RANK).contains(&rank) {
        return Err(Error::input(format!("\"{}\" has rank {rank}; 1 to {MAX_RANK}", a.name)));
    }
    if b_rank != rank {
        return Err(Error::input(format!("\"{}\" has rank {b_rank}, its lora_A {rank}", b.name)));
    }
    // The residual stream's width tells models apart best: it is one side of every target.
    let width = match part {
        Part::AttnOutput | Part::FfnDown => b_outputs,
        _ => a_inputs,
    };
    if width != config.dim {
        return Err(Error::input(format!("made for a model {width} wide; this one is {} wide", config.dim)));
    }
    if a_inputs != inputs {
        return Err(Error::input(format!("\"{}\" takes {a_inputs} inputs; the layer has {inputs}", a.name)));
    }
    if b_outputs != outputs {
        return Err(Error::input(format!("\"{}\" gives {b_outputs} outputs; the layer has {outputs}", b.name)));
    }
    Ok(rank)
}
