//! How far a conversion has come.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use lichen_host_tools::quantize::Progress;
use lichen_runtime::cli::output::{self, Failure, Outcome};
use lichen_runtime::display::thousands;
use lichen_runtime::signals::CatchInterrupts;
use lichen_runtime::{Error, Result};

/// Off a terminal a line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// A bar on a terminal, plain lines elsewhere; both on standard error. The first SIGINT or SIGTERM ends the work.
pub struct Meter {
    bar: ProgressBar,
    lines: bool,
    total: u64,
    done: u64,
    last_line: Instant,
    interrupts: CatchInterrupts,
}

impl Meter {
    /// Runs `work` under a new meter, and clears the bar behind it.
    pub fn watch<T>(work: impl FnOnce(&mut Meter) -> Result<T>) -> Outcome<T> {
        let mut meter = Meter::new();
        let result = work(&mut meter);
        meter.bar.finish_and_clear();
        match result {
            Err(error) if meter.interrupts.interrupted() => {
                output::error(error.message());
                Err(Failure::Interrupted)
            }
            other => Ok(other?),
        }
    }

    fn new() -> Meter {
        let lines = !std::io::stderr().is_terminal();
        let last_line = Instant::now();
        Meter { bar: ProgressBar::hidden(), lines, total: 0, done: 0, last_line, interrupts: CatchInterrupts::new() }
    }
}

impl Progress for Meter {
    fn start(&mut self, total: u64) {
        self.total = total;
        if !self.lines {
            let style =
                ProgressStyle::with_template("{bar:40} {percent:>3}%  {human_pos} of {human_len} weights, {eta}");
            self.bar = ProgressBar::new(total).with_style(style.expect("a fixed template"));
        }
    }

    fn advance(&mut self, values: u64) -> Result<()> {
        self.done += values;
        self.bar.inc(values);
        if self.lines && self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let percent = 100 * self.done / self.total.max(1);
            output::note(&format!("{percent}%: {} of {} weights", thousands(self.done), thousands(self.total)));
        }
        match self.interrupts.interrupted() {
            true => Err(Error::input("interrupted; nothing was written")),
            false => Ok(()),
        }
    }
}
