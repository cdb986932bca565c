//! AVX-512 with VNNI. `vpdpwssd` multiplies pairs of 16-bit integers into 32-bit lanes: 32 products an instruction.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::ops::Range;

use super::{by_format, by_panel, Panel, StorePart, Tile, Weights, Q5_0, Q8_0};
use crate::matrix::Matrix;
use crate::ops::matmul::quantize::{QuantizedRows, TILE_ROWS};
use crate::ops::matmul::PANEL_ROWS;

/// Rows of weights in one register of 32-bit lanes.
const GROUP: usize = 16;

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
    // - As in `matvec`; `pack` filled the panel (K/2, 32, 2) and its scales (K/block, 32); sums hold (m, 32).
    let tile = |t: Tile<'_>, panel: &mut Panel| unsafe { tile(t, panel) };
    by_panel(weights, rows.clone(), x, store, pack, tile);
}

/// Rows of `x` one by one against rows of weights, sixteen at a time. Each block gives sixteen vectors of partial sums; a
/// transposing tree folds them into one vector with a lane per row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
unsafe fn matvec_rows<const F: u8>(w: Weights<'_>, rows: Range<usize>, x: &QuantizedRows, store: &mut StorePart<'_>) {
    for first in rows.clone().step_by(GROUP) {
        let valid = (rows.end - first).min(GROUP);
        let base = w.bytes.as_ptr().add(first * w.row_bytes);
        let row_offset = |r: usize| r.min(valid - 1) * w.row_bytes;
        let scale_at = scale_offsets(&w, valid);
        // The next group is read in order while this one is computed, so DRAM sees one stream and not sixteen.
        let next = base.wrapping_add(GROUP * w.row_bytes);
        let rows_left = rows.end.saturating_sub(first + GROUP).min(GROUP);
        let lines = (rows_left * w.row_bytes / 64).div_ceil(w.n_blocks);
        for t in 0..x.n_rows() {
            let (_, q, scales) = x.tile(t);
            let lines = if t == 0 { lines } else { 0 };
            let mut acc = _mm512_setzero_ps();
            for b in 0..w.n_blocks {
                for line in 0..lines {
                    _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add((b * lines + line) * 64) as *const i8);
                }
                let block = base.add(b * w.block_bytes);
                let x0 = load(q, b);
                let sums = fold(|r| _mm512_madd_epi16(expand32::<F>(block.add(row_offset(r))), x0));
                let w_scale = row_scales(&w, first, b, scale_at);
                let scale = _mm512_mul_ps(w_scale, _mm512_set1_ps(*scales.get_unchecked(b)));
                acc = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), scale, acc);
            }
            let mut y = [0.0f32; GROUP];
            _mm512_storeu_ps(y.as_mut_ptr(), acc);
            store(t, first, &y[..valid]);
        }
    }
}

/// Widens up to 32 rows into `codes` (K/2, 32, 2) and `scales` (K/block, 32); missing rows repeat the last.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,f16c")]
unsafe fn pack<const F: u8>(w: Weights<'_>, rows: Range<usize>, panel: &mut Panel) {
    for half in 0..PANEL_ROWS / GROUP {
        let first = (rows.start + half * GROUP).min(rows.end - 1);
        let valid = (rows.end - first).min(GROUP);
        let base = w.bytes.as_ptr().add(first * w.row_bytes);
        let scale_at = scale_offsets(&w, valid);
        for b in 0..w.n_blocks {
            let scale = row_scales(&w, first, b, scale_at);
            _mm512_storeu_ps(panel.scales.as_mut_ptr().add(b * PANEL_ROWS + half * GROUP), scale);
            let mut v = [_mm512_setzero_si512(); GROUP];
            for (r, v) in v.iter_mut().enumerate() {
                *v = expand32::<F>(base.add(r.min(valid - 1) * w.row_bytes + b * w.block_bytes));
            }
            transpose(&mut v);
            for (j, v) in v.iter().enumerate() {
                let at = (b * GROUP + j) * PANEL_ROWS * 2 + half * GROUP * 2;
                _mm512_storeu_si512(panel.codes.as_mut_ptr().add(at) as *mut __m512i, *v);
            }
        }
    }
}

unsafe fn tile(t: Tile<'_>, panel: &mut Panel) {
    macro_rules! by_rows {
        ($($n:literal)*) => {
            match t.m {
                $($n => tile_rows::<$n>(t, panel),)*
                _ => unreachable!("a tile has 1 to {TILE_ROWS} rows"),
            }
        };
    }
    by_rows!(1 2 3 4 5 6 7 8 9 10 11 12)
}

/// `M` rows of `x` against a panel of 32 rows of weights: 2 M integer accumulators in registers, flushed into f32 sums
/// once a block.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
unsafe fn tile_rows<const M: usize>(t: Tile<'_>, panel: &mut Panel) {
    debug_assert!(t.q.len() >= t.n_blocks * t.pairs * 2 * M && panel.sums.len() >= M * PANEL_ROWS);
    let mut w = panel.codes.as_ptr() as *const __m512i;
    let mut x = t.q.as_ptr() as *const i32;
    let sums = panel.sums.as_mut_ptr();
    for m in 0..M * 2 {
        _mm512_storeu_ps(sums.add(m * GROUP), _mm512_setzero_ps());
    }
    for b in 0..t.n_blocks {
        let mut acc = [[_mm512_setzero_si512(); 2]; M];
        for _ in 0..t.pairs {
            let (w0, w1) = (_mm512_loadu_si512(w), _mm512_loadu_si512(w.add(1)));
            for (m, acc) in acc.iter_mut().enumerate() {
                let pair = _mm512_set1_epi32(x.add(m).read_unaligned());
                acc[0] = _mm512_dpwssd_epi32(acc[0], w0, pair);
                acc[1] = _mm512_dpwssd_epi32(acc[1], w1, pair);
            }
            w = w.add(2);
            x = x.add(M);
        }
        let w0 = _mm512_loadu_ps(panel.scales.as_ptr().add(b * PANEL_ROWS));
        let w1 = _mm512_loadu_ps(panel.scales.as_ptr().add(b * PANEL_ROWS + GROUP));
        for (m, acc) in acc.iter().enumerate() {
            let x_scale = _mm512_set1_ps(*t.scales.as_ptr().add(b * M + m));
            let (s0, s1) = (sums.add(m * PANEL_ROWS), sums.add(m * PANEL_ROWS + GROUP));
            let y0 = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[0]), _mm512_mul_ps(w0, x_scale), _mm512_loadu_ps(s0));
            let y1 = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[1]), _mm512_mul_ps(w1, x_scale), _mm512_loadu_ps(s1));
            _mm512_storeu_ps(s0, y0);
            _mm512_storeu_ps(s1, y1);
        }
    }
}

/// Codes `32 i ..` of a row of `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn load(q: &[i16], i: usize) -> __m512i {
    debug_assert!(q.len() >= (i + 1) * 32);
    _mm512_loadu_si512(q.as_ptr().add(i * 32) as *const __m512i)
}

/// 32 values of a block, from the block's first byte, as 16-bit integers in order.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn expand32<const F: u8>(block: *const u8) -> __m512i {
    if F == Q8_0 {
        return _mm512_cvtepi8_epi16(_mm256_loadu_si256(block.add(2) as *const __m256i));
    }
    let nibbles = block.add(if F == Q5_0 { 6 } else { 2 });
    let bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(nibbles as *const __m128i));
    let low = _mm256_and_si256(bytes, _mm256_set1_epi16(15));
    let high = _mm256_srli_epi16::<4>(bytes);
    let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    if F == Q5_0 {
        // A fifth bit that is set adds the 16 that are taken off again.
        let is_negative = !(block.add(2) as *const u32).read_unaligned();
        return _mm512_mask_sub_epi16(both, is_negative, both, _mm512_set1_epi16(16));
    }
    _mm512_sub_epi16(both, _mm512_set1_epi16(8))
}

/// Byte offsets of the scales of sixteen rows from the first one's.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn scale_offsets(w: &Weights<'_>, valid: usize) -> __m512i {
    let offsets: [i32; GROUP] = std::array::from_fn(|r| (r.min(valid - 1) * w.row_bytes) as i32);
    _mm512_loadu_si512(offsets.as_ptr() as *const __m512i)
}

/// Scales of block `b` of sixteen rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,f16c")]
unsafe fn row_scales(w: &Weights<'_>, first: usize, b: usize, offsets: __m512i) -> __m512 {
    // Four bytes at the block's start: the f16 and two codes, which the narrowing drops.
    let base = w.bytes.as_ptr().add(first * w.row_bytes + b * w.block_bytes);
    let words = _mm512_cvtepi32_epi16(_mm512_i32gather_epi32::<1>(offsets, base as *const i32));
    _mm512_cvtph_ps(words)
}

/// Sums each of sixteen vectors; lane r of the result is the sum of `row(r)`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn fold(row: impl Fn(usize) -> __m512i) -> __m512i {
    // Two rows become [a b a b] in each 128-bit lane, four [a b c d]; then the four lanes are added across.
    let two = |r: usize| {
        let (a, b) = (row(r), row(r + 1));
        _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b))
    };
    let four = |r: usize| {
        let (a, b) = (two(r), two(r + 2));
        _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
    };
    let across = |a: __m512i, b: __m512i| {
        _mm512_add_epi32(_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b))
    };
    let low = across(four(0), four(4));
    let high = across(four(8), four(12));
    across(low, high)
}

/// Transposes sixteen rows of sixteen 32-bit lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in crate::ops::matmul) unsafe fn transpose(v: &mut [__m512i; GROUP]) {
    let mut t = [_mm512_setzero_si512(); GROUP];
    for i in (0..GROUP).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for i in (0..GROUP).step_by(4) {
        v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // v[4 g + c] lane l holds column 4 l + c of rows 4 g .. 4 g + 4.
    for c in 0..4 {
        let (a, b) = (_mm512_shuffle_i32x4::<0x88>(v[c], v[4 + c]), _mm512_shuffle_i32x4::<0xdd>(v[c], v[4 + c]));
        let (d, e) =
            (_mm512_shuffle_i32x4::<0x88>(v[8 + c], v[12 + c]), _mm512_shuffle_i32x4::<0xdd>(v[8 + c], v[12 + c]));
        t[c] = _mm512_shuffle_i32x4::<0x88>(a, d);
        t[4 + c] = _mm512_shuffle_i32x4::<0x88>(b, e);
        t[8 + c] = _mm512_shuffle_i32x4::<0xdd>(a, d);
        t[12 + c] = _mm512_shuffle_i32x4::<0xdd>(b, e);
    }
    *v = t;
}
