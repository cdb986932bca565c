//! A file of rows, read once from its first byte to its last: lines, or the items of one JSON array.

use std::io::Read;
use std::path::{Path, PathBuf};

use lichen_runtime::{Error, Result};
use sha2::{Digest, Sha256};

/// Longest row.
pub(super) const ROW_BYTES_MAX: usize = 4 << 20;
const CHUNK_BYTES: usize = 64 << 10;

/// How the rows of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A row is a line.
    Lines,
    /// A row is an item of the one array that the file is.
    Array,
}

/// Where a row stands, and how it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of its first byte, in the file.
    pub offset: u64,
    /// Of its first byte; the first line is 1.
    pub line: usize,
    /// Bytes of that line before it.
    pub column: usize,
    /// The row's number; blank lines are none, and have the next row's. The first is 1.
    pub row: usize,
    pub extent: Extent,
    /// Whether something ends it: only what stands last in a file of lines may lack a line end.
    pub is_ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Nothing but white space.
    Blank,
    Whole,
    /// Longer than [`ROW_BYTES_MAX`]; only its beginning was kept.
    TooLong,
}

/// Reads rows, and hashes all bytes on the way.
pub(super) struct RowReader<R> {
    source: Source<R>,
    form: Form,
    /// In an array: whether its end was seen.
    is_closed: bool,
    n_rows: usize,
    row: Vec<u8>,
}

impl<R: Read> RowReader<R> {
    /// # Errors
    /// What the file is instead of rows: an HTML page, a Git LFS pointer, UTF-16. The file's name is in front of every
    /// error.
    pub fn new(input: R, path: &Path) -> Result<Self> {
        let mut source = Source::new(input, path);
        source.skip_byte_order_mark()?;
        let first = source.rest()?.iter().copied().find(|b| !b.is_ascii_whitespace());
        let mut form = Form::Lines;
        if first == Some(b'[') {
            form = Form::Array;
            source.skip_white_space()?;
            source.advance(1);
        }
        Ok(RowReader { source, form, is_closed: false, n_rows: 0, row: Vec::new() })
    }

    pub fn form(&self) -> Form {
        self.form
    }

    /// The next row; its bytes are in [`RowReader::bytes`] then.
    ///
    /// # Errors
    /// The file cannot be read, or its array is not one.
    pub fn next_row(&mut self) -> Result<Option<Place>> {
        self.row.clear();
        let place = match self.form {
            Form::Lines => self.next_line()?,
            Form::Array => self.next_item()?,
        };
        self.n_rows += place.is_some_and(|place| place.extent != Extent::Blank) as usize;
        Ok(place)
    }

    /// The row that was read last, without its line end.
    pub fn bytes(&self) -> &[u8] {
        &self.row
    }

    /// How many bytes were read, and their SHA-256. To be asked at the end.
    pub fn finish(self) -> (u64, [u8; 32]) {
        (self.source.offset, self.source.hash.finalize().into())
    }

    fn next_line(&mut self) -> Result<Option<Place>> {
        let mut place = self.here();
        loop {
            let rest = self.source.rest()?;
            if rest.is_empty() {
                break;
            }
            let line_end = rest.iter().position(|&b| b == b'\n');
            let n = line_end.unwrap_or(rest.len());
            keep(&mut self.row, &rest[..n]);
            self.source.advance(n + line_end.is_some() as usize);
            if line_end.is_some() {
                place.is_ended = true;
                break;
            }
        }
        if !place.is_ended && self.source.offset == place.offset {
            return Ok(None);
        }
        place.extent = extent(&self.row);
        // A carriage return is a part of the line end, also for what is said about a line that ends inside a string.
        if place.is_ended && place.extent == Extent::Whole && self.row.ends_with(b"\r") {
            self.row.pop();
        }
        Ok(Some(place))
    }

    fn next_item(&mut self) -> Result<Option<Place>> {
        self.source.skip_white_space()?;
        if self.is_closed {
            return match self.source.rest()?.is_empty() {
                true => Ok(None),
                false => Err(self.source.error("more text follows the end of the array")),
            };
        }
        let mut place = self.here();
        place.is_ended = true;
        let mut scan = Scan::default();
        loop {
            let rest = self.source.rest()?;
            if rest.is_empty() {
                return Err(self.source.error("the array does not end (is the file whole?)"));
            }
            let end = rest.iter().position(|&b| scan.ends_before(b));
            let n = end.unwrap_or(rest.len());
            let by = end.map(|at| rest[at]);
            keep(&mut self.row, &rest[..n]);
            self.source.advance(n + end.is_some() as usize);
            if let Some(by) = by {
                self.is_closed = by == b']';
                break;
            }
        }
        place.extent = extent(&self.row);
        match place.extent {
            Extent::Blank if self.is_closed && self.n_rows == 0 => Ok(None),
            Extent::Blank => Err(self.source.error(if self.is_closed {
                "a row is missing before \"]\""
            } else {
                "a row is missing before \",\""
            })),
            Extent::Whole | Extent::TooLong => Ok(Some(place)),
        }
    }

    fn here(&self) -> Place {
        let Source { offset, line, line_offset, .. } = self.source;
        let column = (offset - line_offset) as usize;
        Place { offset, line, column, row: self.n_rows + 1, extent: Extent::Blank, is_ended: false }
    }
}

/// Appends, up to one byte more than a row may have.
fn keep(row: &mut Vec<u8>, more: &[u8]) {
    row.extend_from_slice(&more[..more.len().min(ROW_BYTES_MAX + 1 - row.len())]);
}

fn extent(row: &[u8]) -> Extent {
    match row.len() > ROW_BYTES_MAX {
        true => Extent::TooLong,
        false if row.trim_ascii().is_empty() => Extent::Blank,
        false => Extent::Whole,
    }
}

/// Follows JSON just far enough to see where an item of an array ends.
#[derive(Default)]
struct Scan {
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Scan {
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

/// Bytes of a file through one small buffer.
struct Source<R> {
    input: R,
    path: PathBuf,
    chunk: Box<[u8]>,
    /// The bytes of `chunk` that were read and not yet used.
    start: usize,
    end: usize,
    /// Of the next byte, in the file.
    offset: u64,
    /// Of the next byte; the first line is 1.
    line: usize,
    /// Of the first byte of that line, in the file.
    line_offset: u64,
    hash: Sha256,
}

impl<R: Read> Source<R> {
    fn new(input: R, path: &Path) -> Self {
        let chunk = vec![0; CHUNK_BYTES].into_boxed_slice();
        let path = path.to_path_buf();
        Source { input, path, chunk, start: 0, end: 0, offset: 0, line: 1, line_offset: 0, hash: Sha256::new() }
    }

    /// What is read and not used yet; empty at the end of the file.
    fn rest(&mut self) -> Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            while self.end < self.chunk.len() {
                match self.input.read(&mut self.chunk[self.end..]) {
                    Ok(0) => break,
                    Ok(n) => self.end += n,
                    Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(Error::io(&self.path, &e)),
                }
            }
            self.hash.update(&self.chunk[..self.end]);
        }
        Ok(&self.chunk[self.start..self.end])
    }

    /// Uses `n` bytes of the rest.
    fn advance(&mut self, n: usize) {
        let used = &self.chunk[self.start..self.start + n];
        if let Some(last) = used.iter().rposition(|&b| b == b'\n') {
            self.line += used.iter().filter(|&&b| b == b'\n').count();
            self.line_offset = self.offset + last as u64 + 1;
        }
        self.start += n;
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

    /// Looks at the first bytes of the file.
    fn skip_byte_order_mark(&mut self) -> Result<()> {
        let head = self.rest()?;
        let what = match head {
            [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "is UTF-16; UTF-8 is needed",
            _ if head.starts_with(b"version https://git-lfs") => {
                "is a Git LFS pointer, not the file itself: run git lfs pull"
            }
            _ if head.trim_ascii_start().starts_with(b"<") => {
                "is an HTML or XML page, not rows of JSON (a failed download?)"
            }
            [0xEF, 0xBB, 0xBF, ..] => {
                self.advance(3);
                self.line_offset = 3;
                return Ok(());
            }
            _ => return Ok(()),
        };
        Err(Error::input(what).in_file(&self.path))
    }

    fn error(&self, what: &str) -> Error {
        Error::input(format!("line {}: {what}", self.line)).in_file(&self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, and is interrupted in between.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                return Err(std::io::ErrorKind::Interrupted.into());
            }
            let n = (self.1 % 1000).min(into.len());
            self.0.read(&mut into[..n])
        }
    }

    /// Rows of these lengths, x and white space and commas inside strings, with `between` between them.
    fn file(lengths: &[usize], begin: &str, between: &str, end: &str) -> (Vec<u8>, Vec<Vec<u8>>) {
        let row = |n: &usize| format!("\"{}\"", "],x\\\" ".repeat(n / 7 + 1)).into_bytes();
        let rows: Vec<Vec<u8>> = lengths.iter().map(row).collect();
        ([begin.as_bytes(), &rows.join(between.as_bytes()), end.as_bytes()].concat(), rows)
    }

    #[test]
    fn rows_cross_chunks_anywhere() {
        let lengths = [1, CHUNK_BYTES - 30, 7, 14, 21, 2 * CHUNK_BYTES, 0, CHUNK_BYTES / 2, 3 * CHUNK_BYTES + 1, 5];
        let forms =
            [("", "\n", ""), ("", "\n", "\n"), ("\u{feff}", "\r\n", "\r\n"), ("[", ",", "]"), (" [\n", ",\n", "]\n\n")];
        for (begin, between, end) in forms {
            for shift in 0..20 {
                let (bytes, rows) = file(&[&[shift][..], &lengths].concat(), begin, between, end);
                let mut reader = RowReader::new(Slow(&bytes, 0), Path::new("f")).unwrap();
                let mut found = Vec::new();
                while let Some(place) = reader.next_row().unwrap() {
                    assert_eq!((place.extent, place.row), (Extent::Whole, found.len() + 1));
                    let at = place.offset as usize;
                    assert_eq!(&bytes[at..at + reader.bytes().len()], reader.bytes());
                    let before = &bytes[..at];
                    assert_eq!(place.line, 1 + before.iter().filter(|&&b| b == b'\n').count());
                    let bom = if place.line == 1 { begin.len() % 4 / 3 * 3 } else { 0 };
                    let line_start = before.iter().rposition(|&b| b == b'\n').map_or(bom, |at| at + 1);
                    assert_eq!(place.column, at - line_start);
                    found.push(reader.bytes().to_vec());
                }
                assert!(found == rows, "{begin:?} {between:?} {end:?}, {shift}");
                let (n_bytes, sha256) = reader.finish();
                assert_eq!(n_bytes, bytes.len() as u64);
                assert_eq!(sha256, <[u8; 32]>::from(Sha256::digest(&bytes)));
            }
        }
    }

    #[test]
    fn long_rows_are_passed_over() {
        for n in [ROW_BYTES_MAX - 1, ROW_BYTES_MAX, ROW_BYTES_MAX + 1, 3 * ROW_BYTES_MAX] {
            let bytes = [&vec![b'1'; n][..], b"\n2"].concat();
            let mut reader = RowReader::new(bytes.as_slice(), Path::new("f")).unwrap();
            let place = reader.next_row().unwrap().unwrap();
            assert_eq!(place.extent, if n > ROW_BYTES_MAX { Extent::TooLong } else { Extent::Whole });
            assert!(reader.row.capacity() <= 2 * ROW_BYTES_MAX + 2);
            let place = reader.next_row().unwrap().unwrap();
            assert_eq!((place.line, place.offset, place.is_ended, reader.bytes()), (2, n as u64 + 1, false, &b"2"[..]));
            assert_eq!(reader.next_row().unwrap(), None);
        }
    }
}
