//! Files of prompts and files of answers: a JSON object a line, read and written one by one, so that neither is ever held
//! whole. A line of answers names the line of prompts that it answers, and an interrupted file can be continued.

mod answers;
mod line;
mod run;
mod source;

pub use answers::{answer_line, AnswerFile, Answered};
pub use line::{is_field, PromptLine};
pub use run::{Answerer, Counts, Observer, Output, PromptRun};
pub use source::Source;

use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
pub use crate::files::jsonl::at_line;
use crate::files::jsonl::JsonLines;

/// Longest line that is read: a prompt of the longest text with every character escaped, and more beside it.
pub const LINE_BYTES_MAX: usize = 32 << 20;

/// The prompts of a file, in order.
pub struct PromptLines<R> {
    lines: JsonLines<R>,
    path: PathBuf,
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
        PromptLines { lines: JsonLines::new(from, path, LINE_BYTES_MAX), path: path.to_path_buf() }
    }

    /// Bytes read so far.
    pub fn n_bytes(&self) -> u64 {
        self.lines.n_bytes()
    }

    /// The next line that is not blank; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Numbered>> {
        while let Some(line) = self.lines.next()? {
            if line.is_blank() {
                continue;
            }
            let number = line.number;
            let prompt = match line.is_too_long {
                true => Err(Error::limit(format!("the line is longer than {} MiB", LINE_BYTES_MAX >> 20))),
                false => PromptLine::parse(number, line.bytes.trim_ascii()),
            };
            return Ok(Some(Numbered { number, prompt: prompt.map_err(|e| at_line(&self.path, number, e)) }));
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
