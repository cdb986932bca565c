//! `lichen generate --prompts`: a file of prompts, many answers at once.

mod source;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use lichen_runtime::batch::{Batch, BatchAnswer, BatchRequest, SLOTS_MAX};
use lichen_runtime::chat_template::{encode_chat, ChatTemplate, Message, Role};
use lichen_runtime::cli::progress::ProgressBar;
use lichen_runtime::disk::{refuse_existing, RealDisk};
use lichen_runtime::engine::Engine;
use lichen_runtime::escape::{counted, thousands};
use lichen_runtime::prompt_file::{answer_line, AnswerFile, Answered, Numbered, Prompt, PromptLine};
use lichen_runtime::sampler::SamplerConfig;
use lichen_runtime::setting::{
    as_flag, as_json_key, MAX_NEW_TOKENS, MIN_P, REPEAT_PENALTY, SEED, STOP, SYSTEM, TEMPERATURE, TOP_K, TOP_P,
};
use lichen_runtime::signals::CatchInterrupts;
use lichen_runtime::stop::StopStrings;
use lichen_runtime::{Error, Result};
use serde_json::json;

use crate::args::number;
use crate::generate::{encode_raw, open_with, sampling, GenerateArgs};
use crate::output::{self, Failure, Outcome};
use source::{Next, Source};

/// Answers at once unless told otherwise.
const SLOTS_USUAL: usize = 16;
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
    /// Answers computed at once [default: 16]
    #[arg(long, value_name = "N", allow_hyphen_values = true, requires = "prompts",
          value_parser = number(1usize, SLOTS_MAX))]
    batch: Option<usize>,
    /// Where answers go, a line each, as they are finished [default: standard output]
    #[arg(long, value_name = "FILE", requires = "prompts")]
    out: Option<PathBuf>,
    /// Go on with an --out that an earlier run began: lines that it answers are skipped
    #[arg(long, requires = "out")]
    resume: bool,
}

pub fn run(args: &GenerateArgs, prompts: &Path) -> Outcome<()> {
    let own = &args.batch;
    if args.json && own.out.is_none() {
        return Err(
            Error::usage("--json is a summary on standard output, where the answers go: --out FILE is needed").into()
        );
    }
    // Once, and not for every line that takes the flag's.
    StopStrings::new(args.sampling.stop.clone())?;
    let source = Source::open(prompts)?;
    if let Some(path) = own.out.as_deref().filter(|_| !own.resume) {
        refuse_begun(path)?;
    }
    let mut options = args.machine.options(&args.model)?;
    options.batch = Some(own.batch.unwrap_or(SLOTS_USUAL));
    let engine = open_with(&options)?;
    if let Some(batch) = engine.plan.batch.filter(|b| b.n_contexts < b.n_slots) {
        output::note(&format!(
            "note: there is memory for {} of {} answers of the full context; long ones wait for each other",
            batch.n_contexts, batch.n_slots
        ));
    }
    let mut batch = engine.batch()?;
    // Not before the model is there: a run that never began leaves no file.
    let (out, answered) = open_out(own)?;
    let mut job = Job {
        args,
        engine: &engine,
        template: None,
        flags: sampling(&args.sampling, &engine),
        out,
        answered,
        pending: HashMap::new(),
        counts: Counts::default(),
        failed: None,
    };
    let outcome = job.run(&mut batch, source);
    // What was answered is kept, whatever happened.
    let flushed = job.out.flush();
    let interrupted = outcome?;
    flushed?;
    job.report(interrupted)
}

/// What a line may say is spelled as its key, the rest as a flag.
fn as_line_or_flag(name: &str) -> String {
    let is_of_a_line = [MAX_NEW_TOKENS, SEED, TEMPERATURE, TOP_K, TOP_P, MIN_P, REPEAT_PENALTY, STOP, SYSTEM];
    match is_of_a_line.iter().any(|setting| setting.name() == name) {
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
    let Some(path) = &args.out else { return Ok((Out::Stdout, Answered::default())) };
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
    Stdout,
    File(AnswerFile),
}

impl Out {
    fn write(&mut self, line: String) -> Outcome<()> {
        match self {
            Out::Stdout => output::json_line(&line),
            Out::File(file) => Ok(file.write(line)?),
        }
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Out::Stdout => Ok(()),
            Out::File(file) => file.flush(),
        }
    }
}

#[derive(Default)]
struct Counts {
    n_answers: u64,
    n_skipped: u64,
    n_bad: u64,
    n_prompt_tokens: u64,
    n_new_tokens: u64,
    seconds: f64,
}

impl Counts {
    fn summary(&self, tokens_per_s: f64) -> String {
        let mut line = counted(self.n_answers, "answer");
        if self.n_skipped > 0 {
            line += &format!(", {} answered before", thousands(self.n_skipped));
        }
        if self.n_bad > 0 {
            line += &format!(", {} left out", counted(self.n_bad, "line"));
        }
        line + &format!(
            "; {} in {:.1} s, {tokens_per_s:.1} tokens/s",
            counted(self.n_new_tokens, "token"),
            self.seconds
        )
    }
}

/// What Ctrl-C is answered with while so many answers are not finished.
fn interruption(n: u64) -> String {
    match n {
        0 => "interrupted".to_string(),
        1 => "interrupted: 1 answer is finished first; Ctrl-C again ends at once".to_string(),
        n => format!("interrupted: {} are finished first; Ctrl-C again ends at once", counted(n, "answer")),
    }
}

/// A run over one file.
struct Job<'a> {
    args: &'a GenerateArgs,
    engine: &'a Engine,
    template: Option<ChatTemplate>,
    flags: SamplerConfig,
    out: Out,
    answered: Answered,
    /// Prompts whose answers are not finished, by line, and the seeds they draw with.
    pending: HashMap<u64, (PromptLine, u64)>,
    counts: Counts,
    /// Why an answer could not be written.
    failed: Option<Failure>,
}

impl Job<'_> {
    /// True when Ctrl-C ended it.
    fn run(&mut self, batch: &mut Batch<'_>, mut source: Source) -> Outcome<bool> {
        let interrupts = CatchInterrupts::new();
        let (start, mut progress) = (Instant::now(), ProgressBar::new(LINE_EVERY));
        let (mut is_end, mut was_interrupted) = (false, false);
        loop {
            if interrupts.interrupted() && !was_interrupted {
                was_interrupted = true;
                output::note(&interruption((batch.n_running() + batch.n_waiting()) as u64));
            }
            while !is_end && !was_interrupted && batch.wants_more() {
                let is_idle = batch.n_running() + batch.n_waiting() == 0;
                match source.next(is_idle)? {
                    Next::Line(line) => self.submit(batch, &source, *line)?,
                    Next::NotYet => break,
                    Next::End => is_end = true,
                }
            }
            let went_on = batch.step(&mut |answer| self.finish(&source, answer))?;
            self.counts.seconds = start.elapsed().as_secs_f64();
            if let Some(failure) = self.failed.take() {
                return Err(failure);
            }
            if !went_on && (is_end || was_interrupted) {
                progress.end();
                return Ok(was_interrupted);
            }
            progress.show(0, || self.line(&source));
        }
    }

    /// Puts a line into the queue, unless it was answered before or cannot be.
    fn submit(&mut self, batch: &mut Batch<'_>, source: &Source, line: Numbered) -> Outcome<()> {
        let Numbered { number, prompt } = line;
        let prompt = match prompt {
            Ok(prompt) => prompt,
            Err(error) => {
                self.refuse(&error);
                return Ok(());
            }
        };
        if self.answered.has(&prompt).map_err(|e| source.at(number, e))? {
            self.counts.n_skipped += 1;
            return Ok(());
        }
        let seed = self.flags.seed.wrapping_add(number - 1);
        let sampling = prompt.options.over(self.flags, seed);
        let submitted = self.encode(&prompt).and_then(|ids| {
            batch.submit(BatchRequest {
                id: number,
                prompt: ids,
                max_new_tokens: prompt.options.max_new_tokens.unwrap_or(self.args.sampling.max_new_tokens),
                sampling,
                stop: prompt.options.stop.clone().unwrap_or_else(|| self.args.sampling.stop.clone()),
            })
        });
        match submitted {
            Ok(()) => {
                self.pending.insert(number, (prompt, sampling.seed));
            }
            Err(error) => self.refuse(&source.at(number, error)),
        }
        Ok(())
    }

    fn refuse(&mut self, error: &Error) {
        self.counts.n_bad += 1;
        match self.counts.n_bad {
            ..=BAD_LINES_SHOWN => output::error(&error.spelled(&as_line_or_flag)),
            n if n == BAD_LINES_SHOWN + 1 => {
                output::error("more lines cannot be answered; they are counted from here on")
            }
            _ => {}
        }
    }

    fn encode(&mut self, line: &PromptLine) -> Result<Vec<u32>> {
        let mut messages = match &line.prompt {
            Prompt::Tokens(ids) => return Ok(ids.clone()),
            Prompt::Text(_) if self.args.raw && line.options.system.is_some() => {
                return Err(Error::input("has \"system\", and --raw takes \"prompt\" alone"));
            }
            Prompt::Text(text) if self.args.raw => return encode_raw(self.engine.tokenizer()?, text),
            Prompt::Text(text) => vec![Message::user(text)],
            Prompt::Messages(_) if self.args.raw => {
                return Err(Error::input("has \"messages\", and --raw takes \"prompt\" alone"));
            }
            Prompt::Messages(messages) => messages.clone(),
        };
        if messages[0].role != Role::System {
            let system = line.options.system.as_ref().or(self.args.sampling.system.as_ref());
            messages.splice(0..0, system.map(Message::system));
        }
        if self.template.is_none() {
            self.template = Some(self.engine.chat_template()?);
        }
        let template = self.template.as_ref().expect("made above");
        encode_chat(self.engine.tokenizer()?, template, &messages, true)
    }

    fn finish(&mut self, source: &Source, answer: BatchAnswer) {
        let Some((prompt, seed)) = self.pending.remove(&answer.id) else { return };
        match answer.result {
            Ok(answer) => {
                self.counts.n_answers += 1;
                self.counts.n_prompt_tokens += answer.timings.prompt_tokens as u64;
                self.counts.n_new_tokens += answer.timings.new_tokens as u64;
                let line = answer_line(&prompt, &answer, seed, self.engine.tokenizer.is_some());
                if let Err(failure) = self.out.write(line) {
                    self.failed.get_or_insert(failure);
                }
            }
            Err(error) => self.refuse(&source.at(prompt.number, error)),
        }
    }

    /// How far it is.
    fn line(&self, source: &Source) -> String {
        let c = &self.counts;
        let mut line = counted(c.n_answers, "answer");
        if let Some(n_bytes) = source.n_bytes.filter(|n| *n > 0) {
            line += &format!(", {} % of the prompts read", source.n_read * 100 / n_bytes);
        }
        if c.n_bad > 0 {
            line += &format!(", {} left out", counted(c.n_bad, "line"));
        }
        line + &format!(", {:.1} tokens/s", self.tokens_per_s())
    }

    fn tokens_per_s(&self) -> f64 {
        self.counts.n_new_tokens as f64 / self.counts.seconds.max(1e-9)
    }

    fn report(&self, interrupted: bool) -> Outcome<()> {
        let c = &self.counts;
        if self.args.json {
            output::json(&json!({
                "model": self.engine.name,
                "device": self.engine.device.describe(),
                "batch": self.engine.plan.batch.map(|b| b.n_slots),
                "answers": c.n_answers,
                "answered_before": c.n_skipped,
                "lines_left_out": c.n_bad,
                "prompt_tokens": c.n_prompt_tokens,
                "new_tokens": c.n_new_tokens,
                "seconds": c.seconds,
                "new_tokens_per_s": self.tokens_per_s(),
                "seed": self.flags.seed,
                "interrupted": interrupted,
            }))?;
        } else {
            output::note(&c.summary(self.tokens_per_s()));
        }
        match (interrupted, c.n_bad) {
            // What was begun is finished and kept, and a run that resumes answers the rest and names its bad lines.
            (true, _) if matches!(self.out, Out::File(_)) => Ok(()),
            (true, _) => Err(Failure::Interrupted),
            (false, 0) => Ok(()),
            (false, _) => Err(Failure::Reported),
        }
    }
}
