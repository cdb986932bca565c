//! A file of rows, read once from its first byte to its last: lines, the items of one JSON array, or objects over several
//! lines.

mod array;
mod file_kind;
mod hashed;

use std::io::{BufRead, Read};
use std::path::Path;

use array::Items;
use hashed::Hashed;
use lichen_runtime::files::jsonl::JsonLines;
use lichen_runtime::{Error, Result};

/// Longest row.
pub(super) const ROW_BYTES_MAX: usize = 4 << 20;

/// How the rows of a file are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A row is a line.
    Lines,
    /// A row is an item of the one array that the file is.
    Array,
    /// A row is an object, written over several lines.
    Objects,
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
    rows: Rows<R>,
    n_rows: usize,
}

enum Rows<R> {
    Lines(JsonLines<Hashed<R>>),
    Items(Items<R>, Form),
}

impl<R: Read> RowReader<R> {
    /// # Errors
    /// What the file is instead of rows: a Parquet file, CSV, an HTML page, UTF-16. The file's name is in front of every
    /// error.
    pub fn new(input: R, path: &Path) -> Result<Self> {
        let mut input = Hashed::new(input);
        let head = input.fill_buf().map_err(|e| Error::io(path, &e))?;
        let rows = match file_kind::form(head, path).map_err(|e| e.in_file(path))? {
            Form::Lines => Rows::Lines(JsonLines::new(input, path, ROW_BYTES_MAX)),
            Form::Array => Rows::Items(Items::of_array(input, path)?, Form::Array),
            Form::Objects => Rows::Items(Items::of_objects(input, path)?, Form::Objects),
        };
        Ok(RowReader { rows, n_rows: 0 })
    }

    pub fn form(&self) -> Form {
        match self.rows {
            Rows::Lines(_) => Form::Lines,
            Rows::Items(_, form) => form,
        }
    }

    /// The next row; its bytes are in [`RowReader::bytes`] then.
    ///
    /// # Errors
    /// The file cannot be read, or its array is not one.
    pub fn next_row(&mut self) -> Result<Option<Place>> {
        let row = self.n_rows + 1;
        let place = match &mut self.rows {
            Rows::Lines(lines) => lines.next()?.map(|line| Place {
                offset: line.start,
                line: line.number as usize,
                column: 0,
                row,
                extent: match line.is_too_long {
                    true => Extent::TooLong,
                    false if line.is_blank() => Extent::Blank,
                    false => Extent::Whole,
                },
                is_ended: line.has_line_feed,
            }),
            Rows::Items(items, _) => items.next(row)?,
        };
        self.n_rows += place.is_some_and(|place| place.extent != Extent::Blank) as usize;
        Ok(place)
    }

    /// The row that was read last, without its line end.
    pub fn bytes(&self) -> &[u8] {
        match &self.rows {
            Rows::Lines(lines) => lines.bytes(),
            Rows::Items(items, _) => items.bytes(),
        }
    }

    /// How many bytes were read, and their SHA-256. To be asked at the end.
    pub fn finish(self) -> (u64, [u8; 32]) {
        match self.rows {
            Rows::Lines(lines) => lines.into_inner().finish(),
            Rows::Items(items, _) => items.finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::hashed::CHUNK_BYTES;
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
            assert!(reader.bytes().len() <= ROW_BYTES_MAX + 1);
            let place = reader.next_row().unwrap().unwrap();
            assert_eq!((place.line, place.offset, place.is_ended, reader.bytes()), (2, n as u64 + 1, false, &b"2"[..]));
            assert_eq!(reader.next_row().unwrap(), None);
        }
    }
}
