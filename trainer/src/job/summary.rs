//! `summary.json`: what a report shows of a run beside its rows.

use lichen_runtime::disk::write_atomically;
use lichen_runtime::memory_plan::mib;
use lichen_runtime::Result;

use super::gate::{Scores, Verdict};
use super::open::Opened;
use super::outcome::{Ending, Outcome};
use super::SUMMARY_FILE;
use crate::report::RunSummary;

/// Replaces the summary in the run folder.
///
/// # Errors
/// It cannot be written.
pub fn write(opened: &Opened, t: &Outcome) -> Result<()> {
    let settings = opened.settings();
    let number = |v: Option<f64>| v.map_or("-".to_string(), |v| format!("{v:.4}"));
    let mut scores = Vec::new();
    if t.before.eval_loss.is_some() {
        let after = t.after.as_ref().and_then(|a| a.eval_loss);
        scores.push(("held-out loss".to_string(), number(t.before.eval_loss), number(after)));
    }
    if !t.before.answers.is_empty() {
        let passed = |s: &Scores| format!("{} of {}", s.n_passed(), s.answers.len());
        let after = t.after.as_ref().map_or("-".to_string(), passed);
        scores.push(("canaries".to_string(), passed(&t.before), after));
    }
    let after = |i: usize| t.after.as_ref().and_then(|a| a.answers.get(i)).map_or(String::new(), |a| a.answer.clone());
    let answers = t.before.answers.iter().enumerate();
    let mut notes = vec![opened.data.counts().to_string()];
    if let Ending::Finished(Verdict::Worse(why)) = &t.ending {
        notes.push(format!("kept but not published: {why}"));
    }
    let summary = RunSummary {
        title: format!("{} on {}", opened.name, opened.job.data.display()),
        settings: settings.into_iter().map(|(name, value)| (name, value.to_string())).collect(),
        memory: opened.plan.items.iter().map(|i| (i.name.to_string(), mib(i.bytes))).collect(),
        scores,
        answers: answers.map(|(i, a)| (a.prompt.clone(), a.answer.clone(), after(i))).collect(),
        notes,
    };
    let text = serde_json::to_string_pretty(&summary).unwrap_or_default();
    let path = opened.job.out.join(SUMMARY_FILE);
    write_atomically(&path, |out| out.write_all(text.as_bytes()))
}
