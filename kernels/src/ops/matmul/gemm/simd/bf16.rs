//! Pairs of bf16 on x86: thirty-two products an instruction.

use super::{Factors, BLOCK, COLUMN_TILE};
use crate::formats::q8_0;
use crate::ops::matmul::simd::transpose;
use std::arch::x86_64::*;

const WIDTH: usize = 16;
const REGS: usize = COLUMN_TILE / WIDTH;

/// Thirty-two products an instruction: of each pair the second is added first.
#[target_feature(enable = "avx512f,avx512bf16")]
pub unsafe fn tile<const N: usize>(f: &Factors<'_>, out: &mut [&mut [f32]], replace: bool) {
    let factors: [*const i32; N] = std::array::from_fn(|i| f.bf16s.as_ptr().add(i * f.width) as *const i32);
    let mut acc = [[_mm512_setzero_ps(); REGS]; N];
    let mut b = f.pairs.as_ptr() as *const __m512i;
    for p in 0..f.n_pairs {
        let row: [__m512i; REGS] = std::array::from_fn(|r| _mm512_loadu_si512(b.add(r)));
        for (acc, factor) in acc.iter_mut().zip(factors) {
            let factor = as_bf16(_mm512_set1_epi32(factor.add(p).read_unaligned()));
            for (acc, v) in acc.iter_mut().zip(row) {
                *acc = _mm512_dpbf16_ps(*acc, factor, as_bf16(v));
            }
        }
        b = b.wrapping_add(REGS);
    }
    for (acc, out) in acc.iter().zip(out) {
        for (r, acc) in acc.iter().enumerate() {
            let at = out.as_mut_ptr().add(r * WIDTH);
            let sum = if replace { *acc } else { _mm512_add_ps(_mm512_loadu_ps(at), *acc) };
            _mm512_storeu_ps(at, sum);
        }
    }
}

/// Sixteen bf16 as the low halves of 32-bit lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512vl")]
unsafe fn rounded(v: __m512) -> __m512i {
    let bf16s = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
    _mm512_cvtepu16_epi32(bf16s)
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16,avx512vl")]
unsafe fn store_pair(first: __m512, second: __m512, out: *mut u16) {
    let both = _mm512_or_si512(rounded(first), _mm512_slli_epi32::<16>(rounded(second)));
    _mm512_storeu_si512(out as *mut __m512i, both);
}

#[target_feature(enable = "avx512f,avx512bf16,avx512vl")]
pub unsafe fn round_row(out: &mut [u16], x: &[f32]) {
    let whole = x.len() / WIDTH * WIDTH;
    for i in (0..whole).step_by(WIDTH) {
        let bf16s = _mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr().add(i)));
        let bf16s = std::mem::transmute::<__m256bh, __m256i>(bf16s);
        _mm256_storeu_si256(out.as_mut_ptr().add(i) as *mut __m256i, bf16s);
    }
    for (h, v) in out[whole..].iter_mut().zip(&x[whole..]) {
        *h = super::super::to_bf16(*v);
    }
}

#[target_feature(enable = "avx512f,avx512bf16,avx512vl")]
pub unsafe fn pair_rows(n_pairs: usize, panel: &[f32], pairs: &mut [u16]) {
    for p in 0..n_pairs {
        let first = panel.as_ptr().add(2 * p * COLUMN_TILE);
        for i in (0..COLUMN_TILE).step_by(WIDTH) {
            let (a, b) = (_mm512_loadu_ps(first.add(i)), _mm512_loadu_ps(first.add(COLUMN_TILE + i)));
            store_pair(a, b, pairs.as_mut_ptr().add(2 * (p * COLUMN_TILE + i)));
        }
    }
}

/// Sixteen columns by sixteen pairs at a time: a row's 32 numbers become 16 lanes of a pair each, and the square of
/// lanes is transposed.
#[target_feature(enable = "avx512f,avx512bf16,avx512vl,avx512bw")]
pub unsafe fn transpose_pairs(n_terms: usize, rows: &[f32], pairs: &mut [u16]) {
    for first in (0..n_terms).step_by(2 * WIDTH) {
        let left = n_terms - first;
        let mask = |n: usize| if n >= WIDTH { u16::MAX } else { (1u16 << n) - 1 };
        let (low, high) = (mask(left), mask(left.saturating_sub(WIDTH)));
        for column in (0..COLUMN_TILE).step_by(WIDTH) {
            let mut v = [_mm512_setzero_si512(); WIDTH];
            for (r, v) in v.iter_mut().enumerate() {
                let at = rows.as_ptr().add((column + r) * BLOCK + first);
                let (a, b) = (_mm512_maskz_loadu_ps(low, at), _mm512_maskz_loadu_ps(high, at.add(WIDTH)));
                *v = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a));
            }
            transpose(&mut v);
            for (p, v) in v.iter().enumerate().take(left.div_ceil(2)) {
                let at = (first / 2 + p) * 2 * COLUMN_TILE + 2 * column;
                _mm512_storeu_si512(pairs.as_mut_ptr().add(at) as *mut __m512i, *v);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16,avx512vl,avx512bw,f16c")]
pub unsafe fn transpose_q8_0_pairs(bytes: &[u8], row_bytes: usize, n_terms: usize, pairs: &mut [u16]) {
    for first in (0..n_terms).step_by(2 * WIDTH) {
        let block = first / q8_0::BLOCK * q8_0::BLOCK_BYTES;
        for column in (0..COLUMN_TILE).step_by(WIDTH) {
            let mut v = [_mm512_setzero_si512(); WIDTH];
            for (r, v) in v.iter_mut().enumerate() {
                let at = bytes.as_ptr().add((column + r) * row_bytes + block);
                let scale = scale(at);
                let (a, b) = (codes(at.add(2), scale), codes(at.add(2 + WIDTH), scale));
                *v = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a));
            }
            transpose(&mut v);
            for (p, v) in v.iter().enumerate() {
                let at = (first / 2 + p) * 2 * COLUMN_TILE + 2 * column;
                _mm512_storeu_si512(pairs.as_mut_ptr().add(at) as *mut __m512i, *v);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bf16,avx512vl,f16c")]
pub unsafe fn pack_q8_0_pairs(bytes: &[u8], row_bytes: usize, n_terms: usize, pairs: &mut [u16]) {
    for j in (0..n_terms).step_by(2) {
        let first = bytes.as_ptr().add(j * row_bytes);
        // A missing last row is zero.
        let has_second = j + 1 < n_terms;
        let second = if has_second { first.add(row_bytes) } else { first };
        let mut out = pairs.as_mut_ptr().add(j * COLUMN_TILE);
        for block in 0..COLUMN_TILE / q8_0::BLOCK {
            let at = block * q8_0::BLOCK_BYTES;
            let (a, b) = (first.add(at), second.add(at));
            let (a_scale, b_scale) = (scale(a), if has_second { scale(b) } else { _mm512_setzero_ps() });
            for i in (0..q8_0::BLOCK).step_by(WIDTH) {
                store_pair(codes(a.add(2 + i), a_scale), codes(b.add(2 + i), b_scale), out);
                out = out.add(2 * WIDTH);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,f16c")]
unsafe fn scale(block: *const u8) -> __m512 {
    let half = (block as *const u16).read_unaligned();
    _mm512_broadcastss_ps(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(half))))
}

/// `scale * code` as `q8_0::decode` rounds it.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn codes(p: *const u8, scale: __m512) -> __m512 {
    let codes = _mm512_cvtepi8_epi32(_mm_loadu_si128(p as *const __m128i));
    _mm512_mul_ps(scale, _mm512_cvtepi32_ps(codes))
}

#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn as_bf16(v: __m512i) -> __m512bh {
    // SAFETY:
    // - Both are 64 bytes of plain data.
    std::mem::transmute::<__m512i, __m512bh>(v)
}
