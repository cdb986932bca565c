//! `lichen-host quantize`: arguments, progress and the printed report.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use lichen_host_tools::quantize::{self, Options, Progress, Report, Target, SHARD_BYTES_MAX};
use lichen_runtime::display::thousands;
use lichen_runtime::{Error, Result};

/// Off a terminal a line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Convert a model to Q8_0, Q4_0 or NF4.
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
    /// The file (q8_0, q4_0) or folder (nf4) to write; it must not exist.
    #[arg(long)]
    out: PathBuf,
    /// The name inside a GGUF file; by default the source's.
    #[arg(long)]
    name: Option<String>,
    /// Print one JSON object with the figures instead of text.
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  lichen-host quantize --model gemma-3-1b-it --format q8_0 --out gemma-3-1b-it-q8_0.gguf

A model of 1 B parameters takes about 1.1 GB in q8_0, 0.7 GB in q4_0 and 1.0 GB in nf4 (whose embedding stays bf16).";

#[derive(Clone, Copy, ValueEnum)]
enum FormatName {
    /// GGUF, 8 bits and an f16 scale per 32 weights.
    #[value(name = "q8_0")]
    Q8_0,
    /// GGUF, 4 bits and an f16 scale per 32 weights; embedding and head stay q8_0.
    #[value(name = "q4_0")]
    Q4_0,
    /// A Hugging Face folder in bitsandbytes' NF4 layout; embedding, norms and head are bf16.
    #[value(name = "nf4")]
    Nf4,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let options = Options {
        model: arguments.model.clone(),
        target: match arguments.format {
            FormatName::Q8_0 => Target::Q8_0,
            FormatName::Q4_0 => Target::Q4_0,
            FormatName::Nf4 => Target::Nf4,
        },
        out: arguments.out.clone(),
        name: arguments.name.clone(),
        shard_bytes_max: SHARD_BYTES_MAX,
    };
    let mut meter = Meter::new()?;
    let result = quantize::run(&options, &mut meter);
    meter.bar.finish_and_clear();
    let report = result?;
    let text = match arguments.json {
        true => serde_json::to_string(&report).expect("plain figures"),
        false => describe(&report),
    };
    // A closed pipe is the reader's choice, not a failure of the conversion.
    let _ = writeln!(std::io::stdout(), "{text}");
    Ok(())
}

/// A bar on a terminal, plain lines elsewhere; both on standard error. Ends the work when the person presses Ctrl-C.
struct Meter {
    bar: ProgressBar,
    lines: bool,
    total: u64,
    done: u64,
    last_line: Instant,
    stop: Arc<AtomicBool>,
}

impl Meter {
    fn new() -> Result<Meter> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let handler = ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed));
        handler.map_err(|e| Error::input(format!("cannot handle Ctrl-C: {e}")))?;
        let lines = !std::io::stderr().is_terminal();
        let last_line = Instant::now();
        Ok(Meter { bar: ProgressBar::hidden(), lines, total: 0, done: 0, last_line, stop })
    }
}

impl Progress for Meter {
    fn start(&mut self, total: u64) {
        self.total = total;
        if !self.lines {
            let style =
                ProgressStyle::with_template("{bar:40} {percent:>3}%  {human_pos} of {human_len} weights, {eta}");
            self.bar = ProgressBar::new(total).with_style(style.expect("a fixed template"));
        }
    }

    fn advance(&mut self, values: u64) -> Result<()> {
        self.done += values;
        self.bar.inc(values);
        if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let percent = 100 * self.done / self.total.max(1);
            eprintln!("{percent}%: {} of {} weights", thousands(self.done), thousands(self.total));
        }
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Error::input("interrupted; nothing was written")),
            false => Ok(()),
        }
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
    if let Some(peak) = report.peak_rss_bytes {
        text.push_str(&format!(", peak memory {} bytes", thousands(peak)));
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
        text.push_str(&format!("\n  note: {}", lichen_runtime::display::escape(note)));
    }
    text
}
