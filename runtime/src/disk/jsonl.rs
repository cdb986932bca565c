//! Journals: one JSON object a line, written at the end of a file.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;

use serde::de::IgnoredAny;

use super::access::Disk;
use crate::display::thousands;
use crate::error::{Error, Result};

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
    let mut n_lines = 0;
    let mut lacks_feed = false;
    let len = each_line(disk, path, |end, line| {
        n_lines += 1;
        let has_feed = line.ends_with(b"\n");
        if is_json(line) && (has_feed || line.starts_with(b"{")) {
            sound = TornTail { n_bytes: end, n_lines };
            lacks_feed = !has_feed;
        }
        true
    })?;
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
/// the offset that was reached.
///
/// # Errors
/// The file cannot be read.
pub fn each_line(disk: &dyn Disk, path: &Path, mut visit: impl FnMut(u64, &[u8]) -> bool) -> io::Result<u64> {
    let mut lines = BufReader::new(disk.open(path)?);
    let mut line = Vec::new();
    let mut end = 0;
    loop {
        line.clear();
        end += lines.read_until(b'\n', &mut line)? as u64;
        if line.is_empty() || !visit(end, &line) {
            return Ok(end);
        }
    }
}

/// Blank lines are accepted, as in every journal.
fn is_json(line: &[u8]) -> bool {
    line.trim_ascii().is_empty() || serde_json::from_slice::<IgnoredAny>(line).is_ok()
}
