//! How far a conversion has come, and whether it is to end.

use std::time::Duration;

use lichen_host_tools::quantize::Progress;
use lichen_runtime::cli::output::{self, Failure, Outcome};
use lichen_runtime::cli::progress::ProgressBar;
use lichen_runtime::escape::thousands;
use lichen_runtime::signals::CatchInterrupts;
use lichen_runtime::{Error, Result};

/// Off a terminal a line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows a conversion's progress. The first SIGINT or SIGTERM ends the work.
pub struct ConversionProgress {
    bar: ProgressBar,
    total: u64,
    done: u64,
    interrupts: CatchInterrupts,
}

impl ConversionProgress {
    /// Runs `work` under a new bar, and clears it behind the work.
    pub fn watch<T>(work: impl FnOnce(&mut ConversionProgress) -> Result<T>) -> Outcome<T> {
        let (bar, interrupts) = (ProgressBar::new(LINE_EVERY), CatchInterrupts::new());
        let mut progress = ConversionProgress { bar, total: 0, done: 0, interrupts };
        let result = work(&mut progress);
        progress.bar.end();
        match result {
            Err(error) if progress.interrupts.interrupted() => {
                output::error(error.message());
                Err(Failure::Interrupted)
            }
            other => Ok(other?),
        }
    }
}

impl Progress for ConversionProgress {
    fn start(&mut self, total: u64) {
        self.total = total;
        self.bar.start(0, total);
    }

    fn advance(&mut self, values: u64) -> Result<()> {
        self.done += values;
        let (done, total) = (self.done, self.total);
        let percent = 100 * done / total.max(1);
        self.bar.show(done, || format!("{percent}%: {} of {} weights", thousands(done), thousands(total)));
        match self.interrupts.interrupted() {
            true => Err(Error::input("interrupted; nothing was written")),
            false => Ok(()),
        }
    }
}
