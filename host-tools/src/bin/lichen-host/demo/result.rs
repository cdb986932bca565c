//! What came of the demo, as text and as JSON.

use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::Path;

use lichen_host_tools::demo::{Demo, Trained};
use lichen_runtime::escape::{escape, thousands};
use lichen_runtime::measure::bench::peak_rss_bytes;
use lichen_runtime::memory_plan::mib;
use lichen_trainer::job::Ending;
use lichen_trainer::report::curve::{curve, curve_ascii};
use serde_json::{json, Value};

/// Width and height of the loss curve, in characters.
const CURVE: (usize, usize) = (72, 8);

/// Everything there is to show.
pub struct Shown<'a> {
    pub demo: &'a Demo,
    pub before: &'a [String],
    /// `None` when it was stopped.
    pub after: Option<&'a [String]>,
    pub trained: &'a Trained,
}

impl Shown<'_> {
    pub fn as_json(&self) -> Value {
        let (opened, trained, outcome) = (&self.demo.job, self.trained, &self.trained.outcome);
        let answers = self.demo.questions.iter().enumerate().map(|(i, question)| {
            let after = self.after.map(|answers| &answers[i]);
            json!({
                "question": question.text,
                "is_control": question.is_control,
                "before": self.before[i],
                "after": after,
                "right_before": question.is_met_by(&self.before[i]),
                "right_after": after.and_then(|answer| question.is_met_by(answer)),
            })
        });
        let reason = trained.unpublished();
        json!({
            "model": opened.name,
            "examples": opened.data.n_train(),
            "answers": answers.collect::<Vec<_>>(),
            "finished": matches!(outcome.ending, Ending::Finished(_)),
            "published": reason.is_none(),
            "reason": reason,
            "step": outcome.step,
            "n_steps": outcome.n_steps,
            "epochs": opened.job.epochs,
            "rank": self.rank(),
            "learning_rate": opened.job.learning_rate(),
            "trainable_parameters": opened.n_parameters(),
            "loss_first": trained.rows.first().map(|row| row.loss),
            "loss_last": trained.rows.last().map(|row| row.loss),
            "seconds": outcome.seconds,
            "tokens_per_s": trained.tokens_per_s(),
            "threads": opened.engine.n_threads(),
            "peak_rss_bytes": peak_rss_bytes(),
            "planned_bytes": self.demo.planned_bytes(),
            "out": opened.out().display().to_string(),
            "adapter": trained.adapter.display().to_string(),
            "adapter_bytes": trained.adapter_bytes,
            "version": env!("CARGO_PKG_VERSION"),
        })
    }

    pub fn as_text(&self) -> String {
        [self.answers(), self.curve(), self.figures(), self.next()].concat()
    }

    fn answers(&self) -> String {
        let mut text = String::new();
        for ((question, before), after) in self.demo.questions.iter().zip(self.before).zip(self.after.unwrap_or(&[])) {
            let remark = if question.is_control { "  (not in the examples)" } else { "" };
            let (asked, before, after) = (one_line(&question.text), one_line(before), one_line(after));
            text.push_str(&format!("{asked}{remark}\n  before  {before}\n  after   {after}\n"));
        }
        text
    }

    fn curve(&self) -> String {
        let losses: Vec<f64> = self.trained.rows.iter().map(|row| row.loss).collect();
        if losses.is_empty() {
            return String::new();
        }
        let has_braille = std::io::stdout().is_terminal() && is_utf8(|name| std::env::var_os(name));
        let draw = if has_braille { curve } else { curve_ascii };
        format!("\nloss, step 1 to {}\n{}", losses.len(), draw(&losses, CURVE.0, CURVE.1))
    }

    fn figures(&self) -> String {
        let (opened, outcome) = (&self.demo.job, &self.trained.outcome);
        let skipped = if outcome.skipped > 0 { format!(", {} skipped", outcome.skipped) } else { String::new() };
        let n_threads = opened.engine.n_threads();
        format!(
            "\ntraining  {} of {} steps{skipped} in {:.1} s, {:.0} tokens/s on {n_threads} thread{}\n\
             memory    {} at the peak, {} planned\n\
             adapter   {} parameters, rank {}, {} bytes\n",
            outcome.step,
            outcome.n_steps,
            outcome.seconds,
            self.trained.tokens_per_s(),
            if n_threads == 1 { "" } else { "s" },
            peak_rss_bytes().map_or("not known here".to_string(), mib),
            mib(self.demo.planned_bytes()),
            thousands(opened.n_parameters() as u64),
            self.rank(),
            thousands(self.trained.adapter_bytes),
        )
    }

    /// Where the adapter is, and what to try next.
    fn next(&self) -> String {
        let (job, adapter) = (&self.demo.job, typed(&self.trained.adapter));
        let state = match self.trained.unpublished() {
            Some(why) => format!("Kept, not published ({}):", escape(&why)),
            None => "The adapter:".to_string(),
        };
        let place = if self.demo.is_temporary() { "\n(a temporary folder; --out DIR keeps it elsewhere)" } else { "" };
        let model = job.engine.model.as_deref().map_or(String::new(), |path| format!(" --model {}", typed(path)));
        let is_cargo = std::env::var_os("CARGO_PKG_NAME").is_some();
        let program = |name: &str, package: &str| match is_cargo {
            true => format!("cargo run --release -p {package} --"),
            false => name.to_string(),
        };
        format!(
            "\n{state} {adapter}{place}\n\nNext:\n  {} chat{model} --adapter {adapter}\n  {} report {}\n  {} demo{model} \
             --examples FILE.jsonl --question \"...\" --out DIR",
            program("lichen", "lichen-runtime"),
            program("lichen-train", "lichen-trainer"),
            typed(job.out()),
            program("lichen-host", "lichen-host-tools"),
        )
    }

    fn rank(&self) -> usize {
        self.demo.job.job.memory.rank
    }
}

/// An answer or a question in one line.
pub fn one_line(text: &str) -> String {
    escape(&text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// A path as a shell takes it.
fn typed(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_alphanumeric() || "+-._/:@%,=".contains(c);
    match text.chars().all(is_plain) && !text.is_empty() {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// Whether the terminal shows UTF-8, by the first of the three variables that is set.
fn is_utf8<S: AsRef<OsStr>>(variable: impl Fn(&str) -> Option<S>) -> bool {
    let set =
        |name: &&str| variable(name).map(|v| v.as_ref().to_string_lossy().to_lowercase()).filter(|v| !v.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(set).unwrap_or_default();
    locale.ends_with("utf-8") || locale.ends_with("utf8")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locales() {
        let cases: [(&[(&str, &str)], bool); 7] = [
            (&[], false),
            (&[("LANG", "C.UTF-8")], true),
            (&[("LANG", "en_IN.utf8")], true),
            (&[("LANG", "C.UTF-8"), ("LC_ALL", "C")], false),
            (&[("LANG", "C"), ("LC_CTYPE", "kn_IN.UTF-8")], true),
            (&[("LANG", "C.UTF-8"), ("LC_ALL", "")], true),
            (&[("LANG", "de_DE.ISO-8859-1")], false),
        ];
        for (set, want) in cases {
            let got = is_utf8(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| *value));
            assert_eq!(got, want, "{set:?}");
        }
    }

    #[test]
    fn paths_and_answers_on_a_line() {
        for (path, want) in
            [("runs/a-b_1.0", "runs/a-b_1.0"), ("my runs", "'my runs'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(typed(Path::new(path)), want);
        }
        assert_eq!(one_line(" two\n lines\u{1b}[1m "), "two lines\\u{1b}[1m");
    }
}
