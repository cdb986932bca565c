//! Files of prompts and files of answers: a JSON object a line, read and written one by one, so that neither is ever held
//! whole. A line of answers names the line of prompts that it answers, and an interrupted file can be continued.

mod answers;
mod line;
mod run;
mod source;

pub use answers::{answer_line, AnswerFile, Answered};
pub use line::PromptLine;
pub use run::{Answerer, Counts, Observer, Output, PromptRun};
pub use source::Source;

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Longest line that is read: a prompt of the longest text with every character escaped, and more beside it.
pub const LINE_BYTES_MAX: usize = 32 << 20;

/// The prompts of a file, in order.
pub struct PromptLines<R> {
    from: R,
    path: PathBuf,
    number: u64,
    n_bytes: u64,
    line: Vec<u8>,
}

/// One line: the prompt, or what is wrong with it.
pub struct Numbered {
    /// From 1 on; blank lines count.
    pub number: u64,
    pub prompt: Result<PromptLine>,
}

impl<R: BufRead> PromptLines<R> {
    /// `path` is what errors call it.
    pub fn new(from: R, path: &Path) -> Self {
        PromptLines { from, path: path.to_path_buf(), number: 0, n_bytes: 0, line: Vec::new() }
    }

    /// Bytes read so far.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Numbered>> {
        loop {
            self.line.clear();
            let io = |e: io::Error| Error::io(&self.path, &e);
            let limit = LINE_BYTES_MAX as u64 + 1;
            let n = self.from.by_ref().take(limit).read_until(b'\n', &mut self.line).map_err(io)?;
            if n == 0 {
                return Ok(None);
            }
            self.number += 1;
            self.n_bytes += n as u64;
            let number = self.number;
            if self.line.len() > LINE_BYTES_MAX && !self.line.ends_with(b"\n") {
                self.n_bytes += skip_line(&mut self.from).map_err(io)?;
                let error = Error::limit(format!("the line is longer than {} MiB", LINE_BYTES_MAX >> 20));
                return Ok(Some(Numbered { number, prompt: Err(at_line(&self.path, number, error)) }));
            }
            let mut bytes = self.line.as_slice();
            if number == 1 {
                // Some editors put one in front.
                bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            }
            let bytes = bytes.trim_ascii();
            if !bytes.is_empty() {
                let prompt = PromptLine::parse(number, bytes).map_err(|e| at_line(&self.path, number, e));
                return Ok(Some(Numbered { number, prompt }));
            }
        }
    }
}

/// The same error with file and line in front.
pub fn at_line(path: &Path, number: u64, error: Error) -> Error {
    error.behind(format_args!("line {number}")).in_file(path)
}

/// Reads up to the end of a line without keeping it; how many bytes that were.
fn skip_line(from: &mut impl BufRead) -> io::Result<u64> {
    let mut n_bytes = 0;
    loop {
        let part = from.fill_buf()?;
        let end = part.iter().position(|b| *b == b'\n');
        let n = end.map_or(part.len(), |end| end + 1);
        from.consume(n);
        n_bytes += n as u64;
        if end.is_some() || n == 0 {
            return Ok(n_bytes);
        }
    }
}

#[cfg(test)]
mod tests;
