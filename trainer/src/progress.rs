//! What a person sees of a run: a bar on a terminal, plain lines elsewhere, on standard error. And the signals that stop it.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::job::{Note, Observer};
use crate::metrics::StepRow;
use indicatif::{ProgressBar, ProgressStyle};
use lichen_runtime::cli::output;
use lichen_runtime::setting::as_flag;
use lichen_runtime::{Error, Result};

/// Off a terminal a line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// Exit code of a second Ctrl-C: 128 + SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Counts SIGINT and SIGTERM: the first ends the run after its step, the second ends the program at once.
pub fn stop_signals() -> Result<Arc<AtomicU32>> {
    let count = Arc::new(AtomicU32::new(0));
    let seen = count.clone();
    let handler = ctrlc::set_handler(move || {
        if seen.fetch_add(1, Ordering::SeqCst) > 0 {
            std::process::exit(EXIT_INTERRUPTED);
        }
        output::note("stopping after this step (again to stop at once)");
    });
    handler.map_err(|e| Error::input(format!("cannot handle signals: {e}")))?;
    Ok(count)
}

/// Prints a run's progress.
pub struct Meter {
    signals: Arc<AtomicU32>,
    bar: ProgressBar,
    is_terminal: bool,
    n_steps: u64,
    last_line: Option<Instant>,
    average: Option<f64>,
}

impl Meter {
    pub fn new(signals: Arc<AtomicU32>) -> Meter {
        let is_terminal = std::io::stderr().is_terminal();
        Meter { signals, bar: ProgressBar::hidden(), is_terminal, n_steps: 0, last_line: None, average: None }
    }

    /// Clears the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }
}

impl Observer for Meter {
    fn started(&mut self, step: u64, n_steps: u64) {
        self.n_steps = n_steps;
        if self.is_terminal {
            let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps  {msg}  {eta} left");
            self.bar = ProgressBar::new(n_steps).with_style(style.expect("a fixed template"));
            self.bar.set_position(step);
        }
    }

    fn stepped(&mut self, row: &StepRow) {
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
            self.line(&format!("step {} skipped: {why}", row.step));
        }
        if let Some(loss) = row.eval_loss {
            self.line(&format!("step {}: eval loss {loss:.4}", row.step));
        }
    }

    fn note(&mut self, note: &Note) {
        self.line(&note.spelled(&as_flag));
    }

    fn wants_to_stop(&self) -> bool {
        self.signals.load(Ordering::SeqCst) > 0
    }
}
