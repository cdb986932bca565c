//! `lichen-train report` and `lichen-train rollback`: what there is to see of a run, and back to what was published before.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use lichen_runtime::cli::output::{self, Outcome};
use lichen_runtime::files::disk::{write_atomically, Disk, RealDisk};
use lichen_runtime::files::formats::json_file::{read_text_any, MAX_CONFIG_BYTES};
use lichen_runtime::Error;
use lichen_trainer::checkpoint::rollback;
use lichen_trainer::job::{METRICS_FILE, SUMMARY_FILE};
use lichen_trainer::metrics;
use lichen_trainer::report::{curve, html, tensorboard, RunSummary};
use serde_json::json;

const REPORT_EXAMPLES: &str = "Example:
  lichen-train report runs/robot          writes runs/robot/report.html and a TensorBoard event file beside it
  tensorboard --logdir runs";

/// Height of the curve in the terminal, in lines, and its width in characters.
const CURVE: (usize, usize) = (72, 10);

/// Draw a run: a page that opens without a network, TensorBoard events, a curve here
#[derive(Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub struct ReportArgs {
    /// Folder of the run
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Where the page goes [default: RUN_DIR/report.html]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn report(args: &ReportArgs) -> Outcome<()> {
    let rows = metrics::read(&args.run.join(METRICS_FILE))?;
    if rows.is_empty() {
        return Err(Error::input("holds no step yet: there is nothing to draw")
            .in_file(&args.run.join(METRICS_FILE))
            .into());
    }
    let summary = read_summary(&args.run)?;
    let page = args.out.clone().unwrap_or_else(|| args.run.join("report.html"));
    let html = html::page(&summary, &rows);
    write_atomically(&page, |out| out.write_all(html.as_bytes()))?;
    let start = start_of(&args.run.join(METRICS_FILE), rows.iter().map(|r| r.seconds).sum());
    let events = args.run.join(events_name(&args.run, start));
    write_atomically(&events, |out| tensorboard::write_events(&rows, start, out))?;
    let losses: Vec<f64> = rows.iter().map(|r| r.loss).collect();
    let last = losses.last().copied().unwrap_or(f64::NAN);
    if args.json {
        return output::json(&json!({
            "page": page.display().to_string(),
            "events": events.display().to_string(),
            "steps": rows.len(),
            "loss_first": losses[0],
            "loss_last": last,
            "eval_loss_last": rows.iter().rev().find_map(|r| r.eval_loss),
            "seconds": rows.iter().map(|r| r.seconds).sum::<f64>(),
        }));
    }
    output::line(&curve::curve(&losses, CURVE.0, CURVE.1))?;
    output::line(&format!("{} steps, loss {:.4} to {last:.4}", rows.len(), losses[0]))?;
    output::line(&format!("{}\n{}", page.display(), events.display()))
}

fn read_summary(run: &Path) -> Result<RunSummary, Error> {
    let path = run.join(SUMMARY_FILE);
    if !path.exists() {
        // A run that was killed has rows, and no summary yet.
        return Ok(RunSummary { title: run.display().to_string(), ..RunSummary::default() });
    }
    let text = read_text_any(&path, MAX_CONFIG_BYTES)?;
    serde_json::from_str(&text).map_err(|e| Error::input(format!("cannot be read: {e}")).in_file(&path))
}

/// When the run began, by the journal's last change: TensorBoard wants a clock.
fn start_of(metrics: &Path, seconds: f64) -> f64 {
    let changed = std::fs::metadata(metrics).and_then(|m| m.modified()).ok();
    let since = changed.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0.0, |t| t.as_secs_f64() - seconds).max(0.0)
}

/// The event file that is there, so that drawing again does not add a second; else a new name.
fn events_name(run: &Path, start: f64) -> String {
    let there = std::fs::read_dir(run).into_iter().flatten().flatten();
    let names = there.map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|n| n.starts_with("events.out.tfevents.")).min().unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        tensorboard::file_name(start, host.trim())
    })
}

/// Move `current` back to what was published before
#[derive(Args)]
#[command(after_help = "Example:\n  lichen-train rollback runs/robot")]
pub struct RollbackArgs {
    /// Folder of the run
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn roll_back(args: &RollbackArgs) -> Outcome<()> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let (from, to) = rollback(&disk, &args.run)?;
    match args.json {
        true => output::json(&json!({"from": from, "to": to})),
        false => output::line(&format!("{}/current: {to}, it was {from}", args.run.display())),
    }
}
