//! A LoRA adapter in either format -> a GGUF file (llama.cpp) or a PEFT folder (transformers).

mod gguf_write;
mod one_alpha;

use std::path::{Path, PathBuf};

use lichen_kernels::Format;
use lichen_runtime::escape::thousands;
use lichen_runtime::files::adapter_file::{AdapterFile, AdapterTarget, PeftAdapter, PeftTensor};
use lichen_runtime::files::disk::{refuse_existing, refuse_full, NewFolder};
use lichen_runtime::files::model_source::{folder_name, Origin};
use lichen_runtime::{Error, ModelConfig, ModelSource, Result};
use serde::Serialize;

use crate::quantize::{Progress, Sums};
use one_alpha::OneAlpha;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// A PEFT folder or a GGUF adapter.
    pub adapter: PathBuf,
    /// The model it belongs to.
    pub model: PathBuf,
    /// Must not exist.
    pub out: PathBuf,
    pub target: Target,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    GgufF32,
    GgufF16,
    /// A folder; F32.
    Peft,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Target::GgufF32 => "gguf-f32",
            Target::GgufF16 => "gguf-f16",
            Target::Peft => "peft",
        }
    }
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub adapter: PathBuf,
    pub out: PathBuf,
    pub format: &'static str,
    pub out_bytes: u64,
    /// Pairs.
    pub matrices: usize,
    pub rank_max: usize,
    pub alpha: f32,
    /// Pairs whose B was multiplied, because the formats have one alpha for all.
    pub matrices_folded: usize,
    /// Error of the values that were written over the mean of their squares; 0 for F32.
    pub relative_squared_error: f64,
    pub base_name: Option<String>,
    /// What a person should know about this conversion.
    pub notes: Vec<String>,
}

/// Converts an adapter. On any error nothing is left behind at `out` or beside it.
///
/// # Errors
/// `out` exists; the model or the adapter cannot be read, or do not belong together; a value is too large for F16; too little
/// disk.
pub fn convert(options: &Options, progress: &mut dyn Progress) -> Result<Report> {
    refuse_existing(&options.out)?;
    let source = ModelSource::open_to_convert(&options.model)?;
    let config = source.config();
    let file = AdapterFile::open(&options.adapter, config)?;
    refuse_tables(&file).map_err(|e| e.in_file(&options.adapter))?;
    let (rank_max, base_name) = (file.max_rank(), file.base_name.clone());
    // What the adapter says of its base goes with it.
    let base = file.base.entries();
    let one = OneAlpha::of(file.targets);
    let mut notes = Vec::new();
    if one.n_folded > 0 {
        notes.push(format!(
            "{} of {} pairs have another scale than alpha {} gives: the difference is multiplied into their B",
            one.n_folded,
            one.targets.len(),
            one.alpha
        ));
    }
    progress.start(one.targets.iter().map(n_values).sum());
    let about = gguf_write::About { base_name: base_name.as_deref(), base: &base, config };
    let (out_bytes, sums) = match options.target {
        Target::GgufF32 => gguf_write::write(&one, about, Format::F32, options, progress)?,
        Target::GgufF16 => gguf_write::write(&one, about, Format::F16, options, progress)?,
        Target::Peft => {
            let name = match &base_name {
                Some(name) => name.clone(),
                None => {
                    let name = model_name(&source, &options.model);
                    notes.push(format!("the adapter does not say what its base is called: written as \"{name}\""));
                    name
                }
            };
            (write_peft(&one, &name, &base, config, &options.out, progress)?, Sums::default())
        }
    };
    Ok(Report {
        adapter: options.adapter.clone(),
        out: options.out.clone(),
        format: options.target.name(),
        out_bytes,
        matrices: one.targets.len(),
        rank_max,
        alpha: one.alpha,
        matrices_folded: one.n_folded,
        relative_squared_error: if sums.squares > 0.0 { sums.squared_error / sums.squares } else { 0.0 },
        base_name,
        notes,
    })
}

/// A GGUF adapter has no place for whole matrices, and a PEFT folder that has them is there already.
fn refuse_tables(file: &AdapterFile) -> Result<()> {
    match file.tables.is_empty() {
        true => Ok(()),
        false => Err(Error::input(format!(
            "brings {} bytes of its own embedding or head (modules_to_save), which cannot be converted: merge it into the model",
            thousands(file.tables.size_bytes() as u64)
        ))),
    }
}

/// Returns the bytes written.
fn write_peft(
    one: &OneAlpha,
    base_name: &str,
    base: &[(&str, String)],
    config: &ModelConfig,
    out: &Path,
    progress: &mut dyn Progress,
) -> Result<u64> {
    let tensors: Vec<PeftTensor> =
        one.targets.iter().map(|t| PeftTensor { part: t.part, layer: t.layer, a: &t.a, b: &t.b }).collect();
    let adapter = PeftAdapter {
        config,
        rank: most_common(one.targets.iter().map(|t| t.rank)),
        alpha: one.alpha,
        dropout: 0.0,
        base_name,
        tensors: &tensors,
        metadata: base,
    };
    // The config and the card take a few kilobytes, or a line for each pair of another rank.
    refuse_full(out, adapter.tensors_len() + 4096 + 128 * tensors.len() as u64)?;
    let folder = NewFolder::create(out)?;
    let bytes = adapter.write_into(folder.path())?;
    one.targets.iter().try_for_each(|t| progress.advance(n_values(t)))?;
    folder.publish_new()?;
    Ok(bytes)
}

fn n_values(target: &AdapterTarget) -> u64 {
    (target.a.len() + target.b.len()) as u64
}

/// The smallest where several are.
fn most_common(ranks: impl Iterator<Item = usize> + Clone) -> usize {
    let count = |rank: usize| ranks.clone().filter(|r| *r == rank).count();
    let best = ranks.clone().max_by_key(|rank| (count(*rank), std::cmp::Reverse(*rank)));
    best.expect("an adapter has a pair at least")
}

/// What a model is called where its adapter does not say.
fn model_name(source: &ModelSource, path: &Path) -> String {
    let named = match source.origin() {
        Origin::Gguf(metadata) => metadata.string("general.name").ok().flatten().map(str::to_string),
        Origin::HuggingFace(dir) => Some(folder_name(dir)),
    };
    let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let file = || full.file_stem().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned());
    named.unwrap_or_else(file)
}

/// A file that cannot be written, by its final name.
fn failed(out: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    |e| Error::io(out, &e)
}
