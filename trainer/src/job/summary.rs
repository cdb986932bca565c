//! `summary.json`: what a report shows of a run beside its rows.

use std::io;
use std::path::Path;

use lichen_runtime::files::disk::{parent_of, Disk};
use lichen_runtime::memory_plan::mib;
use lichen_runtime::{Error, Result};

use super::evaluation::{Scores, Verdict};
use super::outcome::{Ending, Outcome};
use super::prepare::PreparedJob;
use super::SUMMARY_FILE;
use crate::checkpoint::TEMPORARY_PREFIX;
use crate::report::RunSummary;

/// Replaces the summary in the run folder.
///
/// # Errors
/// It cannot be written; an older one is as it was.
pub fn write(disk: &dyn Disk, opened: &PreparedJob, t: &Outcome) -> Result<()> {
    let settings = opened.settings();
    let number = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.4}"));
    let mut scores = Vec::new();
    if t.before.eval_loss.is_some() {
        let after = t.after.as_ref().and_then(|a| a.eval_loss);
        scores.push(("eval loss".to_string(), number(t.before.eval_loss), number(after)));
    }
    if !t.before.answers.is_empty() {
        let passed = |s: &Scores| format!("{} of {}", s.n_passed(), s.answers.len());
        let after = t.after.as_ref().map_or("-".to_string(), passed);
        scores.push(("regression prompts".to_string(), passed(&t.before), after));
    }
    let after = |i: usize| t.after.as_ref().and_then(|a| a.answers.get(i)).map_or(String::new(), |a| a.answer.clone());
    let answers = t.before.answers.iter().enumerate();
    let mut notes = vec![opened.data.counts().to_string()];
    if let Ending::Finished(Verdict::Worse(why)) = &t.ending {
        notes.push(format!("kept but not published: {why}"));
    }
    let summary = RunSummary {
        title: format!("{} on {}", opened.name, opened.data_name()),
        settings: settings.into_iter().map(|(name, value)| (name, value.to_string())).collect(),
        memory: opened.plan.items.iter().map(|i| (i.name.to_string(), mib(i.bytes))).collect(),
        scores,
        answers: answers.map(|(i, a)| (a.prompt.clone(), a.answer.clone(), after(i))).collect(),
        notes,
    };
    let text = serde_json::to_string_pretty(&summary).unwrap_or_default();
    let path = opened.out().join(SUMMARY_FILE);
    replace(disk, &path, text.as_bytes()).map_err(|e| Error::io(&path, &e))
}

/// Durable when it returns; what a failure leaves under the temporary name goes now, or with a later run's.
fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_file_name(format!("{TEMPORARY_PREFIX}{SUMMARY_FILE}"));
    disk.remove_all(&temporary)?;
    let replaced = disk.replace(path, &temporary, bytes).and_then(|()| disk.sync_dir(parent_of(path)));
    if replaced.is_err() {
        if let Err(e) = disk.remove_all(&temporary) {
            log::warn!("{}: leftover not removed: {e}", temporary.display());
        }
    }
    replaced
}
