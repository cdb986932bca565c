//! What a person sees of a run: a bar on a terminal, plain lines elsewhere, on standard error. And the signals that stop it.

use std::time::Duration;

use crate::job::{Note, Observer};
use crate::metrics::StepRow;
use lichen_runtime::cli::output;
use lichen_runtime::cli::progress::ProgressBar;
use lichen_runtime::setting::as_flag;
use lichen_runtime::signals::CatchInterrupts;

/// Off a terminal a line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Catches SIGINT and SIGTERM: the first ends the run after its step, the second ends the program at once.
pub fn stop_signals() -> CatchInterrupts {
    CatchInterrupts::with_note("stopping after this step (again to stop at once)")
}

/// Prints a run's progress.
pub struct TrainingProgress<'a> {
    signals: &'a CatchInterrupts,
    bar: ProgressBar,
    n_steps: u64,
    /// Of the losses so far, the newer ones counted more; `None` before the first step.
    average: Option<f64>,
    /// Steps that were taken here, and their seconds, until the estimate is made of them.
    measured: Option<(u64, f64)>,
}

/// How much is measured before the time of all steps is said: so many steps, or so many seconds.
const MEASURED_STEPS: u64 = 3;
const MEASURED_S: f64 = 20.0;
/// What takes less is over before it is read.
const SAID_FROM_S: f64 = 10.0;

impl TrainingProgress<'_> {
    /// `signals` are what ends the run early.
    pub fn new(signals: &CatchInterrupts) -> TrainingProgress<'_> {
        TrainingProgress {
            signals,
            bar: ProgressBar::new(LINE_EVERY),
            n_steps: 0,
            average: None,
            measured: Some((0, 0.0)),
        }
    }

    /// Clears the bar.
    pub fn finish(&self) {
        self.bar.end();
    }

    /// Says once how long the whole takes if it goes on as its first steps did.
    fn estimate(&mut self, row: &StepRow) {
        let Some((n, seconds)) = self.measured else { return };
        let (n, seconds) = (n + 1, seconds + row.seconds);
        self.measured = Some((n, seconds));
        if n < MEASURED_STEPS && seconds < MEASURED_S {
            return;
        }
        self.measured = None;
        let left = seconds / n as f64 * self.n_steps.saturating_sub(row.step) as f64;
        if left >= SAID_FROM_S {
            let steps = if n == 1 { "step" } else { "steps" };
            output::note(&format!(
                "about {} left, if it goes on as the first {n} {steps} ({seconds:.1} s)",
                spoken(left)
            ));
        }
    }
}

/// `40 s`, `12 min`, `3.5 h`, `2.1 days`.
fn spoken(seconds: f64) -> String {
    match seconds {
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 5400.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} days", s / 86_400.0),
    }
}

impl Observer for TrainingProgress<'_> {
    fn started(&mut self, step: u64, n_steps: u64) {
        self.n_steps = n_steps;
        self.bar.start(step, n_steps);
    }

    fn stepped(&mut self, row: &StepRow) {
        let is_first = self.average.is_none();
        let average = self.average.unwrap_or(row.loss);
        let average = average + 0.1 * (row.loss - average);
        self.average = Some(average);
        let (step, n_steps) = (row.step, self.n_steps);
        let text = || format!("step {step} of {n_steps}: loss {average:.4}  {:.0} tokens/s", row.tokens_per_s);
        match is_first || step == n_steps {
            true => self.bar.show_now(step, text),
            false => self.bar.show(step, text),
        }
        self.estimate(row);
        if let Some(why) = &row.skipped {
            output::note(&format!("step {} skipped: {why}", row.step));
        }
        if let Some(loss) = row.eval_loss {
            output::note(&format!("step {}: eval loss {loss:.4}", row.step));
        }
    }

    fn note(&mut self, note: &Note) {
        output::note(&note.spelled(&as_flag));
    }

    fn wants_to_stop(&self) -> bool {
        self.signals.interrupted()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spoken_in_their_unit() {
        for (seconds, want) in
            [(12.4, "12 s"), (89.0, "89 s"), (600.0, "10 min"), (9000.0, "2.5 h"), (200_000.0, "2.3 days")]
        {
            assert_eq!(spoken(seconds), want);
        }
    }
}
