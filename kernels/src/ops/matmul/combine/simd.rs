//! Tiles of a combination: up to six rows of `out` by one strip of columns, sums in registers through a whole block.
#![allow(unsafe_code)]

use super::{Coefficients, BLOCK, STRIP};
use crate::formats::q8_0;
use crate::simd::Isa;

/// Rows of `out` in a tile: 6 x 4 sums of sixteen lanes leave registers for four of `b` and a coefficient.
pub(super) const ROWS: usize = 6;

/// True when this machine multiplies pairs of bf16.
pub(super) fn has_bf16(isa: Isa) -> bool {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        return is_x86_feature_detected!("avx512bf16");
    }
    let _ = isa;
    false
}

/// `sums[i, k] = sum over j < n_terms of a(i, j) * panel[j, k]` for `n` rows, fused in order of j.
pub(super) fn tile(isa: Isa, n: usize, n_terms: usize, a: Coefficients<'_>, panel: &[f32], sums: &mut [f32]) {
    assert!((1..=ROWS).contains(&n) && (1..=BLOCK).contains(&n_terms));
    assert!(panel.len() >= n_terms * STRIP && sums.len() >= n * STRIP);
    assert!(a.data.len() > (n - 1) * a.row_stride + (n_terms - 1) * a.column_stride);
    // SAFETY:
    // - An instruction set is only chosen where `Isa::is_available` found it.
    // - Coefficients, panel and sums hold what the tile touches: asserted above.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::tile(n, n_terms, a, panel, sums),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::tile(n, n_terms, a, panel, sums),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => neon::tile(n, n_terms, a, panel, sums),
            _ => plain(n, n_terms, a, panel, sums),
        }
    }
}

/// The scalar oracle.
fn plain(n: usize, n_terms: usize, a: Coefficients<'_>, panel: &[f32], sums: &mut [f32]) {
    for (i, sums) in sums.chunks_exact_mut(STRIP).take(n).enumerate() {
        sums.fill(0.0);
        for (j, row) in panel.chunks_exact(STRIP).take(n_terms).enumerate() {
            let factor = a.data[i * a.row_stride + j * a.column_stride];
            for (s, v) in sums.iter_mut().zip(row) {
                *s = factor.mul_add(*v, *s);
            }
        }
    }
}

/// `out` as bf16.
pub(super) fn round_row(isa: Isa, out: &mut [u16], x: &[f32]) {
    assert_eq!(out.len(), x.len());
    #[cfg(target_arch = "x86_64")]
    if has_bf16(isa) {
        // SAFETY:
        // - `has_bf16` found the instruction; lengths are equal.
        return unsafe { bf16::round_row(out, x) };
    }
    let _ = isa;
    out.iter_mut().zip(x).for_each(|(h, v)| *h = super::to_bf16(*v));
}

/// Rows `2 p` and `2 p + 1` of a panel of `n_terms` rows as bf16, interleaved: (pairs, STRIP, 2). A missing last row is zero.
pub(super) fn pair_rows(n_terms: usize, panel: &mut [f32], pairs: &mut [u16]) {
    let n_pairs = n_terms.div_ceil(2);
    // What an earlier block left behind the last row.
    panel[n_terms * STRIP..2 * n_pairs * STRIP].fill(0.0);
    assert!(pairs.len() >= n_pairs * 2 * STRIP);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        bf16::pair_rows(n_pairs, panel, pairs)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here");
}

/// The same straight from Q8_0: `bytes` begins at the first block of the strip in the first of `n_terms` rows.
pub(super) fn pack_q8_0_pairs(bytes: &[u8], row_bytes: usize, n_terms: usize, pairs: &mut [u16]) {
    let strip_bytes = STRIP / q8_0::BLOCK * q8_0::BLOCK_BYTES;
    assert!(n_terms > 0 && bytes.len() >= (n_terms - 1) * row_bytes + strip_bytes);
    assert!(pairs.len() >= n_terms.div_ceil(2) * 2 * STRIP);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        bf16::pack_q8_0_pairs(bytes, row_bytes, n_terms, pairs)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here");
}

/// Columns of a strip, `rows` (STRIP, BLOCK) of which `n_terms` are filled, as pairs of bf16 (pairs, STRIP, 2). What is
/// missing of the last pair is zero.
pub(super) fn transpose_pairs(n_terms: usize, rows: &[f32], pairs: &mut [u16]) {
    assert!(rows.len() >= STRIP * BLOCK && n_terms <= BLOCK && pairs.len() >= BLOCK * STRIP);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        bf16::transpose_pairs(n_terms, rows, pairs)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here");
}

/// The same straight from Q8_0: `bytes` begins at the first block of the block of terms in the strip's first column.
pub(super) fn transpose_q8_0_pairs(bytes: &[u8], row_bytes: usize, n_terms: usize, pairs: &mut [u16]) {
    assert!(n_terms.is_multiple_of(q8_0::BLOCK) && n_terms <= BLOCK && pairs.len() >= BLOCK * STRIP);
    assert!(bytes.len() >= (STRIP - 1) * row_bytes + n_terms / q8_0::BLOCK * q8_0::BLOCK_BYTES);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        bf16::transpose_q8_0_pairs(bytes, row_bytes, n_terms, pairs)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here");
}

/// The same tile for `n_pairs` pairs of bf16: `halves` (n, `width`) of which the first are used, `pairs` (n_pairs, STRIP, 2).
pub(super) fn tile_bf16(n: usize, n_pairs: usize, halves: &[u16], width: usize, pairs: &[u16], sums: &mut [f32]) {
    assert!((1..=ROWS).contains(&n) && (1..=BLOCK / 2).contains(&n_pairs));
    assert!(halves.len() >= (n - 1) * width + 2 * n_pairs && width.is_multiple_of(2));
    assert!(pairs.len() >= n_pairs * 2 * STRIP && sums.len() >= n * STRIP);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        match n {
            1 => bf16::tile::<1>(n_pairs, halves, width, pairs, sums),
            2 => bf16::tile::<2>(n_pairs, halves, width, pairs, sums),
            3 => bf16::tile::<3>(n_pairs, halves, width, pairs, sums),
            4 => bf16::tile::<4>(n_pairs, halves, width, pairs, sums),
            5 => bf16::tile::<5>(n_pairs, halves, width, pairs, sums),
            _ => bf16::tile::<ROWS>(n_pairs, halves, width, pairs, sums),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here");
}

/// Defines `tile` from what the module around it gives: registers of `WIDTH` lanes, `load`, `store`, `splat`, `fma` on them,
/// and `REGS`, how many of them a row of the tile takes at a time.
macro_rules! tiles {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub unsafe fn tile(n: usize, n_terms: usize, a: Coefficients<'_>, panel: &[f32], sums: &mut [f32]) {
            match n {
                1 => rows::<1>(n_terms, a, panel, sums),
                2 => rows::<2>(n_terms, a, panel, sums),
                3 => rows::<3>(n_terms, a, panel, sums),
                4 => rows::<4>(n_terms, a, panel, sums),
                5 => rows::<5>(n_terms, a, panel, sums),
                _ => rows::<ROWS>(n_terms, a, panel, sums),
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn rows<const N: usize>(n_terms: usize, a: Coefficients<'_>, panel: &[f32], sums: &mut [f32]) {
            let factors: [*const f32; N] = std::array::from_fn(|i| a.data.as_ptr().add(i * a.row_stride));
            for first in (0..STRIP).step_by(REGS * WIDTH) {
                let mut acc = [[splat(0.0); REGS]; N];
                let mut b = panel.as_ptr().add(first);
                for j in 0..n_terms {
                    let mut row = [splat(0.0); REGS];
                    for (r, v) in row.iter_mut().enumerate() {
                        *v = load(b.add(r * WIDTH));
                    }
                    for (acc, factor) in acc.iter_mut().zip(factors) {
                        let factor = splat(*factor.add(j * a.column_stride));
                        for (acc, v) in acc.iter_mut().zip(row) {
                            *acc = fma(factor, v, *acc);
                        }
                    }
                    b = b.wrapping_add(STRIP);
                }
                for (i, acc) in acc.iter().enumerate() {
                    for (r, acc) in acc.iter().enumerate() {
                        store(sums.as_mut_ptr().add(i * STRIP + first + r * WIDTH), *acc);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Coefficients, ROWS, STRIP};
    use std::arch::x86_64::{
        _mm512_fmadd_ps as fma, _mm512_loadu_ps as load, _mm512_set1_ps as splat, _mm512_storeu_ps as store,
    };

    const WIDTH: usize = 16;
    const REGS: usize = 4;

    tiles!("avx512f");
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Coefficients, ROWS, STRIP};
    use std::arch::x86_64::{
        _mm256_fmadd_ps as fma, _mm256_loadu_ps as load, _mm256_set1_ps as splat, _mm256_storeu_ps as store,
    };

    const WIDTH: usize = 8;
    const REGS: usize = 2;

    tiles!("avx2,fma");
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{Coefficients, ROWS, STRIP};
    use std::arch::aarch64::{float32x4_t, vdupq_n_f32 as splat, vfmaq_f32, vld1q_f32 as load, vst1q_f32 as store};

    const WIDTH: usize = 4;
    const REGS: usize = 4;

    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, sum: float32x4_t) -> float32x4_t {
        vfmaq_f32(sum, a, b)
    }

    tiles!("neon");
}

#[cfg(target_arch = "x86_64")]
mod bf16 {
    use super::{BLOCK, STRIP};
    use crate::formats::q8_0;
    use crate::ops::matmul::simd::transpose;
    use std::arch::x86_64::*;

    const WIDTH: usize = 16;
    const REGS: usize = STRIP / WIDTH;

    /// Thirty-two products an instruction: of each pair the second is added first.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn tile<const N: usize>(n_pairs: usize, halves: &[u16], width: usize, pairs: &[u16], sums: &mut [f32]) {
        let factors: [*const i32; N] = std::array::from_fn(|i| halves.as_ptr().add(i * width) as *const i32);
        let mut acc = [[_mm512_setzero_ps(); REGS]; N];
        let mut b = pairs.as_ptr() as *const __m512i;
        for p in 0..n_pairs {
            let row: [__m512i; REGS] = std::array::from_fn(|r| _mm512_loadu_si512(b.add(r)));
            for (acc, factor) in acc.iter_mut().zip(factors) {
                let factor = as_halves(_mm512_set1_epi32(factor.add(p).read_unaligned()));
                for (acc, v) in acc.iter_mut().zip(row) {
                    *acc = _mm512_dpbf16_ps(*acc, factor, as_halves(v));
                }
            }
            b = b.wrapping_add(REGS);
        }
        for (i, acc) in acc.iter().enumerate() {
            for (r, acc) in acc.iter().enumerate() {
                _mm512_storeu_ps(sums.as_mut_ptr().add(i * STRIP + r * WIDTH), *acc);
            }
        }
    }

    /// Sixteen bf16 as the low halves of 32-bit lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16,avx512vl")]
    unsafe fn rounded(v: __m512) -> __m512i {
        let halves = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
        _mm512_cvtepu16_epi32(halves)
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
            let halves = _mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr().add(i)));
            let halves = std::mem::transmute::<__m256bh, __m256i>(halves);
            _mm256_storeu_si256(out.as_mut_ptr().add(i) as *mut __m256i, halves);
        }
        for (h, v) in out[whole..].iter_mut().zip(&x[whole..]) {
            *h = super::super::to_bf16(*v);
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16,avx512vl")]
    pub unsafe fn pair_rows(n_pairs: usize, panel: &[f32], pairs: &mut [u16]) {
        for p in 0..n_pairs {
            let first = panel.as_ptr().add(2 * p * STRIP);
            for i in (0..STRIP).step_by(WIDTH) {
                let (a, b) = (_mm512_loadu_ps(first.add(i)), _mm512_loadu_ps(first.add(STRIP + i)));
                store_pair(a, b, pairs.as_mut_ptr().add(2 * (p * STRIP + i)));
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
            for column in (0..STRIP).step_by(WIDTH) {
                let mut v = [_mm512_setzero_si512(); WIDTH];
                for (r, v) in v.iter_mut().enumerate() {
                    let at = rows.as_ptr().add((column + r) * BLOCK + first);
                    let (a, b) = (_mm512_maskz_loadu_ps(low, at), _mm512_maskz_loadu_ps(high, at.add(WIDTH)));
                    *v = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a));
                }
                transpose(&mut v);
                for (p, v) in v.iter().enumerate().take(left.div_ceil(2)) {
                    let at = (first / 2 + p) * 2 * STRIP + 2 * column;
                    _mm512_storeu_si512(pairs.as_mut_ptr().add(at) as *mut __m512i, *v);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bf16,avx512vl,avx512bw,f16c")]
    pub unsafe fn transpose_q8_0_pairs(bytes: &[u8], row_bytes: usize, n_terms: usize, pairs: &mut [u16]) {
        for first in (0..n_terms).step_by(2 * WIDTH) {
            let block = first / q8_0::BLOCK * q8_0::BLOCK_BYTES;
            for column in (0..STRIP).step_by(WIDTH) {
                let mut v = [_mm512_setzero_si512(); WIDTH];
                for (r, v) in v.iter_mut().enumerate() {
                    let at = bytes.as_ptr().add((column + r) * row_bytes + block);
                    let scale = scale(at);
                    let (a, b) = (codes(at.add(2), scale), codes(at.add(2 + WIDTH), scale));
                    *v = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a));
                }
                transpose(&mut v);
                for (p, v) in v.iter().enumerate() {
                    let at = (first / 2 + p) * 2 * STRIP + 2 * column;
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
            let mut out = pairs.as_mut_ptr().add(j * STRIP);
            for block in 0..STRIP / q8_0::BLOCK {
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
    unsafe fn as_halves(v: __m512i) -> __m512bh {
        // SAFETY:
        // - Both are 64 bytes of plain data.
        std::mem::transmute::<__m512i, __m512bh>(v)
    }
}
