//! `lichen-host demo`: ask, train on twenty examples, ask again. The training is a job of lichen-train, the answers are the
//! ordinary engine's: what is shown here is what the programs do.

mod questions;
mod run_folder;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_runtime::engine::answer::FinishReason;
use lichen_runtime::engine::conversation::Conversation;
use lichen_runtime::engine::request::{Request, SamplingOverrides};
use lichen_runtime::engine::{AdapterPath, DeviceChoice, Engine, EngineOptions};
use lichen_runtime::files::adapter_file::WEIGHTS_FILE;
use lichen_runtime::files::disk::{write_atomically, RealDisk};
use lichen_runtime::loader::{PreparedModel, DEFAULT_ADAPTER};
use lichen_runtime::{Error, Result};
use lichen_trainer::job::{Ending, Job, MemorySettings, Observer, Outcome, PreparedJob, Verdict, METRICS_FILE};
use lichen_trainer::metrics::{self, StepRow};

pub use questions::Question;
use run_folder::RunFolder;

/// The twenty examples that ship.
pub const EXAMPLES: &str = include_str!("../../demo/robot.jsonl");

/// Names in the folder of the run, beside the checkpoints.
const EXAMPLES_FILE: &str = "examples.jsonl";
const REGRESSION_PROMPTS_FILE: &str = "regression_prompts.jsonl";
/// Positions of a conversation of one question, and its longest answer.
const CONTEXT: usize = 1024;
const ANSWER_TOKENS_MAX: usize = 64;
/// Longest example, where the model has as much.
const MAX_SEQ: usize = 256;
/// Two samples a step: the 200 steps of 20 epochs take the demo model 3 s on two cores of an AMD EPYC (Zen 5).
const BATCH: usize = 2;

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// `None` for the demo model.
    pub model: Option<PathBuf>,
    /// `None` for the twenty that ship.
    pub examples: Option<PathBuf>,
    /// None for those that go with the examples that ship.
    pub questions: Vec<String>,
    pub epochs: u64,
    pub rank: usize,
    pub learning_rate: f64,
    pub threads: Option<usize>,
    /// `None` for a folder of the system's for temporary files.
    pub out: Option<PathBuf>,
}

/// Files that are open and a memory plan that fits: ready to ask and to train. Until it trains, dropping it leaves nothing
/// behind.
pub struct Demo {
    pub questions: Vec<Question>,
    pub job: PreparedJob,
    engine: EngineOptions,
    /// The memory plan of the engine that answers; training has its own.
    engine_bytes: usize,
    folder: RunFolder,
}

/// What training came to.
pub struct Trained {
    pub outcome: Outcome,
    /// Every step, in order.
    pub rows: Vec<StepRow>,
    /// The folder to give to `--adapter`: the published link, or a checkpoint that was not published.
    pub adapter: PathBuf,
    /// Of the adapter's weights file.
    pub adapter_bytes: u64,
}

impl Trained {
    /// Why `current` does not lead to the adapter; `None` when it does.
    pub fn unpublished(&self) -> Option<String> {
        match &self.outcome.ending {
            Ending::Finished(Verdict::Worse(why)) => Some(why.clone()),
            Ending::Finished(Verdict::Better | Verdict::Unknown) => None,
            Ending::Stopped => Some("stopped before its end".to_string()),
        }
    }

    /// Rows of all steps over the time of all steps.
    pub fn tokens_per_s(&self) -> f64 {
        let (tokens, seconds) = self.rows.iter().fold((0, 0.0), |(n, s), row| (n + row.tokens, s + row.seconds));
        if seconds > 0.0 {
            tokens as f64 / seconds
        } else {
            0.0
        }
    }
}

impl Demo {
    /// # Errors
    /// What is missing, malformed, not supported or too large, in one sentence.
    pub fn open(options: &Options) -> Result<Demo> {
        if options.examples.is_some() && options.questions.is_empty() {
            return Err(Error::usage("--examples needs --question: what to ask before and after"));
        }
        let questions = Question::all(&options.questions);
        let engine = EngineOptions {
            model: options.model.clone(),
            device: DeviceChoice::Cpu,
            threads: options.threads,
            default_context: Some(CONTEXT),
            ..EngineOptions::default()
        };
        let opened = PreparedModel::new(&engine)?;
        let max_seq = MAX_SEQ.min(opened.source.config().context_length);
        let engine_bytes = opened.plan.total_bytes();
        drop(opened);
        let folder = RunFolder::create(options.out.as_deref())?;
        let data = match &options.examples {
            Some(path) => path.clone(),
            None => write(&folder.path().join(EXAMPLES_FILE), EXAMPLES)?,
        };
        let prompts = write(&folder.path().join(REGRESSION_PROMPTS_FILE), &Question::control().as_regression_prompt())?;
        let job = PreparedJob::new(job(options, folder.path(), data, prompts, max_seq))?;
        Ok(Demo { questions, job, engine, engine_bytes, folder })
    }

    /// Bytes that the demo takes at most: it answers and trains one after the other.
    pub fn planned_bytes(&self) -> usize {
        self.engine_bytes.max(self.job.plan.total_bytes())
    }

    /// Whether the folder of the run is one of the system's for temporary files.
    pub fn is_temporary(&self) -> bool {
        self.folder.is_temporary()
    }

    /// Greedy answers to all questions, each in a conversation of its own. `None` when `wants_to_stop` said so.
    ///
    /// # Errors
    /// The model or the adapter cannot be opened, or a question is too long.
    pub fn ask(&self, adapter: Option<&Path>, wants_to_stop: &dyn Fn() -> bool) -> Result<Option<Vec<String>>> {
        let file = |path: &Path| (DEFAULT_ADAPTER.to_string(), AdapterPath { path: path.to_path_buf(), scale: 1.0 });
        let adapters = adapter.map(file).into_iter().collect();
        let mut engine = Engine::open(&EngineOptions { adapters, ..self.engine.clone() })?;
        let mut conversation = Conversation::new(Request {
            sampling: SamplingOverrides::greedy(),
            max_new_tokens: Some(ANSWER_TOKENS_MAX),
            ..Request::default()
        });
        let mut answers = Vec::with_capacity(self.questions.len());
        for question in &self.questions {
            conversation.reset();
            let answer = conversation.ask(&mut engine, &question.text, &mut |_| {}, &mut || wants_to_stop())?;
            if answer.finish_reason == FinishReason::Cancel {
                return Ok(None);
            }
            answers.push(answer.text.trim().to_string());
        }
        Ok(Some(answers))
    }

    /// Trains. From here on the folder stays.
    ///
    /// # Errors
    /// The run cannot go on; what was saved stays.
    pub fn train(&mut self, observer: &mut dyn Observer) -> Result<Trained> {
        self.folder.keep();
        let outcome = self.job.run(Arc::new(RealDisk), Path::new("/"), observer)?;
        let run = self.folder.path();
        let checkpoint = run.join(&outcome.checkpoint);
        let adapter = match &outcome.ending {
            Ending::Finished(Verdict::Better | Verdict::Unknown) => run.join("current"),
            Ending::Finished(Verdict::Worse(_)) | Ending::Stopped => checkpoint.clone(),
        };
        let weights = checkpoint.join(WEIGHTS_FILE);
        let adapter_bytes = std::fs::metadata(&weights).map_err(|e| Error::io(&weights, &e))?.len();
        let metrics = run.join(METRICS_FILE);
        // Stopped before its first step, a run has no rows.
        let rows = if outcome.step > 0 { metrics::read(&metrics)? } else { Vec::new() };
        Ok(Trained { outcome, rows, adapter, adapter_bytes })
    }
}

fn write(path: &Path, text: &str) -> Result<PathBuf> {
    write_atomically(path, |out| out.write_all(text.as_bytes()))?;
    Ok(path.to_path_buf())
}

/// What `lichen-train lora --data .. --out .. --regression-prompts .. --batch 2 --accumulate 1 --eval-split 0` would train.
fn job(options: &Options, run: &Path, data: PathBuf, prompts: PathBuf, max_seq: usize) -> Job {
    Job {
        memory: MemorySettings {
            model: options.model.clone(),
            rank: options.rank,
            max_seq,
            micro_batch_size: BATCH,
            device: DeviceChoice::Cpu,
            threads: options.threads,
            ..MemorySettings::default()
        },
        learning_rate: Some(options.learning_rate),
        data: vec![data],
        out: Some(run.to_path_buf()),
        // Of twenty rows, each one counts.
        strict: true,
        // All twenty are learned; the questions, worded otherwise, are the test.
        eval_split: 0.0,
        gradient_accumulation_steps: 1,
        epochs: options.epochs,
        regression_prompts: Some(prompts),
        save_total_limit: 1,
        ..Job::default()
    }
}
