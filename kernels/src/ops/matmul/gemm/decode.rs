//! Rows of a weight matrix as f32, on their way into a panel.

use std::ops::Range;

use crate::formats::{float, nf4, q4_0, q5_0, q8_0, Format};
use crate::matrix::Matrix;
use crate::ops::matmul::nf4 as nf4_rows;
use crate::simd::{per_isa, Isa};

/// Rows `js`, columns `ks`, which begin and end at blocks of the format, into rows of `width`; what is left of those is
/// zero.
pub(super) fn rows(isa: Isa, m: &Matrix, js: &Range<usize>, ks: &Range<usize>, width: usize, out: &mut [f32]) {
    if m.format() != Format::NF4 {
        return plain(isa, m, js, ks, width, out);
    }
    for (j, row) in js.clone().zip(out.chunks_exact_mut(width)) {
        let blocks = (j * m.cols() + ks.start) / nf4::BLOCK..(j * m.cols() + ks.end) / nf4::BLOCK;
        nf4_rows::decode(isa, bytes_of(m, j, ks), &m.absmax()[blocks], &mut row[..ks.len()]);
        row[ks.len()..].fill(0.0);
    }
}

fn bytes_of<'a>(m: &'a Matrix, j: usize, ks: &Range<usize>) -> &'a [u8] {
    let format = m.format();
    let at = |k: usize| k / format.block_len() * format.block_bytes();
    let row = j * format.row_bytes(m.cols()).expect("whole blocks");
    &m.bytes()[row + at(ks.start)..row + at(ks.end)]
}

per_isa! {
    fn plain(m: &Matrix, js: &Range<usize>, ks: &Range<usize>, width: usize, out: &mut [f32]) = plain_body;
}

#[inline(always)]
fn plain_body(m: &Matrix, js: &Range<usize>, ks: &Range<usize>, width: usize, out: &mut [f32]) {
    for (j, row) in js.clone().zip(out.chunks_exact_mut(width)) {
        let (out, rest) = row.split_at_mut(ks.len());
        let bytes = bytes_of(m, j, ks);
        match m.format() {
            Format::F32 => float::decode_f32(bytes, out),
            Format::F16 => float::decode_f16(bytes, out),
            Format::BF16 => float::decode_bf16(bytes, out),
            Format::Q8_0 => q8_0::decode(bytes, out),
            Format::Q4_0 => q4_0::decode(bytes, out),
            Format::Q5_0 => q5_0::decode(bytes, out),
            other => unreachable!("{other} is not decoded here"),
        }
        rest.fill(0.0);
    }
}
