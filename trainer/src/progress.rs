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
}

impl TrainingProgress<'_> {
    /// `signals` are what ends the run early.
    pub fn new(signals: &CatchInterrupts) -> TrainingProgress<'_> {
        TrainingProgress { signals, bar: ProgressBar::new(LINE_EVERY), n_steps: 0, average: None }
    }

    /// Clears the bar.
    pub fn finish(&self) {
        self.bar.end();
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
