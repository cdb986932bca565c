//! How far a run is, said now and then.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use crate::output;

/// A line that is renewed on a terminal, a new one now and then elsewhere.
pub struct Progress {
    next: Instant,
    every: Duration,
    is_terminal: bool,
}

impl Progress {
    pub fn new() -> Progress {
        let is_terminal = io::stderr().is_terminal();
        let every = Duration::from_millis(if is_terminal { 200 } else { 60_000 });
        Progress { next: Instant::now() + every, every, is_terminal }
    }

    pub fn show(&mut self, line: impl FnOnce() -> String) {
        if Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + self.every;
        match self.is_terminal {
            true => output::progress(&line()),
            false => output::note(&line()),
        }
    }

    pub fn end(&self) {
        output::progress("");
    }
}
