//! A file through one small buffer, its bytes hashed on the way.

use std::io::{self, BufRead, Read};

use sha2::{Digest, Sha256};

pub(super) const CHUNK_BYTES: usize = 64 << 10;

/// Bytes of a file. Each chunk is full but the last, so that the first holds whatever tells what the file is.
pub(super) struct Hashed<R> {
    input: R,
    chunk: Box<[u8]>,
    /// The bytes of `chunk` that were read and not yet used.
    start: usize,
    end: usize,
    n_bytes: u64,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    pub fn new(input: R) -> Self {
        let chunk = vec![0; CHUNK_BYTES].into_boxed_slice();
        Hashed { input, chunk, start: 0, end: 0, n_bytes: 0, hash: Sha256::new() }
    }

    /// What [`BufRead::fill_buf`] gave, as far as it is not used yet.
    pub fn read_and_not_used(&self) -> &[u8] {
        &self.chunk[self.start..self.end]
    }

    /// How many bytes were used, and the SHA-256 of all that were read.
    pub fn finish(self) -> (u64, [u8; 32]) {
        (self.n_bytes, self.hash.finalize().into())
    }
}

impl<R: Read> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            while self.end < self.chunk.len() {
                match self.input.read(&mut self.chunk[self.end..]) {
                    Ok(0) => break,
                    Ok(n) => self.end += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            self.hash.update(&self.chunk[..self.end]);
        }
        Ok(&self.chunk[self.start..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.start += n;
        self.n_bytes += n as u64;
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(into)?;
        self.consume(n);
        Ok(n)
    }
}
