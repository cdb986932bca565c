//! AVX2 with FMA and F16C. `vpmaddwd` multiplies pairs of 16-bit integers into 32-bit lanes: 16 products an instruction.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::{by_format, by_panel, Panel, StorePart, Tile, Weights, Q5_0, Q8_0};
use crate::matrix::Matrix;
use crate::ops::matmul::quantize::QuantizedRows;
use crate::ops::matmul::PANEL_ROWS;

/// Rows of weights in one register of 32-bit lanes.
const GROUP: usize = 8;
/// Rows of weights in one column tile of the panel: two registers, as wide as the micro-kernel.
const COLUMN_TILE: usize = 16;
/// Rows of `x` in one pass: 6 x 2 accumulators, two registers of weights, a broadcast and a product fill all sixteen.
const PASS: usize = 6;

pub fn matvec(weights: &Matrix, rows: Range<usize>, x: &QuantizedRows, store: &mut StorePart<'_>) {
    let w = Weights::new(weights);
    // SAFETY:
    // - This instruction set is only chosen where `Isa::is_available` found it.
    // - `rows` lies inside the matrix, and each row of `x` holds K codes and K / block scales: asserted by the caller.
    unsafe { by_format!(weights.format(), F => matvec_rows::<F>(w, rows, x, store)) }
}

pub fn matmul(weights: &Matrix, rows: Range<usize>, x: &QuantizedRows, store: &mut dyn FnMut(usize, &[f32])) {
    // SAFETY:
    // - As in `matvec`; the panel holds PANEL_ROWS widened rows and their scales.
    let pack = |w: Weights<'_>, panel: &mut Panel| unsafe {
        by_format!(weights.format(), F => pack::<F>(w, rows.clone(), panel))
    };
    // SAFETY:
    // - As in `matvec`; `pack` filled the panel (2, K/2, 16, 2) and its scales (K/block, 32); sums hold (m, 32).
    let tile = |t: Tile<'_>, panel: &mut Panel| unsafe { tile(t, panel) };
    by_panel(weights, rows.clone(), x, store, pack, tile);
}

/// Rows of `x` one by one against rows of weights, eight at a time. Each block gives eight vectors of partial sums; a
/// transposing tree folds them into one vector with a lane per row.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn matvec_rows<const F: u8>(w: Weights<'_>, rows: Range<usize>, x: &QuantizedRows, store: &mut StorePart<'_>) {
    for first in rows.clone().step_by(GROUP) {
        let valid = (rows.end - first).min(GROUP);
        let base = w.bytes.as_ptr().add(first * w.row_bytes);
        let row_offset = |r: usize| r.min(valid - 1) * w.row_bytes;
        // The next group is read in order while this one is computed, so DRAM sees one stream and not eight.
        let next = base.wrapping_add(GROUP * w.row_bytes);
        let lines = (GROUP * w.row_bytes / 64).div_ceil(w.n_blocks);
        for t in 0..x.n_rows() {
            let (_, q, scales) = x.tile(t);
            let lines = if t == 0 { lines } else { 0 };
            let mut acc = _mm256_setzero_ps();
            for b in 0..w.n_blocks {
                for line in 0..lines {
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add((b * lines + line) * 64) as *const i8);
                }
                let block = base.add(b * w.block_bytes);
                let x = [load(q, 2 * b), load(q, 2 * b + 1)];
                let sums = fold(|r| {
                    let v = expand32::<F>(block.add(row_offset(r)));
                    _mm256_add_epi32(_mm256_madd_epi16(v[0], x[0]), _mm256_madd_epi16(v[1], x[1]))
                });
                let w_scale = row_scales(&w, first, b, valid);
                let scale = _mm256_mul_ps(w_scale, _mm256_set1_ps(*scales.get_unchecked(b)));
                acc = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), scale, acc);
            }
            let mut y = [0.0f32; GROUP];
            _mm256_storeu_ps(y.as_mut_ptr(), acc);
            store(t, first, &y[..valid]);
        }
    }
}

/// Widens up to 32 rows into `codes` (2, K/2, 16, 2) and `scales` (K/block, 32); missing rows repeat the last.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pack<const F: u8>(w: Weights<'_>, rows: Range<usize>, panel: &mut Panel) {
    let n_pairs = w.n_blocks * 16;
    for group in 0..PANEL_ROWS / GROUP {
        let first = (rows.start + group * GROUP).min(rows.end - 1);
        let valid = (rows.end - first).min(GROUP);
        let base = w.bytes.as_ptr().add(first * w.row_bytes);
        let (column_tile, column) = (group * GROUP / COLUMN_TILE, group * GROUP % COLUMN_TILE);
        for b in 0..w.n_blocks {
            let scale = row_scales(&w, first, b, valid);
            _mm256_storeu_ps(panel.scales.as_mut_ptr().add(b * PANEL_ROWS + group * GROUP), scale);
            let (mut low, mut high) = ([_mm256_setzero_si256(); GROUP], [_mm256_setzero_si256(); GROUP]);
            for (r, (low, high)) in low.iter_mut().zip(&mut high).enumerate() {
                [*low, *high] = expand32::<F>(base.add(r.min(valid - 1) * w.row_bytes + b * w.block_bytes));
            }
            for (half, v) in [&mut low, &mut high].into_iter().enumerate() {
                transpose(v);
                for (j, v) in v.iter().enumerate() {
                    let at = ((column_tile * n_pairs + b * 16 + half * 8 + j) * COLUMN_TILE + column) * 2;
                    _mm256_storeu_si256(panel.codes.as_mut_ptr().add(at) as *mut __m256i, *v);
                }
            }
        }
    }
}

/// A tile against the panel, tile by tile, in passes of nearly equal height.
unsafe fn tile(t: Tile<'_>, panel: &mut Panel) {
    for column_tile in 0..PANEL_ROWS / COLUMN_TILE {
        let mut first = 0;
        for left in (1..=t.m.div_ceil(PASS)).rev() {
            let n = (t.m - first).div_ceil(left);
            match n {
                1 => tile_rows::<1>(t, panel, column_tile, first),
                2 => tile_rows::<2>(t, panel, column_tile, first),
                3 => tile_rows::<3>(t, panel, column_tile, first),
                4 => tile_rows::<4>(t, panel, column_tile, first),
                5 => tile_rows::<5>(t, panel, column_tile, first),
                6 => tile_rows::<6>(t, panel, column_tile, first),
                _ => unreachable!("a pass has 1 to {PASS} rows"),
            }
            first += n;
        }
    }
}

/// Rows `first .. first + M` of the tile against 16 rows of weights: 2 M integer accumulators in registers, flushed into
/// f32 sums once a block.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile_rows<const M: usize>(t: Tile<'_>, panel: &mut Panel, column_tile: usize, first: usize) {
    debug_assert!(t.q.len() >= t.n_blocks * t.pairs * 2 * t.m && first + M <= t.m);
    let mut w = panel.codes.as_ptr().add(column_tile * t.n_blocks * t.pairs * COLUMN_TILE * 2) as *const __m256i;
    let mut x = (t.q.as_ptr() as *const i32).add(first);
    let w_scales = panel.scales.as_ptr().add(column_tile * COLUMN_TILE);
    let mut sums = [[_mm256_setzero_ps(); 2]; M];
    for b in 0..t.n_blocks {
        let mut acc = [[_mm256_setzero_si256(); 2]; M];
        for _ in 0..t.pairs {
            let (w0, w1) = (_mm256_loadu_si256(w), _mm256_loadu_si256(w.add(1)));
            for (m, acc) in acc.iter_mut().enumerate() {
                let pair = _mm256_set1_epi32(x.add(m).read_unaligned());
                acc[0] = _mm256_add_epi32(acc[0], _mm256_madd_epi16(w0, pair));
                acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(w1, pair));
            }
            w = w.add(2);
            x = x.add(t.m);
        }
        let w0 = _mm256_loadu_ps(w_scales.add(b * PANEL_ROWS));
        let w1 = _mm256_loadu_ps(w_scales.add(b * PANEL_ROWS + GROUP));
        for (m, (sum, acc)) in sums.iter_mut().zip(acc).enumerate() {
            let x_scale = _mm256_set1_ps(*t.scales.as_ptr().add(b * t.m + first + m));
            sum[0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[0]), _mm256_mul_ps(w0, x_scale), sum[0]);
            sum[1] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[1]), _mm256_mul_ps(w1, x_scale), sum[1]);
        }
    }
    for (m, sum) in sums.iter().enumerate() {
        let out = panel.sums.as_mut_ptr().add((first + m) * PANEL_ROWS + column_tile * COLUMN_TILE);
        _mm256_storeu_ps(out, sum[0]);
        _mm256_storeu_ps(out.add(GROUP), sum[1]);
    }
}

/// Codes `16 i ..` of a row of `x`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(q: &[i16], i: usize) -> __m256i {
    debug_assert!(q.len() >= (i + 1) * 16);
    _mm256_loadu_si256(q.as_ptr().add(i * 16) as *const __m256i)
}

/// 32 values of a block, from the block's first byte, as 16-bit integers in order.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn expand32<const F: u8>(block: *const u8) -> [__m256i; 2] {
    let first = _mm_loadu_si128(block.add(if F == Q5_0 { 6 } else { 2 }) as *const __m128i);
    if F == Q8_0 {
        let second = _mm_loadu_si128(block.add(18) as *const __m128i);
        return [_mm256_cvtepi8_epi16(first), _mm256_cvtepi8_epi16(second)];
    }
    let bytes = _mm256_cvtepu8_epi16(first);
    let low = _mm256_and_si256(bytes, _mm256_set1_epi16(15));
    let high = _mm256_srli_epi16::<4>(bytes);
    if F == Q5_0 {
        return [less_16(low, block.add(2)), less_16(high, block.add(4))];
    }
    let eight = _mm256_set1_epi16(8);
    [_mm256_sub_epi16(low, eight), _mm256_sub_epi16(high, eight)]
}

/// Takes 16 off each value whose fifth bit is not set: bit i of the two bytes at `fifth` is that of lane i. They are
/// broadcast from memory, not through a register of the other units.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn less_16(v: __m256i, fifth: *const u8) -> __m256i {
    let fifth = (fifth as *const i16).read_unaligned();
    let bits = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, i16::MIN);
    let is_clear = _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16(fifth), bits), _mm256_setzero_si256());
    _mm256_sub_epi16(v, _mm256_and_si256(is_clear, _mm256_set1_epi16(16)))
}

/// Scales of block `b` of eight rows. Eight loads and inserts, because `vgatherdps` is microcode before Zen 4 and on
/// every core whose gathers were slowed by a security fix.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn row_scales(w: &Weights<'_>, first: usize, b: usize, valid: usize) -> __m256 {
    let base = w.bytes.as_ptr().add(first * w.row_bytes + b * w.block_bytes);
    let s: [i16; GROUP] =
        std::array::from_fn(|r| (base.add(r.min(valid - 1) * w.row_bytes) as *const i16).read_unaligned());
    _mm256_cvtph_ps(_mm_setr_epi16(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]))
}

/// Sums each of eight vectors; lane r of the result is the sum of `row(r)`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn fold(row: impl Fn(usize) -> __m256i) -> __m256i {
    // Two rows become [a b a b] in each 128-bit lane, four [a b c d]; then the two lanes are added across.
    let two = |r: usize| {
        let (a, b) = (row(r), row(r + 1));
        _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b))
    };
    let four = |r: usize| {
        let (a, b) = (two(r), two(r + 2));
        _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b))
    };
    let (a, b) = (four(0), four(4));
    _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b))
}

/// Transposes eight rows of eight 32-bit lanes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn transpose(v: &mut [__m256i; GROUP]) {
    let mut t = [_mm256_setzero_si256(); GROUP];
    for i in (0..GROUP).step_by(2) {
        t[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
    }
    for i in (0..GROUP).step_by(4) {
        v[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // v[4 g + c] lane l holds column 4 l + c of rows 4 g .. 4 g + 4.
    for c in 0..4 {
        t[c] = _mm256_permute2x128_si256::<0x20>(v[c], v[4 + c]);
        t[4 + c] = _mm256_permute2x128_si256::<0x31>(v[c], v[4 + c]);
    }
    *v = t;
}
