//! `lichen-train lora` and `lichen-train full`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use lichen_runtime::cli::output::{self, Outcome};
use lichen_runtime::files::disk::RealDisk;
use lichen_runtime::measure::bench::peak_rss_bytes;
use lichen_runtime::memory_plan::mib;
use lichen_runtime::setting::as_flag;
use lichen_runtime::Error;
use lichen_trainer::job::{Ending, Job, Method, Outcome as Trained, PreparedJob, Scores, Verdict};
use lichen_trainer::progress::{stop_signals, TrainingProgress};
use lichen_trainer::setting::{DATA, OUT};
use serde_json::json;

use crate::job_flags::{job_of, JobFlags, OfFull, OfLora};

const LORA_EXAMPLES: &str = "Examples:
  lichen-train lora --model gemma-3-1b-it-Q8_0.gguf --data robot.jsonl --out runs/robot
  lichen-train lora job.toml --resume
  lichen chat --model gemma-3-1b-it-Q8_0.gguf --adapter runs/robot/current

Ctrl-C or SIGTERM finishes the step, saves and ends with exit code 0; --resume goes on bit for bit. An adapter is \
published, and `current` moves to it, only if its eval loss and regression prompts are no worse than at the start.";

const FULL_EXAMPLES: &str = "Example:
  lichen-train full --model ./Qwen2.5-0.5B --data sft.jsonl --out runs/sft --weights bf16 --learning-rate 1e-5

Every weight is trained, in f32. What is written is a Hugging Face folder: runs/sft/current.";

/// Train a LoRA adapter over a frozen model
#[derive(Args)]
#[command(after_help = LORA_EXAMPLES)]
pub struct LoraArgs {
    #[command(flatten)]
    file: JobFileArg,
    #[command(flatten)]
    flags: JobFlags<OfLora>,
    #[command(flatten)]
    shown: ShownArg,
}

/// Train every weight of a float model
#[derive(Args)]
#[command(after_help = FULL_EXAMPLES)]
pub struct FullArgs {
    #[command(flatten)]
    file: JobFileArg,
    #[command(flatten)]
    flags: JobFlags<OfFull>,
    #[command(flatten)]
    shown: ShownArg,
}

#[derive(Args)]
pub struct JobFileArg {
    /// A file with these flags as keys (`rank = 8`); flags on the command line win
    #[arg(value_name = "JOB.toml")]
    pub job_file: Option<PathBuf>,
}

#[derive(Args)]
struct ShownArg {
    /// Print one JSON object at the end
    #[arg(long)]
    json: bool,
}

pub fn lora(args: &LoraArgs) -> Outcome<()> {
    run(job_of(Method::Lora, args.file.job_file.as_deref(), &args.flags)?, args.shown.json)
}

pub fn full(args: &FullArgs) -> Outcome<()> {
    run(job_of(Method::Full, args.file.job_file.as_deref(), &args.flags)?, args.shown.json)
}

/// What a person who types is told beside what the library says.
fn check_needed(job: &Job) -> Result<(), Error> {
    for (setting, is_there) in [(DATA, !job.data.is_empty()), (OUT, job.out.is_some())] {
        if !is_there {
            return Err(Error::usage(format!("{setting} is missing; --help shows an example")));
        }
    }
    Ok(())
}

fn run(job: Job, as_json: bool) -> Outcome<()> {
    check_needed(&job)?;
    let signals = stop_signals();
    let mut opened = PreparedJob::new(job)?;
    for file in opened.data.files() {
        output::note(&format!("{}: {}", file.path.display(), file.counts));
        for note in file.counts.notes() {
            output::note(&format!("  {}", note.spelled(&as_flag)));
        }
    }
    for note in opened.outlook() {
        output::note(&note.spelled(&as_flag));
    }
    let how = opened.plan.describe_layers();
    output::note(&format!(
        "{}: {} trained parameters, {} planned, {how}",
        opened.name,
        opened.n_parameters(),
        mib(opened.plan.total_bytes())
    ));
    let mut progress = TrainingProgress::new(&signals);
    // Tests put a board of their own below another root.
    let sys_root = std::env::var_os("LICHEN_SYS_ROOT").map_or(PathBuf::from("/"), PathBuf::from);
    let trained = opened.run(Arc::new(RealDisk), &sys_root, &mut progress);
    progress.finish();
    let trained = trained?;
    if as_json {
        return output::json(&as_json_value(&opened, &trained));
    }
    output::line(&as_text(&opened, &trained))
}

fn as_json_value(opened: &PreparedJob, t: &Trained) -> serde_json::Value {
    let (published, reason) = match &t.ending {
        Ending::Finished(Verdict::Worse(why)) => (false, Some(why.clone())),
        Ending::Finished(_) => (true, None),
        Ending::Stopped => (false, Some("stopped before its end".to_string())),
    };
    json!({
        "out": opened.out().display().to_string(),
        "checkpoint": t.checkpoint,
        "finished": matches!(t.ending, Ending::Finished(_)),
        "published": published,
        "reason": reason,
        "step": t.step,
        "n_steps": t.n_steps,
        "resumed_from": t.resumed,
        "skipped_steps": t.skipped,
        "loss": t.loss,
        "before": t.before,
        "after": t.after,
        "train_samples": opened.data.n_train(),
        "eval_samples": opened.data.n_eval(),
        "rows_cut": opened.data.counts().cut,
        "rows_left_out": opened.data.counts().dropped + opened.data.counts().bad + opened.data.counts().without_labels,
        "trainable_parameters": opened.n_parameters(),
        "seconds": t.seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "planned_bytes": opened.plan.total_bytes(),
    })
}

fn as_text(opened: &PreparedJob, t: &Trained) -> String {
    let out = opened.out().display();
    let skipped = if t.skipped > 0 { format!(", {} skipped", t.skipped) } else { String::new() };
    let done = format!("{} of {} steps{skipped} in {:.1} s", t.step, t.n_steps, t.seconds);
    let scores = t.after.as_ref().map(|after| describe_scores(&t.before, after)).unwrap_or_default();
    match &t.ending {
        Ending::Stopped => format!("stopped and saved: {out}/{}: {done}; go on with --resume", t.checkpoint),
        Ending::Finished(Verdict::Worse(why)) => {
            format!("{done}{scores}\nkept but not published: {why}: {out}/{}", t.checkpoint)
        }
        Ending::Finished(Verdict::Unknown) => {
            format!("{done}\npublished, with nothing to compare (--eval-split, --regression-prompts): {out}/current")
        }
        Ending::Finished(Verdict::Better) => format!("{done}{scores}\npublished: {out}/current"),
    }
}

fn describe_scores(before: &Scores, after: &Scores) -> String {
    let mut text = String::new();
    if let (Some(was), Some(is)) = (before.eval_loss, after.eval_loss) {
        text.push_str(&format!("; eval loss {was:.4} before, {is:.4} after"));
    }
    if !after.answers.is_empty() {
        let (was, is, n) = (before.n_passed(), after.n_passed(), after.answers.len());
        text.push_str(&format!("; regression prompts {was} of {n} before, {is} after"));
    }
    text
}
