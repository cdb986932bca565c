//! Sixteen-lane dot products in tiles, and NF4 blocks as f32, on AVX2 and NEON.
//!
//! Lanes never meet before the end of a row, so a tile may take the lanes of one register through all of K and then the
//! next ones: more rows fit the registers, each load serves more products, and no bit changes.
#![allow(unsafe_code)]

use crate::formats::nf4;
use crate::simd::{Isa, LANES};

/// `sums[t, n] = w[n] . x[t]` for `w` (N, K) and `x` (T, K); false where there is no kernel for it.
pub fn products(isa: Isa, cols: usize, w: &[f32], x: &[f32], sums: &mut [f32]) -> bool {
    if !cols.is_multiple_of(LANES) {
        return false;
    }
    assert!(w.len().is_multiple_of(cols) && x.len().is_multiple_of(cols));
    assert_eq!(sums.len(), w.len() / cols * (x.len() / cols));
    // SAFETY:
    // - An instruction set is only chosen where `Isa::is_available` found it.
    // - All three hold whole rows, and rows whole groups of sixteen: checked above.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::products(cols, w, x, sums),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => neon::products(cols, w, x, sums),
            _ => return false,
        }
    }
    true
}

/// `nf4::decode` of whole blocks; false where there is no kernel for it.
pub fn decode_nf4(isa: Isa, nibbles: &[u8], absmax: &[f32], out: &mut [f32]) -> bool {
    assert!(out.len() == absmax.len() * nf4::BLOCK && nibbles.len() * 2 == out.len());
    // SAFETY:
    // - As in `products`; sizes asserted above.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::decode_nf4(nibbles, absmax, out),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon | Isa::NeonDot => neon::decode_nf4(nibbles, absmax, out),
            _ => return false,
        }
    }
    true
}

/// Rows of weights in a tile.
const N: usize = 4;

/// Defines `products` from what the module around it gives: a register type `V` of `WIDTH` lanes, `load`, `store`,
/// `splat`, `fma` on it, and `T`, the rows of `x` in a tile.
macro_rules! products {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub unsafe fn products(cols: usize, w: &[f32], x: &[f32], sums: &mut [f32]) {
            let (n, t) = (w.len() / cols, x.len() / cols);
            for first in (0..n).step_by(N) {
                // Rows past the last are the last again, and their sums dropped.
                let w: [*const f32; N] = std::array::from_fn(|i| w.as_ptr().add((first + i).min(n - 1) * cols));
                let width = N.min(n - first);
                if t == 1 {
                    // One row of `x` leaves room for all sixteen lanes of four rows of weights.
                    let tile = tile::<1, { LANES / WIDTH }>(cols, &w, &[x.as_ptr()]);
                    sums[first..first + width].copy_from_slice(&tile[0][..width]);
                    continue;
                }
                for row in (0..t).step_by(T) {
                    let x: [*const f32; T] = std::array::from_fn(|j| x.as_ptr().add((row + j).min(t - 1) * cols));
                    let tile = tile::<T, 1>(cols, &w, &x);
                    for (j, tile) in tile.iter().enumerate().take(t - row) {
                        sums[(row + j) * n + first..][..width].copy_from_slice(&tile[..width]);
                    }
                }
            }
        }

        /// `N` rows of weights by `ROWS` of `x`, `REGS` registers of lanes at a time. Kept a function of its own: inlined,
        /// the row addresses were computed again for every load.
        #[inline(never)]
        #[target_feature(enable = $features)]
        unsafe fn tile<const ROWS: usize, const REGS: usize>(
            cols: usize,
            w: &[*const f32; N],
            x: &[*const f32; ROWS],
        ) -> [[f32; N]; ROWS] {
            let (w, x) = (*w, *x);
            let mut lanes = [[[0.0f32; LANES]; ROWS]; N];
            for first in (0..LANES).step_by(REGS * WIDTH) {
                let mut acc = [[[splat(0.0); REGS]; ROWS]; N];
                for k in (first..cols).step_by(LANES) {
                    for r in 0..REGS {
                        let mut xs = [splat(0.0); ROWS];
                        for (v, x) in xs.iter_mut().zip(x) {
                            *v = load(x.add(k + r * WIDTH));
                        }
                        for (acc, w) in acc.iter_mut().zip(w) {
                            let w = load(w.add(k + r * WIDTH));
                            for (acc, x) in acc.iter_mut().zip(xs) {
                                acc[r] = fma(w, x, acc[r]);
                            }
                        }
                    }
                }
                for (lanes, acc) in lanes.iter_mut().flatten().zip(acc.iter().flatten()) {
                    for (r, acc) in acc.iter().enumerate() {
                        store(lanes.as_mut_ptr().add(first + r * WIDTH), *acc);
                    }
                }
            }
            std::array::from_fn(|j| std::array::from_fn(|i| fold_lanes(lanes[i][j])))
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::N;
    use crate::formats::nf4;
    use crate::simd::{fold_lanes, LANES};
    use std::arch::x86_64::{
        __m256i, _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_fmadd_ps as fma, _mm256_loadu_ps as load,
        _mm256_loadu_si256, _mm256_mul_ps, _mm256_permutevar8x32_ps, _mm256_set1_epi32, _mm256_set1_ps as splat,
        _mm256_slli_epi32, _mm256_srlv_epi32, _mm256_storeu_ps as store,
    };

    const WIDTH: usize = 8;
    /// 4 x 2 accumulators, two registers of `x` and four of weights: with three rows the compiler spills.
    const T: usize = 2;

    products!("avx2,fma");

    /// Eight weights from four bytes: `vpermps` looks at three bits of an index, so there is one table for each value of
    /// the fourth, and `vblendvps` chooses by it.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn decode_nf4(nibbles: &[u8], absmax: &[f32], out: &mut [f32]) {
        let (low, high) = (load(nf4::LEVELS.as_ptr()), load(nf4::LEVELS.as_ptr().add(WIDTH)));
        // The even element of a pair is the high nibble.
        let shifts = _mm256_loadu_si256([4, 0, 12, 8, 20, 16, 28, 24].as_ptr() as *const __m256i);
        for (b, scale) in absmax.iter().enumerate() {
            let scale = splat(*scale);
            for i in 0..nf4::BLOCK / WIDTH {
                let bytes = nibbles.as_ptr().add(b * nf4::BLOCK_BYTES + i * 4) as *const i32;
                let index = _mm256_srlv_epi32(_mm256_set1_epi32(bytes.read_unaligned()), shifts);
                let fourth_bit = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index));
                let level = _mm256_blendv_ps(
                    _mm256_permutevar8x32_ps(low, index),
                    _mm256_permutevar8x32_ps(high, index),
                    fourth_bit,
                );
                store(out.as_mut_ptr().add(b * nf4::BLOCK + i * WIDTH), _mm256_mul_ps(level, scale));
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::N;
    use crate::formats::nf4;
    use crate::simd::{fold_lanes, LANES};
    use std::arch::aarch64::{
        float32x4_t as V, uint8x16_t, vandq_u8, vdupq_n_f32 as splat, vdupq_n_u8, vfmaq_f32, vld1q_f32 as load,
        vld1q_u8, vmulq_n_f32, vqtbl1q_u8, vreinterpretq_f32_u16, vreinterpretq_u16_u8, vshrq_n_u8, vst1q_f32 as store,
        vzip1q_u16, vzip1q_u8, vzip2q_u16, vzip2q_u8,
    };

    const WIDTH: usize = 4;
    /// 4 x 3 accumulators, three registers of `x` and four of weights: twelve `fmla` for seven loads.
    const T: usize = 3;

    #[inline(always)]
    unsafe fn fma(a: V, b: V, sum: V) -> V {
        vfmaq_f32(sum, a, b)
    }

    products!("neon");

    /// Sixteen weights at a time: one table look-up for each of an f32's four bytes, which are then zipped together.
    pub unsafe fn decode_nf4(nibbles: &[u8], absmax: &[f32], out: &mut [f32]) {
        let table = |byte: usize| {
            let bytes: [u8; 16] = std::array::from_fn(|i| nf4::LEVELS[i].to_le_bytes()[byte]);
            vld1q_u8(bytes.as_ptr())
        };
        let tables = [table(0), table(1), table(2), table(3)];
        for (b, scale) in absmax.iter().enumerate() {
            for half in 0..2 {
                let bytes = vld1q_u8(nibbles.as_ptr().add(b * nf4::BLOCK_BYTES + half * 16));
                // The even element of a pair is the high nibble.
                let (even, odd) = (vshrq_n_u8::<4>(bytes), vandq_u8(bytes, vdupq_n_u8(15)));
                for (i, indices) in [vzip1q_u8(even, odd), vzip2q_u8(even, odd)].into_iter().enumerate() {
                    for (j, level) in look_up(tables, indices).into_iter().enumerate() {
                        let at = b * nf4::BLOCK + half * 32 + i * 16 + j * WIDTH;
                        store(out.as_mut_ptr().add(at), vmulq_n_f32(level, *scale));
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn look_up(tables: [uint8x16_t; 4], indices: uint8x16_t) -> [V; 4] {
        let [a, b, c, d] = tables.map(|table| vqtbl1q_u8(table, indices));
        let words = |v| vreinterpretq_u16_u8(v);
        let (low0, low1) = (words(vzip1q_u8(a, b)), words(vzip2q_u8(a, b)));
        let (high0, high1) = (words(vzip1q_u8(c, d)), words(vzip2q_u8(c, d)));
        [
            vreinterpretq_f32_u16(vzip1q_u16(low0, high0)),
            vreinterpretq_f32_u16(vzip2q_u16(low0, high0)),
            vreinterpretq_f32_u16(vzip1q_u16(low1, high1)),
            vreinterpretq_f32_u16(vzip2q_u16(low1, high1)),
        ]
    }
}
