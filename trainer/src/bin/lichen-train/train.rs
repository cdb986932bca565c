//! `lichen-train lora` and `lichen-train full`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use lichen_runtime::bench::peak_rss_bytes;
use lichen_runtime::cli::output::{self, Outcome};
use lichen_runtime::disk::RealDisk;
use lichen_runtime::memory_plan::mib;
use lichen_trainer::job::{Ending, Job, Opened, Outcome as Trained, Scores, Verdict};
use lichen_trainer::progress::{stop_signals, TrainingProgress};
use serde_json::json;

use crate::job_args::{FullFlags, JobArgs, LoraFlags};

const LORA_EXAMPLES: &str = "Examples:
  lichen-train lora --model gemma-3-1b-it-Q8_0.gguf --data robot.jsonl --out runs/robot
  lichen-train lora job.toml --resume
  lichen chat --model gemma-3-1b-it-Q8_0.gguf --adapter runs/robot/current

Ctrl-C or SIGTERM finishes the step, saves and ends with exit code 0; --resume goes on bit for bit. An adapter whose \
held-out loss or canaries are worse than at the start is kept, but `current` does not move to it.";

const FULL_EXAMPLES: &str = "Example:
  lichen-train full --model ./Qwen2.5-0.5B --data sft.jsonl --out runs/sft --weights bf16 --learning-rate 1e-5

Every weight is trained, in f32. What is written is a Hugging Face folder: runs/sft/current.";

/// Train a LoRA adapter over a frozen model
#[derive(Args)]
#[command(after_help = LORA_EXAMPLES)]
pub struct LoraArgs {
    #[command(flatten)]
    pub lora: LoraFlags,
    #[command(flatten)]
    pub job: JobArgs,
}

/// Train every weight of a float model
#[derive(Args)]
#[command(after_help = FULL_EXAMPLES)]
pub struct FullArgs {
    #[command(flatten)]
    pub full: FullFlags,
    #[command(flatten)]
    pub job: JobArgs,
}

pub fn lora(args: &LoraArgs) -> Outcome<()> {
    run(args.job.job(args.lora.kind(), args.lora.learning_rate)?, args.job.json)
}

pub fn full(args: &FullArgs) -> Outcome<()> {
    run(args.job.job(args.full.kind(), args.full.learning_rate)?, args.job.json)
}

fn run(job: Job, as_json: bool) -> Outcome<()> {
    let signals = stop_signals();
    let mut opened = Opened::new(job)?;
    let counts = opened.data.counts();
    output::note(&format!("{}: {counts}", opened.job.data.display()));
    for note in counts.bad_notes.iter().chain(&counts.long_notes).chain(&counts.torn) {
        output::note(&format!("  {note}"));
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

fn as_json_value(opened: &Opened, t: &Trained) -> serde_json::Value {
    let (published, reason) = match &t.ending {
        Ending::Finished(Verdict::Worse(why)) => (false, Some(why.clone())),
        Ending::Finished(_) => (true, None),
        Ending::Stopped => (false, Some("stopped before its end".to_string())),
    };
    json!({
        "out": opened.job.out.display().to_string(),
        "generation": t.generation,
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
        "trainable_parameters": opened.n_parameters(),
        "seconds": t.seconds,
        "peak_rss_bytes": peak_rss_bytes(),
        "planned_bytes": opened.plan.total_bytes(),
    })
}

fn as_text(opened: &Opened, t: &Trained) -> String {
    let out = opened.job.out.display();
    let skipped = if t.skipped > 0 { format!(", {} skipped", t.skipped) } else { String::new() };
    let done = format!("{} of {} steps{skipped} in {:.1} s", t.step, t.n_steps, t.seconds);
    let scores = t.after.as_ref().map(|after| describe_scores(&t.before, after)).unwrap_or_default();
    match &t.ending {
        Ending::Stopped => format!("stopped and saved: {out}/{}: {done}; go on with --resume", t.generation),
        Ending::Finished(Verdict::Worse(why)) => {
            format!("{done}{scores}\nkept but not published: {why}: {out}/{}", t.generation)
        }
        Ending::Finished(Verdict::Unknown) => {
            format!("{done}\npublished, with nothing to judge it by (--eval-split, --canary): {out}/current")
        }
        Ending::Finished(Verdict::Better) => format!("{done}{scores}\npublished: {out}/current"),
    }
}

fn describe_scores(before: &Scores, after: &Scores) -> String {
    let mut text = String::new();
    if let (Some(was), Some(is)) = (before.eval_loss, after.eval_loss) {
        text.push_str(&format!("; held-out loss {was:.4} before, {is:.4} after"));
    }
    if !after.answers.is_empty() {
        let (was, is, n) = (before.n_passed(), after.n_passed(), after.answers.len());
        text.push_str(&format!("; canaries {was} of {n} before, {is} after"));
    }
    text
}
