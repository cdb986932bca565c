//! Tiles of a GEMM: up to six rows of `out` by one column tile, sums in registers through a whole block.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod bf16;

use super::{Coefficients, Size, BLOCK, COLUMN_TILE};
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

/// `sums[i, k] = sum over j of a(i, j) * panel[j, k]` for the rows and terms of `size`, fused in order of j. Of the columns
/// only as many are computed as fill the registers that hold the first of them.
pub(super) fn tile(isa: Isa, size: Size, a: Coefficients<'_>, panel: &[f32], sums: &mut [f32]) {
    let Size { rows: n, terms: n_terms, columns: n_columns } = size;
    assert!((1..=ROWS).contains(&n) && (1..=BLOCK).contains(&n_terms) && n_columns <= COLUMN_TILE);
    assert!(panel.len() >= n_terms * COLUMN_TILE && sums.len() >= n * COLUMN_TILE);
    assert!(a.data.len() > (n - 1) * a.row_stride + (n_terms - 1) * a.column_stride);
    // SAFETY:
    // - An instruction set is only chosen where `Isa::is_available` found it.
    // - Coefficients, panel and sums hold what the tile touches: asserted above.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::tile(size, a, panel, sums),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::tile(size, a, panel, sums),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => neon::tile(size, a, panel, sums),
            _ => plain(n, n_terms, a, panel, sums),
        }
    }
}

/// The scalar oracle.
fn plain(n: usize, n_terms: usize, a: Coefficients<'_>, panel: &[f32], sums: &mut [f32]) {
    for (i, sums) in sums.chunks_exact_mut(COLUMN_TILE).take(n).enumerate() {
        sums.fill(0.0);
        for (j, row) in panel.chunks_exact(COLUMN_TILE).take(n_terms).enumerate() {
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

/// Rows `2 p` and `2 p + 1` of a panel of `n_terms` rows as bf16, interleaved: (pairs, COLUMN_TILE, 2). A missing last row
/// is zero.
pub(super) fn pair_rows(n_terms: usize, panel: &mut [f32], pairs: &mut [u16]) {
    let n_pairs = n_terms.div_ceil(2);
    // What an earlier block left behind the last row.
    panel[n_terms * COLUMN_TILE..2 * n_pairs * COLUMN_TILE].fill(0.0);
    assert!(pairs.len() >= n_pairs * 2 * COLUMN_TILE);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        bf16::pair_rows(n_pairs, panel, pairs)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here");
}

/// The same straight from Q8_0: `bytes` begins at the first block of the column tile in the first of `n_terms` rows.
pub(super) fn pack_q8_0_pairs(bytes: &[u8], row_bytes: usize, n_terms: usize, pairs: &mut [u16]) {
    let strip_bytes = COLUMN_TILE / q8_0::BLOCK * q8_0::BLOCK_BYTES;
    assert!(n_terms > 0 && bytes.len() >= (n_terms - 1) * row_bytes + strip_bytes);
    assert!(pairs.len() >= n_terms.div_ceil(2) * 2 * COLUMN_TILE);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        bf16::pack_q8_0_pairs(bytes, row_bytes, n_terms, pairs)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here");
}

/// Columns of a column tile, `rows` (COLUMN_TILE, BLOCK) of which `n_terms` are filled, as pairs of bf16 (pairs,
/// COLUMN_TILE, 2). What is missing of the last pair is zero.
pub(super) fn transpose_pairs(n_terms: usize, rows: &[f32], pairs: &mut [u16]) {
    assert!(rows.len() >= COLUMN_TILE * BLOCK && n_terms <= BLOCK && pairs.len() >= BLOCK * COLUMN_TILE);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        bf16::transpose_pairs(n_terms, rows, pairs)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here");
}

/// The same straight from Q8_0: `bytes` begins at the first block of the block of terms in the column tile's first column.
pub(super) fn transpose_q8_0_pairs(bytes: &[u8], row_bytes: usize, n_terms: usize, pairs: &mut [u16]) {
    assert!(n_terms.is_multiple_of(q8_0::BLOCK) && n_terms <= BLOCK && pairs.len() >= BLOCK * COLUMN_TILE);
    assert!(bytes.len() >= (COLUMN_TILE - 1) * row_bytes + n_terms / q8_0::BLOCK * q8_0::BLOCK_BYTES);
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        bf16::transpose_q8_0_pairs(bytes, row_bytes, n_terms, pairs)
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here");
}

/// What a tile of pairs multiplies.
pub(super) struct Factors<'a> {
    /// (n, width), of which the first 2 * n_pairs are used.
    pub bf16s: &'a [u16],
    pub width: usize,
    /// (n_pairs, COLUMN_TILE, 2).
    pub pairs: &'a [u16],
    pub n_pairs: usize,
}

/// The same for pairs of bf16, added to whole column tiles of `out` or put there.
pub(super) fn tile_bf16(f: &Factors<'_>, out: &mut [&mut [f32]], replace: bool) {
    let n = out.len();
    assert!((1..=ROWS).contains(&n) && (1..=BLOCK / 2).contains(&f.n_pairs));
    assert!(f.bf16s.len() >= (n - 1) * f.width + 2 * f.n_pairs && f.width.is_multiple_of(2));
    assert!(f.pairs.len() >= f.n_pairs * 2 * COLUMN_TILE && out.iter().all(|row| row.len() == COLUMN_TILE));
    #[cfg(target_arch = "x86_64")]
    // SAFETY:
    // - Only called where `has_bf16` found the instruction; sizes asserted above.
    unsafe {
        match n {
            1 => bf16::tile::<1>(f, out, replace),
            2 => bf16::tile::<2>(f, out, replace),
            3 => bf16::tile::<3>(f, out, replace),
            4 => bf16::tile::<4>(f, out, replace),
            5 => bf16::tile::<5>(f, out, replace),
            _ => bf16::tile::<ROWS>(f, out, replace),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    unreachable!("no instruction for pairs of bf16 here (replace: {replace})");
}

/// Defines `tile` from what the module around it gives: registers of `WIDTH` lanes, `load`, `store`, `splat`, `fma` on them,
/// and `REGS`, how many of them a row of the tile takes at a time.
macro_rules! tiles {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub unsafe fn tile(size: Size, a: Coefficients<'_>, panel: &[f32], sums: &mut [f32]) {
            let Size { rows: n, terms: n_terms, columns: n_columns } = size;
            if n_columns <= WIDTH {
                // A gradient of low rank: one register a row.
                return by_rows::<1>(n, n_terms, WIDTH, a, panel, sums);
            }
            by_rows::<REGS>(n, n_terms, n_columns, a, panel, sums)
        }

        #[target_feature(enable = $features)]
        unsafe fn by_rows<const REGS: usize>(
            n: usize,
            n_terms: usize,
            n_columns: usize,
            a: Coefficients<'_>,
            panel: &[f32],
            sums: &mut [f32],
        ) {
            match n {
                1 => rows::<1, REGS>(n_terms, n_columns, a, panel, sums),
                2 => rows::<2, REGS>(n_terms, n_columns, a, panel, sums),
                3 => rows::<3, REGS>(n_terms, n_columns, a, panel, sums),
                4 => rows::<4, REGS>(n_terms, n_columns, a, panel, sums),
                5 => rows::<5, REGS>(n_terms, n_columns, a, panel, sums),
                _ => rows::<ROWS, REGS>(n_terms, n_columns, a, panel, sums),
            }
        }

        #[target_feature(enable = $features)]
        unsafe fn rows<const N: usize, const REGS: usize>(
            n_terms: usize,
            n_columns: usize,
            a: Coefficients<'_>,
            panel: &[f32],
            sums: &mut [f32],
        ) {
            let factors: [*const f32; N] = std::array::from_fn(|i| a.data.as_ptr().add(i * a.row_stride));
            for first in (0..n_columns).step_by(REGS * WIDTH) {
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
                    b = b.wrapping_add(COLUMN_TILE);
                }
                for (i, acc) in acc.iter().enumerate() {
                    for (r, acc) in acc.iter().enumerate() {
                        store(sums.as_mut_ptr().add(i * COLUMN_TILE + first + r * WIDTH), *acc);
                    }
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Coefficients, Size, COLUMN_TILE, ROWS};
    use std::arch::x86_64::{
        _mm512_fmadd_ps as fma, _mm512_loadu_ps as load, _mm512_set1_ps as splat, _mm512_storeu_ps as store,
    };

    const WIDTH: usize = 16;
    const REGS: usize = 4;

    tiles!("avx512f");
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Coefficients, Size, COLUMN_TILE, ROWS};
    use std::arch::x86_64::{
        _mm256_fmadd_ps as fma, _mm256_loadu_ps as load, _mm256_set1_ps as splat, _mm256_storeu_ps as store,
    };

    const WIDTH: usize = 8;
    const REGS: usize = 2;

    tiles!("avx2,fma");
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{Coefficients, Size, COLUMN_TILE, ROWS};
    use std::arch::aarch64::{float32x4_t, vdupq_n_f32 as splat, vfmaq_f32, vld1q_f32 as load, vst1q_f32 as store};

    const WIDTH: usize = 4;
    const REGS: usize = 4;

    #[inline(always)]
    unsafe fn fma(a: float32x4_t, b: float32x4_t, sum: float32x4_t) -> float32x4_t {
        vfmaq_f32(sum, a, b)
    }

    tiles!("neon");
}
