//! How far work has come: a bar on a terminal, plain lines elsewhere, both on standard error.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use super::output;

/// On a terminal the bar is drawn anew this often.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Characters of the bar itself.
const BAR_CHARS: usize = 30;
/// Longest line on a terminal: one that wraps could not be replaced.
const LINE_CHARS_MAX: usize = 79;

/// Shows how much of some work is done. Errors, notes and output clear the bar, and it comes back when it is shown again;
/// it goes with the value.
pub struct ProgressBar {
    is_terminal: bool,
    every: Duration,
    next: Instant,
    /// Units of work in all; 0 where nobody knows: then there is a line without a bar.
    total: u64,
    /// Units that were done when the work began here.
    done_before: u64,
    start: Instant,
}

impl ProgressBar {
    /// `line_every`: how often a line is printed where there is no terminal.
    pub fn new(line_every: Duration) -> ProgressBar {
        let is_terminal = io::stderr().is_terminal();
        let every = if is_terminal { DRAW_EVERY } else { line_every };
        let start = Instant::now();
        ProgressBar { is_terminal, every, next: start + every, total: 0, done_before: 0, start }
    }

    /// Work of `total` units begins, `done` of which were done before.
    pub fn start(&mut self, done: u64, total: u64) {
        self.start = Instant::now();
        (self.total, self.done_before, self.next) = (total, done, self.start + self.every);
    }

    /// `done` units are done: says so in the words of `text`, but not more often than makes sense.
    pub fn show(&mut self, done: u64, text: impl FnOnce() -> String) {
        if Instant::now() >= self.next {
            self.show_now(done, text);
        }
    }

    /// The same, however long ago the last line was.
    pub fn show_now(&mut self, done: u64, text: impl FnOnce() -> String) {
        self.next = Instant::now() + self.every;
        match self.is_terminal {
            true => output::progress(&bar_line(done, self.total, self.left(done), &text())),
            false => output::note(&text()),
        }
    }

    /// Clears the bar.
    pub fn end(&self) {
        output::progress("");
    }

    /// How long it will take if it goes on as it did.
    fn left(&self, done: u64) -> Option<Duration> {
        let done_here = done.checked_sub(self.done_before).filter(|n| *n > 0)?;
        let seconds = self.start.elapsed().as_secs_f64() / done_here as f64 * self.total.checked_sub(done)? as f64;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        self.end();
    }
}

/// `[#######-------] text, 1:05 left`, cut to what a terminal shows in a line.
fn bar_line(done: u64, total: u64, left: Option<Duration>, text: &str) -> String {
    let mut line = String::new();
    if total > 0 {
        let n = (done.min(total) as u128 * BAR_CHARS as u128 / total as u128) as usize;
        line = format!("[{}{}] ", "#".repeat(n), "-".repeat(BAR_CHARS - n));
    }
    line.push_str(text);
    if let Some(left) = left.filter(|_| total > 0) {
        line.push_str(&format!(", {} left", clock(left.as_secs())));
    }
    match line.char_indices().nth(LINE_CHARS_MAX) {
        Some((end, _)) => line[..end].to_string(),
        None => line,
    }
}

/// `0:07`, `12:34`, `100:00:01`.
fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_up() {
        let left = |seconds| Some(Duration::from_secs(seconds));
        let (empty, half, full) = ("-".repeat(30), "#".repeat(15) + &"-".repeat(15), "#".repeat(30));
        for (done, total, left, want) in [
            (0, 4, None, format!("[{empty}] a")),
            (2, 4, left(65), format!("[{half}] a, 1:05 left")),
            (4, 4, left(0), format!("[{full}] a, 0:00 left")),
            (9, 4, None, format!("[{full}] a")),
            (u64::MAX, u64::MAX, left(360_001), format!("[{full}] a, 100:00:01 left")),
            (7, 0, left(1), "a".to_string()),
        ] {
            assert_eq!(bar_line(done, total, left, "a"), want, "{done} of {total}");
        }
        assert_eq!(bar_line(0, 0, None, &"ಕ".repeat(200)).chars().count(), LINE_CHARS_MAX);
    }

    #[test]
    fn what_is_left_is_counted_from_here() {
        let mut bar = ProgressBar::new(Duration::ZERO);
        bar.start(100, 200);
        assert_eq!(bar.left(100), None);
        assert!(bar.left(101).is_some());
        assert_eq!((bar.left(200), bar.left(99), bar.left(201)), (Some(Duration::ZERO), None, None));
    }
}
