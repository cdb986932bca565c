//! `lichen-host adapter`: from one format to another, or into the model for good.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use lichen_host_tools::adapter::{self, Report, Target};
use lichen_host_tools::quantize::{self, SHARD_BYTES_MAX};
use lichen_runtime::cli::output::{self, Outcome};
use lichen_runtime::engine::AdapterPath;
use lichen_runtime::escape::{escape, thousands};
use lichen_runtime::Error;

use crate::format::{self, FormatName};
use crate::progress::ConversionProgress;

/// Convert a LoRA adapter, or merge it into its model.
#[derive(Args)]
#[command(disable_help_subcommand = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Convert(Convert),
    Merge(Merge),
}

/// A PEFT folder to a GGUF adapter (for llama.cpp), or back.
///
/// Both have one alpha for all matrices. Where an adapter has several, the difference is multiplied into B, and the report
/// says for how many. The model gives shapes and names; its weights are not read.
#[derive(Args)]
#[command(after_help = CONVERT_EXAMPLE)]
struct Convert {
    /// The adapter: a PEFT folder or a GGUF file.
    #[arg(long)]
    adapter: PathBuf,
    /// The model it was trained for: a Hugging Face folder or a GGUF file.
    #[arg(long)]
    model: PathBuf,
    /// A name that ends in .gguf makes a GGUF file, any other a PEFT folder; it must not exist.
    #[arg(long)]
    out: PathBuf,
    /// Numbers in a GGUF file [default: f32]; a PEFT folder is always f32.
    #[arg(long, value_enum)]
    out_type: Option<OutType>,
    /// Print one JSON object with the figures instead of text.
    #[arg(long)]
    json: bool,
}

const CONVERT_EXAMPLE: &str = "\
Example:
  lichen-host adapter convert --adapter my-lora --model gemma-3-1b-it --out my-lora.gguf";

#[derive(Clone, Copy, ValueEnum)]
enum OutType {
    #[value(name = "f32")]
    F32,
    #[value(name = "f16")]
    F16,
}

/// A model with the adapter added to its weights: W + scale * B A, in f32, then rounded to --format.
///
/// A base that is quantised already is decoded, added to and rounded again, which the report says; the original in bf16 or
/// f32 loses less. The weights pass through a few megabytes of memory beside the adapter, and nothing appears at
/// --out before all of it is written.
#[derive(Args)]
#[command(after_help = MERGE_EXAMPLE)]
struct Merge {
    /// The base: a Hugging Face folder or a GGUF file. For nf4 a folder, whose tokenizer and config are copied.
    #[arg(long)]
    model: PathBuf,
    /// The adapter: a PEFT folder or a GGUF file, with an optional factor for its strength.
    #[arg(long, value_name = "PATH[:SCALE]", value_parser = AdapterPath::parse)]
    adapter: AdapterPath,
    /// Merge although the adapter was made for another model of the same shape.
    #[arg(long)]
    allow_other_base: bool,
    /// What to write.
    #[arg(long, value_enum)]
    format: FormatName,
    /// The folder (nf4) or file (all others) to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
    /// The name inside a GGUF file; by default the file's own.
    #[arg(long)]
    name: Option<String>,
    /// Print one JSON object with the figures instead of text.
    #[arg(long)]
    json: bool,
}

const MERGE_EXAMPLE: &str = "\
Example:
  lichen-host adapter merge --model gemma-3-1b-it --adapter my-lora --format q8_0 --out my-gemma-q8_0.gguf";

pub fn run(arguments: &Arguments) -> Outcome<()> {
    match &arguments.command {
        Command::Convert(arguments) => convert(arguments),
        Command::Merge(arguments) => merge(arguments),
    }
}

fn convert(arguments: &Convert) -> Outcome<()> {
    let is_gguf = arguments.out.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"));
    let target = match (is_gguf, arguments.out_type) {
        (true, Some(OutType::F16)) => Target::GgufF16,
        (true, Some(OutType::F32) | None) => Target::GgufF32,
        (false, Some(OutType::F32) | None) => Target::Peft,
        (false, Some(OutType::F16)) => {
            let message = "--out-type f16 is for GGUF files: let --out end in .gguf, or leave it away";
            return Err(Error::usage(message).into());
        }
    };
    let options = adapter::Options {
        adapter: arguments.adapter.clone(),
        model: arguments.model.clone(),
        out: arguments.out.clone(),
        target,
    };
    let report = ConversionProgress::watch(|progress| adapter::convert(&options, progress))?;
    match arguments.json {
        true => output::json(&serde_json::to_value(&report).expect("plain figures")),
        false => output::line(&describe(&report)),
    }
}

fn merge(arguments: &Merge) -> Outcome<()> {
    let stem = |path: &Path| path.file_stem().map(|name| name.to_string_lossy().into_owned());
    let options = quantize::Options {
        model: arguments.model.clone(),
        target: arguments.format.target(),
        out: arguments.out.clone(),
        // A merged model is another one than its base, whose name it would have else.
        name: format::inner_name(arguments.format, &arguments.name)?.or_else(|| stem(&arguments.out)),
        shard_bytes_max: SHARD_BYTES_MAX,
        split_bytes_max: None,
    };
    let (adapter, allow) = (&arguments.adapter, arguments.allow_other_base);
    let report = ConversionProgress::watch(|progress| quantize::run_merged(&options, adapter, allow, progress))?;
    format::print(&report, arguments.json)
}

fn describe(report: &Report) -> String {
    let mut text = format!(
        "{}: {} bytes, {} matrices of rank {} or less, alpha {}",
        report.out.display(),
        thousands(report.out_bytes),
        report.matrices,
        report.rank_max,
        report.alpha
    );
    if let Some(base) = &report.base_name {
        text.push_str(&format!(", for {}", escape(base)));
    }
    if report.relative_squared_error > 0.0 {
        text.push_str(&format!(
            "\n  rounding to f16: squared error {:.3e} of the mean square",
            report.relative_squared_error
        ));
    }
    for note in &report.notes {
        text.push_str(&format!("\n  note: {}", escape(note)));
    }
    text
}
