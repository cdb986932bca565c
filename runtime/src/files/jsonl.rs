//! Files of lines, a JSON object each (JSONL), read line by line: no file is ever held whole, and no line beyond a limit.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Some editors put one in front of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The lines of a file, from its first byte to its last.
pub struct JsonLines<R> {
    input: R,
    path: PathBuf,
    line_bytes_max: usize,
    /// Of the line that was read last.
    number: u64,
    /// Bytes read so far.
    n_bytes: u64,
    /// The line that was read last with its line end, but at most one byte more than a line may have.
    buffer: Vec<u8>,
    /// Bytes of `buffer` before the line end.
    n_content: usize,
    start: u64,
    has_line_feed: bool,
    is_too_long: bool,
}

/// One line, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// From 1 on; blank lines count, as in an editor.
    pub number: u64,
    /// Offset of its first byte in the file; a byte order mark is no part of it.
    pub start: u64,
    /// Offset behind its line end.
    pub end: u64,
    /// Without line feed, and without the carriage return before it. Of a line that is too long, the beginning.
    pub bytes: &'a [u8],
    /// The same with its line end.
    pub raw: &'a [u8],
    /// False for a last line that nothing ends: it may be the beginning of one that was torn while it was written.
    pub has_line_feed: bool,
    pub is_too_long: bool,
}

impl Line<'_> {
    /// Nothing but white space.
    pub fn is_blank(&self) -> bool {
        !self.is_too_long && self.bytes.trim_ascii().is_empty()
    }
}

impl<R: BufRead> JsonLines<R> {
    /// `path` is what errors call the file. A line of more than `line_bytes_max` bytes, its line feed not counted, is passed
    /// over and reported as too long.
    pub fn new(input: R, path: &Path, line_bytes_max: usize) -> Self {
        JsonLines {
            input,
            path: path.to_path_buf(),
            line_bytes_max,
            number: 0,
            n_bytes: 0,
            buffer: Vec::new(),
            n_content: 0,
            start: 0,
            has_line_feed: false,
            is_too_long: false,
        }
    }

    /// Bytes read so far.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// The next line, blank ones too; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Line<'_>>> {
        match self.advance() {
            Ok(is_there) => Ok(is_there.then(|| self.line())),
            Err(e) => Err(Error::io(&self.path, &e)),
        }
    }

    /// The same with the system's own error.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&mut self) -> io::Result<Option<Line<'_>>> {
        Ok(self.advance()?.then(|| self.line()))
    }

    /// The line that was read last.
    fn line(&self) -> Line<'_> {
        Line {
            number: self.number,
            start: self.start,
            end: self.n_bytes,
            bytes: self.bytes(),
            raw: &self.buffer,
            has_line_feed: self.has_line_feed,
            is_too_long: self.is_too_long,
        }
    }

    /// Reads a line; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        self.start = self.n_bytes;
        self.has_line_feed = self.read_to_line_feed()?;
        if self.n_bytes == self.start {
            return Ok(false);
        }
        self.number += 1;
        if self.number == 1 && self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.buffer.drain(..BYTE_ORDER_MARK.len());
            self.start += BYTE_ORDER_MARK.len() as u64;
        }
        self.buffer.truncate(self.line_bytes_max.saturating_add(1));
        let n_line = (self.n_bytes - self.start) as usize - usize::from(self.has_line_feed);
        self.is_too_long = n_line > self.line_bytes_max;
        self.n_content = n_line.min(self.buffer.len());
        // A carriage return is a part of the line end.
        if self.has_line_feed && !self.is_too_long && self.bytes().ends_with(b"\r") {
            self.n_content -= 1;
        }
        // A file of nothing but a byte order mark has no line.
        Ok(self.n_bytes > self.start)
    }

    /// [`Line::bytes`] of the line that was read last.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer[..self.n_content]
    }

    /// What the lines are read from, where they end.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// Moves to the end of the line, and keeps its beginning. True when a line feed ends it.
    fn read_to_line_feed(&mut self) -> io::Result<bool> {
        // The line feed, and one byte that shows a line to be too long; a byte order mark is not counted.
        let kept_max = self.line_bytes_max.saturating_add(1 + if self.number == 0 { BYTE_ORDER_MARK.len() } else { 0 });
        loop {
            let part = match self.input.fill_buf() {
                Ok(part) => part,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let line_feed = part.iter().position(|b| *b == b'\n');
            let n = line_feed.map_or(part.len(), |at| at + 1);
            self.buffer.extend_from_slice(&part[..n.min(kept_max.saturating_sub(self.buffer.len()))]);
            self.input.consume(n);
            self.n_bytes += n as u64;
            if line_feed.is_some() || n == 0 {
                return Ok(line_feed.is_some());
            }
        }
    }
}

/// The same error with file and line in front: `file: line 3: ..`.
pub fn at_line(path: &Path, number: u64, error: Error) -> Error {
    error.behind(format_args!("line {number}")).in_file(path)
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Read};

    use super::*;

    /// Gives one byte more with every call, and is interrupted in between.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let n = (self.1 % 7 + 1).min(into.len());
            self.0.read(&mut into[..n])
        }
    }

    /// (number, start, end, bytes, has a line feed, is too long) of a line.
    type Seen = (u64, u64, u64, Vec<u8>, bool, bool);

    /// The lines of `text` of at most 8 bytes, read in pieces of `piece` bytes.
    fn lines(text: &[u8], piece: usize) -> Vec<Seen> {
        let mut lines = JsonLines::new(BufReader::with_capacity(piece, Slow(text, 0)), Path::new("f"), 8);
        let mut seen = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            assert!(line.raw.starts_with(line.bytes) && line.raw.len() <= 9, "{line:?}");
            assert_eq!(line.raw.ends_with(b"\n"), line.has_line_feed && !line.is_too_long, "{line:?}");
            let bytes = line.bytes.to_vec();
            seen.push((line.number, line.start, line.end, bytes, line.has_line_feed, line.is_too_long));
            assert_eq!(lines.bytes(), seen[seen.len() - 1].3);
        }
        assert_eq!(lines.n_bytes(), text.len() as u64);
        seen
    }

    #[test]
    fn awkward_input_is_read_as_it_is() {
        let line = |number, start, end, bytes: &[u8]| (number, start, end, bytes.to_vec(), true, false);
        let torn = |number, start, end, bytes: &[u8]| (number, start, end, bytes.to_vec(), false, false);
        let cases: [(&[u8], Vec<Seen>); 15] = [
            (b"", vec![]),
            (b"\xef\xbb\xbf", vec![]),
            (b"\n", vec![line(1, 0, 1, b"")]),
            (b"\xef\xbb\xbf\n", vec![line(1, 3, 4, b"")]),
            (b"{}", vec![torn(1, 0, 2, b"{}")]),
            (b"{}\n", vec![line(1, 0, 3, b"{}")]),
            (b"\xef\xbb\xbf{}\r\n[]\r\n", vec![line(1, 3, 7, b"{}"), line(2, 7, 11, b"[]")]),
            // A mark further down is text, as is half a one.
            (b"a\n\xef\xbb\xbf\n", vec![line(1, 0, 2, b"a"), line(2, 2, 6, b"\xef\xbb\xbf")]),
            (b"\xef\xbb", vec![torn(1, 0, 2, b"\xef\xbb")]),
            // A carriage return alone ends nothing.
            (b"a\rb\r\r\n", vec![line(1, 0, 6, b"a\rb\r")]),
            (b"{}\r", vec![torn(1, 0, 3, b"{}\r")]),
            (b"\n \n\r\nx", vec![line(1, 0, 1, b""), line(2, 1, 3, b" "), line(3, 3, 5, b""), torn(4, 5, 6, b"x")]),
            (b"\0\0\na\0b\n\0", vec![line(1, 0, 3, b"\0\0"), line(2, 3, 7, b"a\0b"), torn(3, 7, 8, b"\0")]),
            (b"\xff\xfe\n\xc3", vec![line(1, 0, 3, b"\xff\xfe"), torn(2, 3, 4, b"\xc3")]),
            (b"12345678\n\xef\xbb\xbf", vec![line(1, 0, 9, b"12345678"), torn(2, 9, 12, b"\xef\xbb\xbf")]),
        ];
        for (text, want) in &cases {
            for piece in [1, 2, 3, 5, 64] {
                assert_eq!(lines(text, piece), *want, "{:?} in pieces of {piece}", text.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn a_line_over_the_limit_is_passed_over() {
        for piece in [1, 4, 9, 64] {
            for (n, is_too_long) in [(7, false), (8, false), (9, true), (10, true), (1000, true)] {
                for mark in ["", "\u{feff}"] {
                    let long = "x".repeat(n);
                    // In the middle, and at the end: whole and torn.
                    let text = format!("{mark}{long}\nb\n{long}\n{long}");
                    let seen = lines(text.as_bytes(), piece);
                    let too_long: Vec<bool> = seen.iter().map(|line| line.5).collect();
                    assert_eq!(too_long, [is_too_long, false, is_too_long, is_too_long], "{n} bytes, {piece}");
                    assert_eq!(seen[1].3, b"b");
                    assert_eq!((seen[3].0, seen[3].2, seen[3].4), (4, text.len() as u64, false));
                    assert!(seen[0].3.len() >= n.min(8) && long.as_bytes().starts_with(&seen[0].3));
                }
            }
        }
    }

    #[test]
    fn of_a_long_line_only_the_beginning_is_held() {
        let text = "x".repeat(1 << 20);
        let mut lines = JsonLines::new(text.as_bytes(), Path::new("f"), 1000);
        assert!(lines.next().unwrap().unwrap().is_too_long);
        assert!(lines.buffer.capacity() <= 2 * 1004, "{}", lines.buffer.capacity());
        assert_eq!(lines.next().unwrap(), None);
    }

    #[test]
    fn errors_name_file_and_line() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let error = JsonLines::new(BufReader::new(Broken), Path::new("f.jsonl"), 8).next().unwrap_err();
        assert_eq!(error.message(), "f.jsonl: gone");
        assert_eq!(at_line(Path::new("f.jsonl"), 3, Error::input("is odd")).message(), "f.jsonl: line 3: is odd");
    }
}
