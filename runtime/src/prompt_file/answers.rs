//! Answers on their way to a file, and what an interrupted file already holds.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use super::line::PromptLine;
use crate::engine::answer::Answer;
use crate::engine::request::Prompt;
use crate::error::{Error, Result};
use crate::files::disk::jsonl::{each_line, repair_tail, TornTail};
use crate::files::disk::{refuse_existing, Disk, DiskFile, DiskLock};
use crate::setting::RESUME;

/// A line that is written when the last flush is this long ago is flushed to the device with those before it.
const SYNC_EVERY: Duration = Duration::from_secs(5);

/// The line of an answer, without its line feed: the number and hash of the prompt's line, the prompt's own fields, then
/// the answer's. `seed` is the one that was used. `has_text`: there was a tokenizer.
pub fn answer_line(prompt: &PromptLine, answer: &Answer, seed: u64, has_text: bool) -> String {
    let mut line = format!("{{\"line\":{},\"line_hash\":\"{:016x}\"", prompt.number, prompt.hash);
    let mut add = |name: &str, value: &Value| {
        let name = Value::from(name);
        // A string takes whatever is written.
        let _ = write!(line, ",{name}:{value}");
    };
    prompt.fields.iter().filter(|(name, _)| *name != "seed").for_each(|(name, value)| add(name, value));
    add("seed", &json!(seed));
    if has_text {
        add("text", &json!(answer.text));
    }
    if !has_text || matches!(prompt.request.prompt, Prompt::Tokens(_)) {
        add("token_ids", &json!(answer.token_ids));
    }
    add("finish_reason", &json!(answer.finish_reason.name()));
    add("prompt_tokens", &json!(answer.timings.prompt_tokens));
    add("new_tokens", &json!(answer.timings.new_tokens));
    line.push('}');
    line
}

/// A file of answers that grows line by line. Whatever ends the program, it holds whole answers, and at most half a line
/// after them, which [`AnswerFile::resume`] cuts.
pub struct AnswerFile {
    path: PathBuf,
    out: Box<dyn DiskFile>,
    flushed: Instant,
    /// Nobody else writes to it.
    _lock: DiskLock,
}

impl AnswerFile {
    /// # Errors
    /// Something is there already, or it cannot be created.
    pub fn create(disk: &dyn Disk, path: &Path) -> Result<AnswerFile> {
        refuse_existing(path)?;
        AnswerFile::open(disk, path)
    }

    /// Goes on with a file that an earlier run wrote, or starts it; says what it answers, and what was cut from its end.
    ///
    /// # Errors
    /// The file cannot be read or written, or holds what is no answer.
    pub fn resume(disk: &dyn Disk, path: &Path) -> Result<(AnswerFile, Answered, Option<TornTail>)> {
        let file = AnswerFile::open(disk, path)?;
        // Before anything is cut: what begins with something else is somebody's other file.
        refuse_others(disk, path)?;
        let torn = repair_tail(disk, path)?;
        Ok((file, Answered::read(disk, path)?, torn))
    }

    fn open(disk: &dyn Disk, path: &Path) -> Result<AnswerFile> {
        let lock = disk.lock(path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => Error::input("another program is writing to it").in_file(path),
            _ => Error::io(path, &e),
        })?;
        let out = disk.append(path).map_err(|e| Error::io(path, &e))?;
        // A new file is one only once its folder says so.
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        disk.sync_dir(folder).map_err(|e| Error::io(path, &e))?;
        Ok(AnswerFile { path: path.to_path_buf(), out, flushed: Instant::now(), _lock: lock })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// The disk is full, or refuses.
    pub fn write(&mut self, mut line: String) -> Result<()> {
        line.push('\n');
        self.out.write_all(line.as_bytes()).map_err(|e| Error::io(&self.path, &e))?;
        if self.flushed.elapsed() >= SYNC_EVERY {
            self.flush()?;
        }
        Ok(())
    }

    /// What was written survives a power cut from here on.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        self.out.sync().map_err(|e| Error::io(&self.path, &e))
    }
}

/// Which lines of prompts a file of answers answers: their hashes by number.
#[derive(Debug, Default)]
pub struct Answered(HashMap<u64, u64>);

impl Answered {
    fn read(disk: &dyn Disk, path: &Path) -> Result<Answered> {
        let mut answered = HashMap::new();
        let (mut number, mut wrong) = (0u64, None);
        let read = each_line(disk, path, |_, line| {
            number += 1;
            if line.trim_ascii().is_empty() {
                return true;
            }
            match line_and_hash(line) {
                Some((line, hash)) => {
                    answered.insert(line, hash);
                }
                None => wrong = Some(number),
            }
            wrong.is_none()
        });
        read.map_err(|e| Error::io(path, &e))?;
        match wrong {
            Some(n) => Err(not_an_answer(n).in_file(path)),
            None => Ok(Answered(answered)),
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this line was answered.
    ///
    /// # Errors
    /// One of its number was, and it was another.
    pub fn has(&self, prompt: &PromptLine) -> Result<bool> {
        match self.0.get(&prompt.number) {
            None => Ok(false),
            Some(hash) if *hash == prompt.hash => Ok(true),
            Some(_) => Err(Error::input(format!(
                "has changed since it was answered: {RESUME} goes on with the prompts that the answers are of"
            ))),
        }
    }
}

/// A file that begins neither with an answer nor with what a crash leaves of one.
fn refuse_others(disk: &dyn Disk, path: &Path) -> Result<()> {
    const BEGIN: &[u8] = b"{\"line\":";
    let mut is_other = false;
    let read = each_line(disk, path, |_, line| {
        let is_torn = !line.ends_with(b"\n");
        let is_left = line.starts_with(BEGIN) || BEGIN.starts_with(line) || line.iter().all(|byte| *byte == 0);
        is_other = !line.trim_ascii().is_empty() && line_and_hash(line).is_none() && !(is_torn && is_left);
        false
    });
    read.map_err(|e| Error::io(path, &e))?;
    match is_other {
        true => Err(not_an_answer(1).in_file(path)),
        false => Ok(()),
    }
}

fn not_an_answer(number: u64) -> Error {
    Error::input(format!("line {number}: is no answer (\"line\" and \"line_hash\" expected): it cannot be continued"))
}

fn line_and_hash(line: &[u8]) -> Option<(u64, u64)> {
    #[derive(serde::Deserialize)]
    struct Head {
        line: u64,
        line_hash: String,
    }
    let head: Head = serde_json::from_slice(line).ok()?;
    Some((head.line, u64::from_str_radix(&head.line_hash, 16).ok()?))
}
