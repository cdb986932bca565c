//! The items of the one array that a file is, or the objects that it holds one behind the other.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use lichen_runtime::{Error, Result};

use super::hashed::Hashed;
use super::{Extent, Place, ROW_BYTES_MAX};

/// Reads items one by one.
pub(super) struct Items<R> {
    input: Hashed<R>,
    path: PathBuf,
    /// Of the next byte, in the file.
    offset: u64,
    /// Of the next byte; the first line is 1.
    line: usize,
    /// Of the first byte of that line, in the file.
    line_offset: u64,
    /// Whether brackets are around the items, and commas between them.
    is_array: bool,
    /// Whether the end of the array was seen.
    is_closed: bool,
    item: Vec<u8>,
}

impl<R: Read> Items<R> {
    /// The items of an array; a byte order mark and white space before its bracket left out.
    pub fn of_array(input: Hashed<R>, path: &Path) -> Result<Self> {
        let mut items = Items::new(input, path, true)?;
        items.advance(1);
        Ok(items)
    }

    /// Objects with nothing but white space between them.
    pub fn of_objects(input: Hashed<R>, path: &Path) -> Result<Self> {
        Items::new(input, path, false)
    }

    fn new(input: Hashed<R>, path: &Path, is_array: bool) -> Result<Self> {
        let path = path.to_path_buf();
        let item = Vec::new();
        let mut items = Items { input, path, offset: 0, line: 1, line_offset: 0, is_array, is_closed: false, item };
        if items.rest()?.starts_with(b"\xef\xbb\xbf") {
            items.advance(3);
            items.line_offset = 3;
        }
        items.skip_white_space()?;
        Ok(items)
    }

    /// The item that was read last.
    pub fn bytes(&self) -> &[u8] {
        &self.item
    }

    pub fn finish(self) -> (u64, [u8; 32]) {
        self.input.finish()
    }

    /// The next item, which is the file's row of number `row`.
    pub fn next(&mut self, row: usize) -> Result<Option<Place>> {
        self.item.clear();
        self.skip_white_space()?;
        if self.is_closed {
            return match self.rest()?.is_empty() {
                true => Ok(None),
                false => Err(self.error("more text follows the end of the array")),
            };
        }
        if !self.is_array && self.rest()?.is_empty() {
            return Ok(None);
        }
        let column = (self.offset - self.line_offset) as usize;
        let (offset, line) = (self.offset, self.line);
        let is_ended = match self.is_array {
            true => self.read_item().map(|()| true),
            false => self.read_object(),
        }?;
        let extent = match self.item.len() > ROW_BYTES_MAX {
            true => Extent::TooLong,
            false if self.item.trim_ascii().is_empty() => Extent::Blank,
            false => Extent::Whole,
        };
        match extent {
            Extent::Blank if self.is_closed && row == 1 => Ok(None),
            Extent::Blank => Err(self.error(match self.is_closed {
                true => "a row is missing before \"]\"",
                false => "a row is missing before \",\"",
            })),
            Extent::Whole | Extent::TooLong => Ok(Some(Place { offset, line, column, row, extent, is_ended })),
        }
    }

    /// Reads up to the comma or bracket behind the item, and past it; keeps at most one byte more than a row may have.
    fn read_item(&mut self) -> Result<()> {
        let mut scan = Scan::default();
        loop {
            let rest = self.input.fill_buf().map_err(|e| Error::io(&self.path, &e))?;
            if rest.is_empty() {
                return Err(self.error("the array does not end (is the file whole?)"));
            }
            let end = rest.iter().position(|&b| scan.ends_before(b));
            let n = end.unwrap_or(rest.len());
            let by = end.map(|at| rest[at]);
            self.item.extend_from_slice(&rest[..n.min(ROW_BYTES_MAX + 1 - self.item.len())]);
            self.advance(n + end.is_some() as usize);
            if let Some(by) = by {
                self.is_closed = by == b']';
                return Ok(());
            }
        }
    }

    /// Reads up to the brace that ends the object, and past it. False where the file ends before.
    fn read_object(&mut self) -> Result<bool> {
        let mut scan = Scan::default();
        loop {
            let rest = self.input.fill_buf().map_err(|e| Error::io(&self.path, &e))?;
            if rest.is_empty() {
                return Ok(false);
            }
            let end = rest.iter().position(|&b| scan.ends_with(b));
            let n = end.map_or(rest.len(), |at| at + 1);
            self.item.extend_from_slice(&rest[..n.min(ROW_BYTES_MAX + 1 - self.item.len())]);
            self.advance(n);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    /// What is read and not used yet; empty at the end of the file.
    fn rest(&mut self) -> Result<&[u8]> {
        self.input.fill_buf().map_err(|e| Error::io(&self.path, &e))
    }

    /// Uses `n` bytes of the rest.
    fn advance(&mut self, n: usize) {
        let used = &self.input.read_and_not_used()[..n];
        if let Some(last) = used.iter().rposition(|&b| b == b'\n') {
            self.line += used.iter().filter(|&&b| b == b'\n').count();
            self.line_offset = self.offset + last as u64 + 1;
        }
        self.input.consume(n);
        self.offset += n as u64;
    }

    fn skip_white_space(&mut self) -> Result<()> {
        loop {
            let rest = self.rest()?;
            let n = rest.iter().position(|b| !b.is_ascii_whitespace());
            let (n, is_done) = (n.unwrap_or(rest.len()), n.is_some() || rest.is_empty());
            self.advance(n);
            if is_done {
                return Ok(());
            }
        }
    }

    fn error(&self, what: &str) -> Error {
        Error::input(format!("line {}: {what}", self.line)).in_file(&self.path)
    }
}

/// Follows JSON just far enough to see where an item ends.
#[derive(Default)]
struct Scan {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Scan {
    /// Whether `byte` is the brace or bracket that closes the outermost one, or a line end outside of any.
    fn ends_with(&mut self, byte: u8) -> bool {
        let was_open = self.depth > 0;
        self.ends_before(byte);
        self.depth == 0 && !self.is_in_string && (was_open || byte == b'\n')
    }

    /// Whether `byte` is the comma or bracket that ends the item.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.is_in_string {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' => self.is_escaped = true,
                b'"' => self.is_in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.is_in_string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            // Brackets that do not match are the row's fault, which its reader will name.
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}
