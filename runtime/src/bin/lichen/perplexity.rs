//! `lichen perplexity`: how well a model predicts a text.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use lichen_runtime::cli::progress::ProgressBar;
use lichen_runtime::files::mapped_file::open_regular;
use lichen_runtime::measure::perplexity;
use lichen_runtime::Error;
use serde_json::json;

use crate::args::{engine_options, MachineArgs, ModelArgs};
use crate::opening::open_with;
use crate::output::{self, Outcome};

const EXAMPLES: &str = "Example:
  lichen perplexity --model gemma-3-1b-it-Q8_0.gguf --text held-out.txt --context 512 --json

Blank lines separate documents. Each starts anew, with the begin-of-sequence token where the model has one, and every \
token after the first is predicted. Documents longer than the context are cut into windows that each start anew. The \
result is exp(sum of -ln p / number of predicted tokens) over the whole text.";

/// Largest text read.
const TEXT_FILE_BYTES_MAX: u64 = 1 << 30;
/// Logit rows kept at once: 16 MiB of them for a vocabulary of 262,144.
const LOGIT_ROWS: usize = 16;
/// Off a terminal a line says how far it is this often.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Measure how well a model predicts a text
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct PerplexityArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// UTF-8 text; blank lines separate documents
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    #[command(flatten)]
    machine: MachineArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &PerplexityArgs) -> Outcome<()> {
    let text = read_text(&args.text)?;
    let mut options = engine_options(&args.model, &args.machine)?;
    options.logit_rows = LOGIT_ROWS;
    let engine = open_with(&options)?;
    let model = engine.model();
    let mut session = model.session()?;
    let mut progress = ProgressBar::new(LINE_EVERY);
    let result = perplexity::measure(&mut session, model.tokenizer()?, &text, &mut |sums, n| {
        let (done, value) = (sums.documents, sums.value());
        let rate = sums.tokens_per_s();
        progress.show(0, || format!("{done} of {n} documents, perplexity {value:.3}, {rate:.1} tokens/s"));
    });
    progress.end();
    let result = match result {
        Err(error) if error.kind() == lichen_runtime::error::Kind::Input => {
            return Err(error.in_file(&args.text).into())
        }
        other => other?,
    };
    if args.json {
        return output::json(&json!({
            "model": model.name,
            "text": args.text.display().to_string(),
            "context": session.limits().context,
            "perplexity": result.value(),
            "nll_per_token": result.nll / result.tokens as f64,
            "tokens": result.tokens,
            "documents": result.documents,
            "seconds": result.seconds,
            "tokens_per_s": result.tokens_per_s(),
        }));
    }
    output::line(&format!(
        "perplexity {:.4} over {} tokens in {} documents, {:.1} tokens/s",
        result.value(),
        result.tokens,
        result.documents,
        result.tokens_per_s()
    ))
}

fn read_text(path: &Path) -> Outcome<String> {
    let (_, length) = open_regular(path)?;
    if length > TEXT_FILE_BYTES_MAX {
        return Err(Error::limit(format!("is {length} bytes long; at most {TEXT_FILE_BYTES_MAX} are read"))
            .in_file(path)
            .into());
    }
    let bytes = std::fs::read(path).map_err(|e| Error::io(path, &e))?;
    let text = String::from_utf8(bytes);
    text.map_err(|e| Error::input(format!("byte {} is not UTF-8", e.utf8_error().valid_up_to())).in_file(path).into())
}
