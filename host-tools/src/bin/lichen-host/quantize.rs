//! `lichen-host quantize`: its arguments.

use std::path::PathBuf;

use clap::Args;
use lichen_host_tools::quantize::{self, Options, SHARD_BYTES_MAX};
use lichen_runtime::cli::output::Outcome;

use crate::format::{self, FormatName};
use crate::progress::ConversionProgress;

/// Convert a model to Q8_0, Q5_0, Q4_0, NF4 or plain numbers.
///
/// Reads Hugging Face folders (f32, bf16, f16, one file or sharded, bitsandbytes NF4 and LLM.int8, quanto qint8) and GGUF
/// files. The weights pass through a few megabytes of memory whatever the model's size, and nothing appears at --out
/// before all of it is written.
#[derive(Args)]
#[command(after_help = EXAMPLE)]
pub struct Arguments {
    /// The model: a Hugging Face folder or a GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// What to write.
    #[arg(long, value_enum)]
    format: FormatName,
    /// The folder (nf4) or file (all others) to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
    /// The name inside a GGUF file; by default the source's.
    #[arg(long)]
    name: Option<String>,
    /// Longest file of weights, such as 2GiB: a GGUF longer than that is split into NAME-00001-of-00003.gguf and so on, which
    /// open from any of them; an nf4 folder has shards of 5GB where this is not given.
    #[arg(long, value_name = "SIZE", value_parser = lichen_runtime::setting::value::bytes)]
    split_size: Option<usize>,
    /// Print one JSON object with the figures instead of text.
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  lichen-host quantize --model gemma-3-1b-it --format q8_0 --out gemma-3-1b-it-q8_0.gguf

A model of 1 B parameters takes about 1.1 GB in q8_0, 0.8 GB in q5_0, 0.7 GB in q4_0 and 1.0 GB in nf4 (whose embedding stays bf16).";

pub fn run(arguments: &Arguments) -> Outcome<()> {
    let options = Options {
        model: arguments.model.clone(),
        target: arguments.format.target(),
        out: arguments.out.clone(),
        name: format::inner_name(arguments.format, &arguments.name)?,
        shard_bytes_max: arguments.split_size.map_or(SHARD_BYTES_MAX, |n| n as u64),
        split_bytes_max: arguments.split_size.map(|n| n as u64),
    };
    let report = ConversionProgress::watch(|progress| quantize::run(&options, progress))?;
    format::print(&report, arguments.json)
}
