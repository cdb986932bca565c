//! Formats of models as flags, and the printed report of writing one.

use clap::ValueEnum;
use lichen_host_tools::quantize::{Report, Target};
use lichen_runtime::cli::output::{self, Outcome};
use lichen_runtime::escape::{escape, thousands};
use lichen_runtime::{Error, Result};

#[derive(Clone, Copy, ValueEnum)]
pub enum FormatName {
    /// GGUF, 8 bits and an f16 scale per 32 weights.
    #[value(name = "q8_0")]
    Q8_0,
    /// GGUF, 5 bits and an f16 scale per 32 weights; embedding and head stay q8_0.
    #[value(name = "q5_0")]
    Q5_0,
    /// GGUF, 4 bits and an f16 scale per 32 weights; embedding and head stay q8_0.
    #[value(name = "q4_0")]
    Q4_0,
    /// A Hugging Face folder in bitsandbytes' NF4 layout; embedding, norms and head are bf16.
    #[value(name = "nf4")]
    Nf4,
    /// GGUF, 16 bits: finer than bf16, up to 65504.
    #[value(name = "f16")]
    F16,
    /// GGUF, the upper 16 bits of f32.
    #[value(name = "bf16")]
    Bf16,
    /// GGUF, 32 bits.
    #[value(name = "f32")]
    F32,
}

impl FormatName {
    pub fn target(self) -> Target {
        match self {
            FormatName::Q8_0 => Target::Q8_0,
            FormatName::Q5_0 => Target::Q5_0,
            FormatName::Q4_0 => Target::Q4_0,
            FormatName::Nf4 => Target::Nf4,
            FormatName::F16 => Target::F16,
            FormatName::Bf16 => Target::Bf16,
            FormatName::F32 => Target::F32,
        }
    }
}

/// The name for the inside of a GGUF file.
///
/// # Errors
/// One is given for a folder, which has none.
pub fn inner_name(format: FormatName, name: &Option<String>) -> Result<Option<String>> {
    match (format, name) {
        (FormatName::Nf4, Some(_)) => {
            Err(Error::usage("--name is for GGUF files; an nf4 folder is called as --out is"))
        }
        _ => Ok(name.clone()),
    }
}

/// Prints the figures of a model that was written.
pub fn print(report: &Report, json: bool) -> Outcome<()> {
    match json {
        true => output::json(&serde_json::to_value(report).expect("plain figures")),
        false => output::line(&describe(report)),
    }
}

fn describe(report: &Report) -> String {
    let mut text = format!(
        "{}: {} bytes ({:.1}% of the {} bytes of weights read) in {:.1} s",
        report.out.display(),
        thousands(report.out_bytes),
        100.0 * report.out_bytes as f64 / report.source_bytes.max(1) as f64,
        thousands(report.source_bytes),
        report.seconds
    );
    if report.parts > 1 {
        text.push_str(&format!(", {} files of weights", report.parts));
    }
    if let Some(peak) = report.peak_rss_bytes {
        text.push_str(&format!(", peak memory {} bytes", thousands(peak)));
    }
    if let Some(merge) = &report.merge {
        text.push_str(&format!("\n  merged {} of {} matrices", merge.matrices_merged, merge.matrices));
        text.push_str(&format!(" of {}", escape(&merge.adapter.display().to_string())));
        if merge.scale != 1.0 {
            text.push_str(&format!(" at {} of its strength", merge.scale));
        }
        if let Some(base) = &merge.base_name {
            text.push_str(&format!(" (its base: {})", escape(base)));
        }
    }
    for format in &report.formats {
        text.push_str(&format!(
            "\n  {:<5} {:>5} tensors {:>15} bytes  mean squared error {:.3e} ({:.3e} of the mean square)",
            format.format,
            format.tensors,
            thousands(format.bytes),
            format.mean_squared_error,
            format.relative_squared_error
        ));
    }
    for note in &report.notes {
        text.push_str(&format!("\n  note: {}", escape(note)));
    }
    text
}
