//! `lichen-host demo`: a model learns twenty examples while somebody watches.

mod result;

use std::path::PathBuf;

use clap::Args;
use lichen_host_tools::demo::{Demo, Options};
use lichen_runtime::cli::args::number;
use lichen_runtime::cli::output::{self, Failure, Outcome};
use lichen_runtime::escape::thousands;
use lichen_runtime::memory_plan::mib;
use lichen_trainer::job::Ending;
use lichen_trainer::progress::{stop_signals, TrainingProgress};
use result::{one_line, Shown};

/// Ask the demo model about a robot it does not know, train it on twenty examples, and ask again.
///
/// The training is a job of `lichen-train lora`, the answers are those of `lichen chat --adapter`. The questions are worded
/// otherwise than the examples, and one of them is about something else: what the model knew, it should still know.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// GGUF file or Hugging Face folder [default: the small demo model inside this program].
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// JSONL to train on, Alpaca or chat [default: twenty examples about a robot inside this program].
    #[arg(long, value_name = "FILE")]
    examples: Option<PathBuf>,
    /// What to ask before and after, instead of the two questions about the robot; may be given several times.
    #[arg(long = "question", value_name = "TEXT", allow_hyphen_values = true, value_parser = question)]
    questions: Vec<String>,
    /// Passes over the examples.
    #[arg(long, value_name = "N", default_value = "20", value_parser = number(1u64, 1 << 20))]
    epochs: u64,
    /// Rank of the adapter.
    #[arg(long, value_name = "R", default_value = "8", value_parser = number(1usize, 1024))]
    rank: usize,
    /// Highest learning rate.
    #[arg(long, value_name = "X", default_value = "1e-3", value_parser = number(1e-12f64, 10.0))]
    learning_rate: f64,
    /// CPU threads [default: all cores this process may use].
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = number(1usize, 1024))]
    threads: Option<usize>,
    /// Folder for the run and its adapter; it must not exist [default: a temporary one, which stays].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print one JSON object with the figures instead of text.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  lichen-host demo
  lichen-host demo --examples robot.jsonl --question \"Where does the robot sleep?\" --out runs/robot

Ctrl-C ends the training after its step and keeps what was learned so far.";

/// A text that says something.
fn question(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a question".to_string()),
        text => Ok(text.to_string()),
    }
}

pub fn run(arguments: &Arguments) -> Outcome<()> {
    let mut demo = Demo::open(&Options {
        model: arguments.model.clone(),
        examples: arguments.examples.clone(),
        questions: arguments.questions.clone(),
        epochs: arguments.epochs,
        rank: arguments.rank,
        learning_rate: arguments.learning_rate,
        threads: arguments.threads,
        out: arguments.out.clone(),
    })?;
    introduce(&demo, arguments.examples.is_some());
    let signals = stop_signals();
    let wants_to_stop = || signals.interrupted();
    let Some(before) = demo.ask(None, &wants_to_stop)? else { return Err(Failure::Interrupted) };
    output::note("before training:");
    for (question, answer) in demo.questions.iter().zip(&before) {
        output::note(&format!("  {}  {}", question.text, one_line(answer)));
    }
    let mut progress = TrainingProgress::new(&signals);
    let trained = demo.train(&mut progress);
    progress.finish();
    let trained = trained?;
    let is_finished = matches!(trained.outcome.ending, Ending::Finished(_));
    let after = match is_finished && !wants_to_stop() {
        true => demo.ask(Some(&trained.adapter), &wants_to_stop)?,
        false => None,
    };
    let shown = Shown { demo: &demo, before: &before, after: after.as_deref(), trained: &trained };
    match arguments.json {
        true => output::json(&shown.as_json())?,
        false => output::line(&shown.as_text())?,
    }
    match is_finished && after.is_none() {
        true => Err(Failure::Interrupted),
        false => Ok(()),
    }
}

fn introduce(demo: &Demo, has_own_examples: bool) {
    let job = &demo.job;
    let counts = job.data.counts();
    match has_own_examples {
        true => output::note(&format!("{}: {counts}", job.data_name())),
        false => output::note(&format!("the examples inside this program: {counts}")),
    }
    let (n, planned) = (thousands(job.n_parameters() as u64), mib(demo.planned_bytes()));
    output::note(&format!("{}: {n} parameters to train beside it, {planned} planned", job.name));
}
