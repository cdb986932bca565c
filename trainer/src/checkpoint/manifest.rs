//! MANIFEST: JSON lines, `{format, step, previous}`, one `{name, bytes, sha256}` a file, and the sha256 of the lines above.

use lichen_runtime::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{is_plain_name, MANIFEST};

const FORMAT: u64 = 1;

/// A file of a checkpoint, as its manifest describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    pub name: String,
    pub bytes: u64,
    /// 64 hexadecimal digits.
    pub sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    format: u64,
    step: u64,
    /// The newest checkpoint when this one was written.
    previous: Option<u64>,
}

/// All that says which format it is, whatever else a later one adds.
#[derive(Deserialize)]
struct FormatOnly {
    format: u64,
}

pub struct Manifest {
    pub step: u64,
    pub previous: Option<u64>,
    pub files: Vec<FileEntry>,
}

impl Manifest {
    pub fn to_bytes(&self) -> Vec<u8> {
        let line = |value: serde_json::Result<String>| value.expect("strings and numbers") + "\n";
        let header = Header { format: FORMAT, step: self.step, previous: self.previous };
        let mut text = line(serde_json::to_string(&header));
        for file in &self.files {
            text += &line(serde_json::to_string(file));
        }
        let last = last_line(text.as_bytes());
        text += &last;
        text.into_bytes()
    }

    /// Accepts what [`Manifest::to_bytes`] gives and nothing that differs from it in one bit.
    pub fn parse(bytes: &[u8], step: u64) -> Result<Manifest> {
        // The last line begins after the line feed before the last.
        let before = bytes.strip_suffix(b"\n").and_then(|b| b.iter().rposition(|b| *b == b'\n'));
        let (above, last) = bytes.split_at(before.map_or(0, |at| at + 1));
        if last != last_line(above).as_bytes() {
            return Err(Error::input(format!("{MANIFEST} differs from its own sha256")));
        }
        let refuse = |what: String| Error::input(format!("{MANIFEST}, {what}"));
        let mut lines = above.split_inclusive(|b| *b == b'\n').enumerate();
        let (_, first) = lines.next().ok_or_else(|| refuse("line 1: is missing".to_string()))?;
        let FormatOnly { format } = parse_line(first).map_err(|e| refuse(format!("line 1: {e}")))?;
        if format != FORMAT {
            return Err(refuse(format!("line 1: format is {format}; this program reads {FORMAT}")));
        }
        let header: Header = parse_line(first).map_err(|e| refuse(format!("line 1: {e}")))?;
        if header.step != step {
            return Err(refuse(format!("line 1: step is {}; the folder's name says {step}", header.step)));
        }
        let mut files: Vec<FileEntry> = Vec::new();
        for (i, line) in lines {
            let file: FileEntry = parse_line(line).map_err(|e| refuse(format!("line {}: {e}", i + 1)))?;
            if !is_file_name(&file.name) || files.iter().any(|f| f.name == file.name) {
                return Err(refuse(format!("line {}: name \"{}\" is not allowed here", i + 1, file.name)));
            }
            files.push(file);
        }
        Ok(Manifest { step, previous: header.previous, files })
    }
}

/// Names that a file of a checkpoint may have.
pub fn is_file_name(name: &str) -> bool {
    is_plain_name(name) && name != MANIFEST
}

fn parse_line<'a, T: Deserialize<'a>>(line: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_slice(line)
}

fn last_line(above: &[u8]) -> String {
    format!("{{\"sha256\":\"{}\"}}\n", hex(&Sha256::digest(above)))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
