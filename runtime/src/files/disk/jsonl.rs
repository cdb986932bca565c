//! Journals: one JSON object a line, written at the end of a file.

use std::fmt;
use std::io::{self, BufReader, Write};
use std::path::Path;

use serde::de::IgnoredAny;

use super::access::Disk;
use crate::error::{Error, Result};
use crate::escape::thousands;
use crate::files::jsonl::JsonLines;

/// Longest line of a journal that is looked into: an answer beside the longest prompt of all takes less.
const LINE_BYTES_MAX: usize = 256 << 20;

/// What was cut from the end of a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TornTail {
    pub n_bytes: u64,
    /// Lines that stay.
    pub n_lines: u64,
}

impl fmt::Display for TornTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (n_bytes, n_lines) = (thousands(self.n_bytes), thousands(self.n_lines));
        write!(f, "repaired: dropped {n_bytes} bytes after line {n_lines} (the last write was cut)")
    }
}

/// Makes the end of a journal sound, so that the next record is not glued to half of the last one: drops a last line
/// that has no line feed, and lines before it that are no JSON (a power cut leaves zeros). A whole object that lacks only
/// its line feed stays and gets one. Bad lines further up are left to the reader. A file that is not there is sound.
///
/// # Errors
/// The file cannot be read, cut or flushed.
pub fn repair_tail(disk: &dyn Disk, path: &Path) -> Result<Option<TornTail>> {
    match disk.kind(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => repair(disk, path).map_err(|e| Error::io(path, &e)),
    }
}

fn repair(disk: &dyn Disk, path: &Path) -> io::Result<Option<TornTail>> {
    let mut sound = TornTail { n_bytes: 0, n_lines: 0 };
    let mut lacks_feed = false;
    let mut lines = open(disk, path)?;
    while let Some(line) = lines.read()? {
        // A whole line that is too long to be looked into is the reader's to complain about.
        let is_sound = match line.has_line_feed {
            true => line.is_too_long || is_json(line.bytes),
            false => !line.is_too_long && is_json(line.bytes) && line.bytes.starts_with(b"{"),
        };
        if is_sound {
            sound = TornTail { n_bytes: line.end, n_lines: line.number };
            lacks_feed = !line.has_line_feed;
        }
    }
    let len = lines.n_bytes();
    if lacks_feed {
        let mut out = disk.append(path)?;
        out.write_all(b"\n")?;
        out.sync()?;
    }
    if sound.n_bytes == len {
        return Ok(None);
    }
    disk.truncate(path, sound.n_bytes)?;
    Ok(Some(TornTail { n_bytes: len - sound.n_bytes, n_lines: sound.n_lines }))
}

/// Calls `visit` with each line, its line feed included, and the offset of its end, until `visit` returns false. Returns
/// the offset that was reached. Of a line longer than 256 MiB `visit` sees the beginning.
///
/// # Errors
/// The file cannot be read.
pub fn each_line(disk: &dyn Disk, path: &Path, mut visit: impl FnMut(u64, &[u8]) -> bool) -> io::Result<u64> {
    let mut lines = open(disk, path)?;
    while let Some(line) = lines.read()? {
        if !visit(line.end, line.raw) {
            break;
        }
    }
    Ok(lines.n_bytes())
}

fn open(disk: &dyn Disk, path: &Path) -> io::Result<JsonLines<impl io::BufRead>> {
    Ok(JsonLines::new(BufReader::new(disk.open(path)?), path, LINE_BYTES_MAX))
}

/// Blank lines are accepted, as in every journal.
fn is_json(line: &[u8]) -> bool {
    line.trim_ascii().is_empty() || serde_json::from_slice::<IgnoredAny>(line).is_ok()
}
