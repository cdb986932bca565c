//! A model in any format that is read -> a GGUF file (Q8_0, Q4_0) or a Hugging Face folder (NF4), in little memory: row
//! block by row block, the source's pages given back behind.

mod gguf_file;
mod gguf_metadata;
mod hf_files;
mod nf4_folder;
mod nf4_layer;
mod report;
mod rows;
mod sentencepiece;

use std::path::PathBuf;
use std::time::Instant;

use lichen_runtime::disk::refuse_existing;
use lichen_runtime::{ModelSource, Result};

pub use report::{FormatReport, Report};

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// GGUF, every matrix Q8_0.
    Q8_0,
    /// GGUF, Q4_0; embedding and head Q8_0.
    Q4_0,
    /// A Hugging Face folder in bitsandbytes' NF4 layout; embedding, norms and head bf16.
    Nf4,
}

impl Target {
    pub fn name(self) -> &'static str {
        match self {
            Target::Q8_0 => "q8_0",
            Target::Q4_0 => "q4_0",
            Target::Nf4 => "nf4",
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
    let started = Instant::now();
    refuse_existing(&options.out)?;
    let source = ModelSource::open_to_convert(&options.model)?;
    let mut report = match options.target {
        Target::Q8_0 | Target::Q4_0 => gguf_file::write(&source, options, progress)?,
        Target::Nf4 => nf4_folder::write(&source, options, progress)?,
    };
    report.seconds = started.elapsed().as_secs_f64();
    report.peak_rss_bytes = report::peak_rss_bytes();
    Ok(report)
}
