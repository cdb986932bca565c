//! GEMM by the instruction that multiplies pairs of bf16.
//!
//! Coefficients are rounded once for all column tiles, a span of j at a time; within a column tile, `out` stays in the
//! second-level cache through all blocks of the span.

use std::cell::RefCell;
use std::ops::Range;

use super::{decode, simd, Job, Rows, Work, Write, BLOCK, COLUMN_TILE, WORK};
use crate::formats::{q8_0, Format};

/// Terms whose coefficients are rounded together: 4 MiB for 256 rows.
pub(super) const SPAN: usize = 8192;

thread_local! {
    /// Coefficients of a span as bf16, of the thread that asked for the product: (I, SPAN or less). Grown once.
    static BF16S: RefCell<Vec<u16>> = const { RefCell::new(Vec::new()) };
}

/// Rounded coefficients of terms `terms`, `width` of them a row; what is past the last term is zero.
struct Rounded<'a> {
    bf16s: &'a [u16],
    width: usize,
    terms: Range<usize>,
}

impl Job<'_> {
    pub(super) fn in_pairs(&self) {
        assert_eq!(self.a.column_stride, 1, "coefficients of a product lie in rows");
        BF16S.with_borrow_mut(|bf16s| {
            for first in (0..self.shape.terms).step_by(SPAN) {
                let terms = first..(first + SPAN).min(self.shape.terms);
                let width = terms.len().next_multiple_of(BLOCK);
                let needed = self.shape.rows * width;
                if bf16s.len() < needed {
                    bf16s.resize(needed, 0);
                }
                self.round(&terms, width, &mut bf16s[..needed]);
                let rounded = Rounded { bf16s: &bf16s[..needed], width, terms };
                self.share(&|rows, column_tiles| {
                    WORK.with_borrow_mut(|work| {
                        column_tiles.for_each(|column_tile| self.column_tile(&rounded, &rows, column_tile, work))
                    });
                });
            }
        });
    }

    fn round(&self, terms: &Range<usize>, width: usize, bf16s: &mut [u16]) {
        let isa = self.cpu.isa;
        let row = |i: usize, bf16s: &mut [u16]| {
            let at = i * self.a.row_stride;
            let (now, rest) = bf16s.split_at_mut(terms.len());
            simd::round_row(isa, now, &self.a.data[at + terms.start..at + terms.end]);
            rest.fill(0);
        };
        match bf16s.len() >= 1 << 16 {
            true => self.cpu.pool.for_chunks(bf16s, width, &row),
            false => bf16s.chunks_exact_mut(width).enumerate().for_each(|(i, bf16s)| row(i, bf16s)),
        }
    }

    /// All blocks of a span for one column tile.
    fn column_tile(&self, a: &Rounded<'_>, rows: &Range<usize>, column_tile: usize, work: &mut Work) {
        work.panel.resize(BLOCK * COLUMN_TILE, 0.0);
        work.pairs.resize(BLOCK * COLUMN_TILE, 0);
        for first in (0..a.terms.len()).step_by(BLOCK) {
            let n_terms = BLOCK.min(a.terms.len() - first);
            let js = a.terms.start + first..a.terms.start + first + n_terms;
            let replace = js.start == 0 && self.write == Write::Replace;
            self.pack_pairs(&js, column_tile, work);
            for row in rows.clone().step_by(simd::ROWS) {
                let n = simd::ROWS.min(rows.end - row);
                let bf16s = &a.bf16s[row * a.width + first..];
                let n_pairs = n_terms.div_ceil(2);
                let factors = simd::Factors { bf16s, width: a.width, pairs: &work.pairs, n_pairs };
                self.tile(row..row + n, column_tile, &factors, replace);
            }
        }
    }

    /// One tile; a column tile that is not whole takes a detour.
    fn tile(&self, rows: Range<usize>, column_tile: usize, factors: &simd::Factors<'_>, replace: bool) {
        let (n, ks) = (rows.len(), self.columns(column_tile));
        if ks.len() == COLUMN_TILE {
            let mut out: [&mut [f32]; simd::ROWS] =
                std::array::from_fn(|i| if i < n { self.part(rows.start + i, &ks) } else { &mut [] });
            return simd::tile_bf16(factors, &mut out[..n], replace);
        }
        let mut sums = [0.0f32; simd::ROWS * COLUMN_TILE];
        let mut out: [&mut [f32]; simd::ROWS] = Default::default();
        out.iter_mut().zip(sums.chunks_exact_mut(COLUMN_TILE)).for_each(|(out, sums)| *out = sums);
        simd::tile_bf16(factors, &mut out[..n], true);
        self.add(rows, column_tile, &sums, replace);
    }

    /// Rows `js` of `b` and the columns of a column tile as pairs, into `work.pairs`.
    fn pack_pairs(&self, js: &Range<usize>, column_tile: usize, work: &mut Work) {
        let ks = self.columns(column_tile);
        let is_whole = ks.len() == COLUMN_TILE;
        match self.b {
            Rows::Matrix(m) if m.format() == Format::Q8_0 && is_whole => {
                let row_bytes = Format::Q8_0.row_bytes(m.cols()).expect("whole blocks");
                let at = js.start * row_bytes + ks.start / q8_0::BLOCK * q8_0::BLOCK_BYTES;
                simd::pack_q8_0_pairs(&m.bytes()[at..], row_bytes, js.len(), &mut work.pairs);
            }
            Rows::MatrixTransposed(m) if m.format() == Format::Q8_0 && is_whole => {
                let row_bytes = Format::Q8_0.row_bytes(m.cols()).expect("whole blocks");
                let at = ks.start * row_bytes + js.start / q8_0::BLOCK * q8_0::BLOCK_BYTES;
                simd::transpose_q8_0_pairs(&m.bytes()[at..], row_bytes, js.len(), &mut work.pairs);
            }
            Rows::MatrixTransposed(m) => {
                decode::rows(self.cpu.isa, m, &ks, js, BLOCK, &mut work.panel);
                // Columns past the last hold what an earlier column tile left: they are computed and dropped.
                simd::transpose_pairs(js.len(), &work.panel, &mut work.pairs);
            }
            _ => {
                self.pack(js.clone(), column_tile, &mut work.panel);
                simd::pair_rows(js.len(), &mut work.panel, &mut work.pairs);
            }
        }
    }
}
