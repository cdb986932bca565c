//! Prompts as they come: read by a thread of their own, so that a pipe that pauses does not hold up what is running.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{sync_channel, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::Duration;

use super::{at_line, Numbered, PromptLines};
use crate::error::{Error, Result};

/// Lines that are read ahead.
const LINES_AHEAD: usize = 16;
/// How long an idle batch waits before it looks whether Ctrl-C was pressed.
const PATIENCE: Duration = Duration::from_millis(50);

/// Where prompts come from.
pub struct Source {
    path: PathBuf,
    /// Each line, and how many bytes were read up to its end. Closed at the end of the file.
    lines: Receiver<Result<(Numbered, u64)>>,
    /// Bytes of the file; unknown for a pipe.
    pub n_bytes: Option<u64>,
    /// Bytes of the lines that were taken.
    pub n_read: u64,
}

/// What there is to read.
pub(super) enum Next {
    Line(Box<Numbered>),
    /// The pipe pauses.
    NotYet,
    End,
}

impl Source {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// It is not there, or no file.
    pub fn open(path: &Path) -> Result<Source> {
        if path == Path::new("-") {
            return Source::start(Box::new(BufReader::new(io::stdin())), Path::new("standard input"), None);
        }
        let file = File::open(path).map_err(|e| Error::io(path, &e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, &e))?;
        if meta.is_dir() {
            return Err(Error::input("is a folder; a file of JSON lines is expected").in_file(path));
        }
        Source::start(Box::new(BufReader::new(file)), path, meta.is_file().then_some(meta.len()))
    }

    fn start(from: Box<dyn BufRead + Send>, path: &Path, n_bytes: Option<u64>) -> Result<Source> {
        let (sender, lines) = sync_channel(LINES_AHEAD);
        let mut reader = PromptLines::new(from, path);
        let read = move || loop {
            let line = match reader.next() {
                Ok(None) => return,
                Ok(Some(line)) => Ok((line, reader.n_bytes())),
                Err(error) => Err(error),
            };
            let is_last = line.is_err();
            // Nobody listens any more when the run has ended early.
            if sender.send(line).is_err() || is_last {
                return;
            }
        };
        let started = thread::Builder::new().name("prompts".into()).spawn(read);
        started.map_err(|e| Error::limit(format!("a thread could not be started: {e}")))?;
        Ok(Source { path: path.to_path_buf(), lines, n_bytes, n_read: 0 })
    }

    /// The next line. `may_wait`: there is nothing else to do.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn next(&mut self, may_wait: bool) -> Result<Next> {
        let received = match may_wait {
            true => self.lines.recv_timeout(PATIENCE).map_err(|e| e == RecvTimeoutError::Disconnected),
            false => self.lines.try_recv().map_err(|e| e == TryRecvError::Disconnected),
        };
        match received {
            Ok(line) => {
                let (line, n_read) = line?;
                self.n_read = n_read;
                Ok(Next::Line(Box::new(line)))
            }
            Err(is_end) => Ok(if is_end { Next::End } else { Next::NotYet }),
        }
    }

    /// The same error with file and line in front.
    pub fn at(&self, number: u64, error: Error) -> Error {
        at_line(&self.path, number, error)
    }
}
