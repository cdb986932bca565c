//! `lichen generate --prompts`: a file of prompts, many answers at once.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, Args};
use lichen_runtime::cli::flags::{Flags, Offer};
use lichen_runtime::cli::progress::ProgressBar;
use lichen_runtime::engine::{Engine, EngineOptions};
use lichen_runtime::escape::{counted, thousands};
use lichen_runtime::files::disk::{refuse_existing, RealDisk};
use lichen_runtime::prompt_file::{self, AnswerFile, Answered, Counts, Observer, Output, PromptRun, Source};
use lichen_runtime::setting::table::Entry;
use lichen_runtime::setting::{as_flag, as_json_key, PARALLEL};
use lichen_runtime::signals::CatchInterrupts;
use lichen_runtime::{Error, Result};
use serde_json::json;

use crate::args::{engine_options, engine_settings, MachineArgs, ModelArgs, SamplingArgs, TemplateArgs};
use crate::opening::{control_text_hint, defaults, open_with};
use crate::output::{self, Failure, Outcome};

/// Answers at once unless told otherwise.
const DEFAULT_SLOTS: usize = 16;
/// Off a terminal a line says how far it is this often.
const LINE_EVERY: Duration = Duration::from_secs(60);
/// Lines that are reported one by one before they are only counted.
const BAD_LINES_SHOWN: u64 = 20;

/// Many prompts.
#[derive(Args, Clone, Debug)]
pub struct BatchArgs {
    /// Answer every line of a file of JSON objects; - reads them from standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["prompt", "tokens"])]
    pub prompts: Option<PathBuf>,
    #[command(flatten)]
    parallel: Flags<OfPrompts>,
    /// Where answers go, a line each, as they are finished [default: standard output]
    #[arg(long, value_name = "FILE", requires = "prompts")]
    out: Option<PathBuf>,
    /// Go on with an --out that an earlier run began: lines that it answers are skipped
    #[arg(long, requires = "out")]
    resume: bool,
}

/// How many answers are computed at once.
#[derive(Clone, Debug)]
pub struct OfPrompts;

impl Offer for OfPrompts {
    type Target = EngineOptions;

    fn settings() -> Vec<&'static Entry<EngineOptions>> {
        engine_settings(&[PARALLEL])
    }

    fn defaults() -> EngineOptions {
        EngineOptions { parallel: Some(DEFAULT_SLOTS), ..EngineOptions::default() }
    }

    fn adapt(_: &Entry<EngineOptions>, arg: Arg) -> Arg {
        arg.requires("prompts")
    }
}

/// What a single prompt has too.
pub struct Shared<'a> {
    pub model: &'a ModelArgs,
    pub machine: &'a MachineArgs,
    pub template: &'a TemplateArgs,
    pub sampling: &'a SamplingArgs,
    pub raw: bool,
    pub json: bool,
}

pub fn run(own: &BatchArgs, args: &Shared<'_>, prompts: &Path) -> Outcome<()> {
    if args.json && own.out.is_none() {
        return Err(
            Error::usage("--json is a summary on standard output, where the answers go: --out FILE is needed").into()
        );
    }
    let defaults = defaults(args.sampling)?;
    let source = Source::open(prompts)?;
    if let Some(path) = own.out.as_deref().filter(|_| !own.resume) {
        refuse_begun(path)?;
    }
    let mut options = engine_options(args.model, args.machine)?;
    args.template.fill(&mut options)?;
    options.parallel = own.parallel.filled()?.parallel;
    let mut engine = open_with(&options)?;
    if let Some(batch) = engine.model().plan.batch.filter(|b| b.n_contexts < b.n_slots) {
        output::note(&format!(
            "note: there is memory for {} of {} answers of the full context; long ones wait for each other",
            batch.n_contexts, batch.n_slots
        ));
    }
    // Not before the model is there: a run that never began leaves no file.
    let (mut out, answered) = open_out(own)?;
    let seed = defaults.sampling.seed.unwrap_or_default();
    let tokenizer = engine.model().tokenizer.clone();
    let mut watch = Watch { interrupts: CatchInterrupts::new(), progress: ProgressBar::new(LINE_EVERY), n_bad: 0 };
    let tokenizer = tokenizer.as_deref();
    let mut run = PromptRun { defaults, raw: args.raw, tokenizer, answered, out: &mut out, observer: &mut watch };
    let outcome = run.answer(&mut engine, source);
    watch.progress.end();
    match outcome {
        // What was begun is finished and kept, and a run that resumes answers the rest and names its bad lines.
        Ok((counts, true)) if matches!(out, Out::File(_)) => show(args.json, &engine, &counts, seed, true),
        Ok((counts, true)) => show(args.json, &engine, &counts, seed, true).and(Err(Failure::Interrupted)),
        Ok((counts, false)) => {
            show(args.json, &engine, &counts, seed, false)?;
            if counts.n_bad == 0 {
                Ok(())
            } else {
                Err(Failure::Reported)
            }
        }
        // Whoever read the answers has seen enough.
        Err(_) if out.is_closed() => Err(Failure::Closed),
        Err(error) => Err(error.into()),
    }
}

/// What a line may say is spelled as its key, the rest as a flag.
fn as_line_or_flag(name: &str) -> String {
    match prompt_file::is_field(name) {
        true => as_json_key(name),
        false => as_flag(name),
    }
}

fn refuse_begun(path: &Path) -> Result<()> {
    match path.is_file() {
        true => Err(Error::input("already exists: --resume goes on with it").in_file(path)),
        false => refuse_existing(path),
    }
}

fn open_out(args: &BatchArgs) -> Outcome<(Out, Answered)> {
    let Some(path) = &args.out else { return Ok((Out::Stdout { is_closed: false }, Answered::default())) };
    if !args.resume {
        refuse_begun(path)?;
        return Ok((Out::File(AnswerFile::create(&RealDisk, path)?), Answered::default()));
    }
    let (file, answered, torn) = AnswerFile::resume(&RealDisk, path)?;
    if let Some(torn) = torn {
        output::note(&format!("{}: {torn}", path.display()));
    }
    Ok((Out::File(file), answered))
}

enum Out {
    Stdout { is_closed: bool },
    File(AnswerFile),
}

impl Out {
    /// True when nobody reads standard output any more.
    fn is_closed(&self) -> bool {
        matches!(self, Out::Stdout { is_closed: true })
    }
}

impl Output for Out {
    fn write(&mut self, line: String) -> Result<()> {
        match self {
            Out::File(file) => file.write(line),
            Out::Stdout { is_closed } => output::json_line(&line).map_err(|failure| match failure {
                Failure::Error(error) => error,
                _ => {
                    *is_closed = true;
                    Error::io(Path::new("standard output"), &io::Error::from(io::ErrorKind::BrokenPipe))
                }
            }),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Out::File(file) => file.flush(),
            Out::Stdout { .. } => Ok(()),
        }
    }
}

/// Ctrl-C, progress and what is said of lines that are left out.
struct Watch {
    interrupts: CatchInterrupts,
    progress: ProgressBar,
    n_bad: u64,
}

impl Observer for Watch {
    fn wants_to_stop(&self) -> bool {
        self.interrupts.interrupted()
    }

    fn stopping(&mut self, n_pending: usize) {
        output::note(&match n_pending as u64 {
            0 => "interrupted".to_string(),
            1 => "interrupted: 1 answer is finished first; Ctrl-C again ends at once".to_string(),
            n => format!("interrupted: {} are finished first; Ctrl-C again ends at once", counted(n, "answer")),
        });
    }

    fn refused(&mut self, error: &Error) {
        self.n_bad += 1;
        match self.n_bad {
            ..=BAD_LINES_SHOWN => output::error(&error.spelled(&as_line_or_flag)),
            n if n == BAD_LINES_SHOWN + 1 => {
                output::error("more lines cannot be answered; they are counted from here on")
            }
            _ => {}
        }
    }

    fn unrecognised(&mut self, fields: &[(String, u64)]) {
        let shown = fields.iter().map(|(name, n)| format!("{name} ({})", counted(*n, "line")));
        output::note(&format!("note: unknown fields, copied to the answers: {}", shown.collect::<Vec<_>>().join(", ")));
    }

    fn control_texts(&mut self, n_lines: u64, first: u64, note: &str) {
        let in_lines = counted(n_lines, "line");
        output::note(&format!("note: in {in_lines}, first in line {first}, {note}; {}", control_text_hint()));
    }

    fn progress(&mut self, counts: &Counts, source: &Source) {
        self.progress.show(0, || {
            let mut line = counted(counts.n_answers, "answer");
            if let Some(n_bytes) = source.n_bytes.filter(|n| *n > 0) {
                line += &format!(", {} % of the prompts read", source.n_read * 100 / n_bytes);
            }
            if counts.n_bad > 0 {
                line += &format!(", {} left out", counted(counts.n_bad, "line"));
            }
            line + &format!(", {:.1} tokens/s", counts.tokens_per_s())
        });
    }
}

fn summary(counts: &Counts) -> String {
    let mut line = counted(counts.n_answers, "answer");
    if counts.n_skipped > 0 {
        line += &format!(", {} answered before", thousands(counts.n_skipped));
    }
    if counts.n_bad > 0 {
        line += &format!(", {} left out", counted(counts.n_bad, "line"));
    }
    let (n_new, seconds, rate) = (counted(counts.n_new_tokens, "token"), counts.seconds, counts.tokens_per_s());
    line + &format!("; {n_new} in {seconds:.1} s, {rate:.1} tokens/s")
}

fn show(has_json: bool, engine: &Engine, counts: &Counts, seed: u64, interrupted: bool) -> Outcome<()> {
    if has_json {
        let model = engine.model();
        output::json(&json!({
            "model": model.name,
            "device": model.device.describe(),
            "batch": engine.n_slots(),
            "answers": counts.n_answers,
            "answered_before": counts.n_skipped,
            "lines_left_out": counts.n_bad,
            "prompt_tokens": counts.n_prompt_tokens,
            "new_tokens": counts.n_new_tokens,
            "seconds": counts.seconds,
            "new_tokens_per_s": counts.tokens_per_s(),
            "seed": seed,
            "interrupted": interrupted,
        }))?;
    } else {
        output::note(&summary(counts));
    }
    Ok(())
}
