//! A position in a byte slice that never passes its end.

/// Reads little-endian numbers from `bytes`, front to back.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// `at` must not lie past the end.
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        assert!(at <= bytes.len());
        Cursor { bytes, at }
    }

    /// Byte of the slice that is read next.
    pub fn at(&self) -> usize {
        self.at
    }

    pub fn remaining(&self) -> u64 {
        (self.bytes.len() - self.at) as u64
    }

    /// The next `n` bytes; `None` (and nothing is consumed) when fewer are left.
    pub fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        if n > self.remaining() {
            return None;
        }
        let taken = &self.bytes[self.at..self.at + n as usize];
        self.at += n as usize;
        Some(taken)
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_le_bytes(b.try_into().expect("four bytes")))
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
    }
}
