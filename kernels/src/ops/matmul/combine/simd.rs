//! Tiles of a combination: up to six rows of `out` by one strip of columns, sums in registers through a whole block.
#![allow(unsafe_code)]

use super::{Coefficients, BLOCK, STRIP};
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

/// The same for `n_pairs` pairs of bf16: `halves` (n, BLOCK), `pairs` (n_pairs, STRIP, 2).
pub(super) fn tile_bf16(n: usize, n_pairs: usize, halves: &[u16], pairs: &[u16], sums: &mut [f32]) {
    assert!((1..=ROWS).contains(&n) && (1..=BLOCK / 2).contains(&n_pairs));
    assert!(halves.len() == n * BLOCK && pairs.len() >= n_pairs * 2 * STRIP && sums.len() >= n * STRIP);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        match n {
            1 => bf16::tile::<1>(n_pairs, halves, pairs, sums),
            2 => bf16::tile::<2>(n_pairs, halves, pairs, sums),
            3 => bf16::tile::<3>(n_pairs, halves, pairs, sums),
            4 => bf16::tile::<4>(n_pairs, halves, pairs, sums),
            5 => bf16::tile::<5>(n_pairs, halves, pairs, sums),
            _ => bf16::tile::<ROWS>(n_pairs, halves, pairs, sums),
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
    use std::arch::x86_64::{
        __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    const WIDTH: usize = 16;
    const REGS: usize = STRIP / WIDTH;

    /// Thirty-two products an instruction: of each pair the second is added first.
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub unsafe fn tile<const N: usize>(n_pairs: usize, halves: &[u16], pairs: &[u16], sums: &mut [f32]) {
        let factors: [*const i32; N] = std::array::from_fn(|i| halves.as_ptr().add(i * BLOCK) as *const i32);
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

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn as_halves(v: __m512i) -> __m512bh {
        // SAFETY:
        // - Both are 64 bytes of plain data.
        std::mem::transmute::<__m512i, __m512bh>(v)
    }
}
