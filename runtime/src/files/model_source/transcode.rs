//! Matrices in formats that are read but not computed with: decoded and encoded as Q8_0, a few rows at a time.

use std::ops::Range;

use lichen_kernels::formats::{decode, q8_0};
use lichen_kernels::{Format, Matrix, SharedBytes};

/// Bytes of the source after which its pages are given back.
const CHUNK_BYTES: usize = 4 << 20;

/// Converts `(rows, cols)` of `bytes` in `format`; `cols` must be a multiple of 32. `done` is told each range of
/// `bytes` that will not be read again.
pub(super) fn to_q8_0(format: Format, rows: usize, cols: usize, bytes: &[u8], done: impl Fn(Range<usize>)) -> Matrix {
    let row_bytes = format.row_bytes(cols).expect("whole blocks");
    let out_row_bytes = Format::Q8_0.row_bytes(cols).expect("whole blocks");
    let mut out = Vec::with_capacity(rows * out_row_bytes);
    let mut row = vec![0.0; cols];
    let mut dropped = 0;
    for (index, source) in bytes.chunks_exact(row_bytes).enumerate() {
        decode(format, source, &mut row);
        q8_0::encode(&row, &mut out);
        let end = (index + 1) * row_bytes;
        if end - dropped >= CHUNK_BYTES || end == bytes.len() {
            done(dropped..end);
            dropped = end;
        }
    }
    Matrix::new(Format::Q8_0, rows, cols, SharedBytes::from_vec(out))
}
