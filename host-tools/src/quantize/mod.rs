//! A model in any format that is read -> a GGUF file or a Hugging Face folder (NF4), in little memory: row block by row
//! block, the source's pages given back behind. An adapter can be added to the rows as they pass.

mod gguf_file;
mod gguf_metadata;
mod gguf_parts;
mod hf_files;
mod merge;
mod nf4_folder;
mod nf4_layer;
mod report;
mod rows;
mod sentencepiece;

use std::path::PathBuf;
use std::time::Instant;

use lichen_runtime::engine::AdapterPath;
use lichen_runtime::files::disk::refuse_existing;
use lichen_runtime::measure::bench::peak_rss_bytes;
use lichen_runtime::{ModelSource, Result};

use merge::Merge;
use rows::Input;

pub use report::{FormatReport, MergeReport, Report, Sums};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// GGUF, every matrix Q8_0.
    Q8_0,
    /// GGUF, Q5_0; embedding and head Q8_0.
    Q5_0,
    /// GGUF, Q4_0; embedding and head Q8_0.
    Q4_0,
    /// A Hugging Face folder in bitsandbytes' NF4 layout; embedding, norms and head bf16.
    Nf4,
    /// GGUF, every matrix F16.
    F16,
    /// GGUF, every matrix BF16.
    Bf16,
    /// GGUF, every matrix F32.
    F32,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Target::Q8_0 => "q8_0",
            Target::Q5_0 => "q5_0",
            Target::Q4_0 => "q4_0",
            Target::Nf4 => "nf4",
            Target::F16 => "f16",
            Target::Bf16 => "bf16",
            Target::F32 => "f32",
        }
    }
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// A Hugging Face folder or a GGUF file.
    pub model: PathBuf,
    pub target: Target,
    /// A file for GGUF, a folder for NF4; must not exist.
    pub out: PathBuf,
    /// `general.name` of a GGUF; by default the source's.
    pub name: Option<String>,
    /// Longest file of weights in a folder, in bytes.
    pub shard_bytes_max: u64,
    /// Longest part of a GGUF file, in bytes; `None` for one file whatever its length. Parts are called
    /// `NAME-00001-of-00003.gguf`.
    pub split_bytes_max: Option<u64>,
}

/// Shards of released models are 5 GB at most.
pub const SHARD_BYTES_MAX: u64 = 5_000_000_000;

/// Hears how far the work has come.
pub trait Progress {
    /// `total` values will be passed to [`Progress::advance`], some of them twice for NF4.
    fn start(&mut self, total: u64);
    /// `values` more have been read. # Errors: the person wants it to end.
    fn advance(&mut self, values: u64) -> Result<()>;
}

/// For callers that do not look.
impl Progress for () {
    fn start(&mut self, _total: u64) {}

    fn advance(&mut self, _values: u64) -> Result<()> {
        Ok(())
    }
}

/// Converts the model. On any error nothing is left behind at `out` or beside it.
///
/// # Errors
/// `out` exists; the source cannot be read or holds values that are not finite; the target cannot express the model; too
/// little disk.
pub fn run(options: &Options, progress: &mut dyn Progress) -> Result<Report> {
    convert_model(options, None, progress)
}

/// The same with an adapter added to the weights for good: `W + scale * B A`, in f32, before they are rounded.
///
/// # Errors
/// Those of [`run`]; the adapter cannot be read or was made for another model, unless that is allowed and the shape is the
/// same.
pub fn run_merged(
    options: &Options,
    adapter: &AdapterPath,
    allow_other_base: bool,
    progress: &mut dyn Progress,
) -> Result<Report> {
    convert_model(options, Some((adapter, allow_other_base)), progress)
}

fn convert_model(
    options: &Options,
    adapter: Option<(&AdapterPath, bool)>,
    progress: &mut dyn Progress,
) -> Result<Report> {
    let started = Instant::now();
    refuse_existing(&options.out)?;
    let source = ModelSource::open_to_convert(&options.model)?;
    let merge = adapter.map(|(adapter, allow)| Merge::open(adapter, &source, allow)).transpose()?;
    let input = Input { source: &source, merge: merge.as_ref() };
    let mut report = match options.target {
        Target::Q8_0 | Target::Q5_0 | Target::Q4_0 | Target::F16 | Target::Bf16 | Target::F32 => {
            gguf_file::write(input, options, progress)?
        }
        Target::Nf4 => nf4_folder::write(input, options, progress)?,
    };
    if let Some(merge) = &merge {
        report.notes.extend(merge.notes(&source)?);
        report.merge = Some(merge.report());
    }
    report.seconds = started.elapsed().as_secs_f64();
    report.peak_rss_bytes = peak_rss_bytes().map(|bytes| bytes as u64);
    Ok(report)
}
