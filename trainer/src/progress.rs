//! What a person sees of a run: a bar on a terminal, plain lines elsewhere, on standard error. And the signals that stop it.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use crate::job::Observer;
use crate::metrics::Row;
use indicatif::{ProgressBar, ProgressStyle};
use lichen_runtime::cli::output;
use lichen_runtime::signals::CatchInterrupts;

/// Off a terminal a line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Catches SIGINT and SIGTERM: the first ends the run after its step, the second ends the program at once.
pub fn stop_signals() -> CatchInterrupts {
    CatchInterrupts::with_note("stopping after this step (again to stop at once)")
}

/// Prints a run's progress.
pub struct Meter<'a> {
    signals: &'a CatchInterrupts,
    bar: ProgressBar,
    is_terminal: bool,
    n_steps: u64,
    last_line: Option<Instant>,
    average: Option<f64>,
}

impl Meter<'_> {
    /// `signals` are what ends the run early.
    pub fn new(signals: &CatchInterrupts) -> Meter<'_> {
        let is_terminal = std::io::stderr().is_terminal();
        Meter { signals, bar: ProgressBar::hidden(), is_terminal, n_steps: 0, last_line: None, average: None }
    }

    /// Clears the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Meter<'_> {
    fn started(&mut self, step: u64, n_steps: u64) {
        self.n_steps = n_steps;
        if self.is_terminal {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {msg}  {eta} left");
            self.bar = ProgressBar::new(n_steps).with_style(style.expect("a fixed template"));
            self.bar.set_position(step);
        }
    }

    fn stepped(&mut self, row: &Row) {
        let average = self.average.unwrap_or(row.loss);
        self.average = Some(average + 0.1 * (row.loss - average));
        let text = format!("loss {:.4}  {:.0} tokens/s", average, row.tokens_per_s);
        if self.is_terminal {
            self.bar.set_message(text);
            self.bar.set_position(row.step);
        } else if row.step == self.n_steps || self.last_line.is_none_or(|t| t.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            output::note(&format!("step {} of {}: {text}", row.step, self.n_steps));
        }
        if let Some(why) = &row.skipped {
            self.note(&format!("step {} skipped: {why}", row.step));
        }
        if let Some(loss) = row.eval_loss {
            self.note(&format!("step {}: held-out loss {loss:.4}", row.step));
        }
    }

    fn note(&mut self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }

    fn wants_to_stop(&self) -> bool {
        self.signals.interrupted()
    }
}
