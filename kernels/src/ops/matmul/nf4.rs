//! NF4 weights as exact f32: `level * absmax`, rounded once, in order of k. Integer levels would be faster to multiply but
//! move the logits of a small model by more than 1e-2.
#![allow(unsafe_code)]

use crate::formats::nf4;
use crate::simd::Isa;

/// Decodes whole blocks: `nibbles` (n / 2), `absmax` (n / 64), `out` (n).
pub fn decode(isa: Isa, nibbles: &[u8], absmax: &[f32], out: &mut [f32]) {
    assert!(out.len() == absmax.len() * nf4::BLOCK && nibbles.len() * 2 == out.len());
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        // SAFETY:
        // - This instruction set is only chosen where `Isa::is_available` found it; sizes asserted above.
        return unsafe { avx512::decode(nibbles, absmax, out) };
    }
    if !super::simd::float::decode_nf4(isa, nibbles, absmax, out) {
        nf4::decode(nibbles, absmax, out);
    }
}

/// `out[i] = w[i] . x` without the detour through memory, where an instruction set has it; false when it has not.
/// `nibbles` (N, K / 2), `absmax` (N, K / 64), `x` and `scratch` (K).
pub fn matvec(isa: Isa, nibbles: &[u8], absmax: &[f32], x: &[f32], scratch: &mut [f32], out: &mut [f32]) -> bool {
    assert!(x.len().is_multiple_of(nf4::BLOCK) && nibbles.len() == out.len() * x.len() / 2);
    assert!(absmax.len() == out.len() * x.len() / nf4::BLOCK && scratch.len() == x.len());
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 {
        // SAFETY:
        // - As in `decode`.
        unsafe { avx512::matvec(nibbles, absmax, x, scratch, out) };
        return true;
    }
    let _ = (isa, scratch);
    false
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use crate::formats::nf4;
    use crate::simd::{fold_lanes, LANES};
    use std::arch::x86_64::*;

    /// Rows whose sums run side by side, to hide the latency of the fused product.
    const ROWS: usize = 8;

    /// The table, and what turns eight bytes into sixteen indices: which half of them a lane looks at, and the shift that
    /// brings its nibble down. `vpermps` looks at four bits, so the ones above need no masking.
    struct Tables {
        levels: __m512,
        halves: [__m512i; 4],
        shifts: __m512i,
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn tables() -> Tables {
        // The even element of a pair is the high nibble.
        let shifts: [i32; LANES] = std::array::from_fn(|i| (i as i32 % 8 / 2) * 8 + if i % 2 == 0 { 4 } else { 0 });
        let half = |i: usize| -> [i32; LANES] { std::array::from_fn(|lane| (2 * i + lane / 8) as i32) };
        Tables {
            levels: _mm512_loadu_ps(nf4::LEVELS.as_ptr()),
            halves: std::array::from_fn(|i| _mm512_loadu_si512(half(i).as_ptr() as *const __m512i)),
            shifts: _mm512_loadu_si512(shifts.as_ptr() as *const __m512i),
        }
    }

    /// Sixteen weights without their scale, the `i`-th sixteen of the block whose 32 bytes fill the lower half of `block`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn levels(t: &Tables, block: __m512i, i: usize) -> __m512 {
        let bytes = _mm512_permutexvar_epi32(t.halves[i], block);
        _mm512_permutexvar_ps(_mm512_srlv_epi32(bytes, t.shifts), t.levels)
    }

    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn load_block(p: *const u8) -> __m512i {
        _mm512_castsi256_si512(_mm256_loadu_si256(p as *const __m256i))
    }

    #[target_feature(enable = "avx512f")]
    pub unsafe fn decode(nibbles: &[u8], absmax: &[f32], out: &mut [f32]) {
        let t = tables();
        for (b, scale) in absmax.iter().enumerate() {
            let block = load_block(nibbles.as_ptr().add(b * nf4::BLOCK_BYTES));
            let scale = _mm512_set1_ps(*scale);
            for i in 0..4 {
                let w = _mm512_mul_ps(levels(&t, block, i), scale);
                _mm512_storeu_ps(out.as_mut_ptr().add(b * nf4::BLOCK + i * LANES), w);
            }
        }
    }

    /// Eight bytes in every 64-bit lane leave the sixteen weights interleaved, first half with second half: 0 8 1 9 ... So
    /// `x` is put in that order once, each weight then costs a shift, a look-up and a fused product, and the lanes go back
    /// to their places before they are folded. The table is scaled once a block: the same rounding as scaling each weight.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn matvec(nibbles: &[u8], absmax: &[f32], x: &[f32], mixed: &mut [f32], out: &mut [f32]) {
        let levels = _mm512_loadu_ps(nf4::LEVELS.as_ptr());
        let load_table = |table: [i32; LANES]| _mm512_loadu_si512(table.as_ptr() as *const __m512i);
        let mix = load_table(std::array::from_fn(|i| (i / 2 + i % 2 * 8) as i32));
        let unmix = load_table(std::array::from_fn(|i| (i % 8 * 2 + i / 8) as i32));
        // The even element of a pair is the high nibble.
        let shifts = load_table(std::array::from_fn(|i| (i / 4 * 8 + if i / 2 % 2 == 0 { 4 } else { 0 }) as i32));
        for i in (0..x.len()).step_by(LANES) {
            let v = _mm512_permutexvar_ps(mix, _mm512_loadu_ps(x.as_ptr().add(i)));
            _mm512_storeu_ps(mixed.as_mut_ptr().add(i), v);
        }
        let n_blocks = x.len() / nf4::BLOCK;
        let n = out.len();
        for first in (0..n).step_by(ROWS) {
            // Fewer rows than ROWS are computed again and dropped.
            let row: [usize; ROWS] = std::array::from_fn(|r| (first + r).min(n - 1) * n_blocks);
            // The rows after these are read in order while these are computed, so DRAM sees one stream.
            let next = nibbles.as_ptr().wrapping_add((first + ROWS) * n_blocks * nf4::BLOCK_BYTES);
            let rows_left = n.saturating_sub(first + ROWS).min(ROWS);
            let lines = (rows_left * nf4::BLOCK_BYTES).div_ceil(64);
            let mut acc = [_mm512_setzero_ps(); ROWS];
            for b in 0..n_blocks {
                for line in 0..lines {
                    _mm_prefetch::<_MM_HINT_T0>(next.wrapping_add((b * lines + line) * 64) as *const i8);
                }
                let xs: [__m512; 4] =
                    std::array::from_fn(|i| _mm512_loadu_ps(mixed.as_ptr().add(b * nf4::BLOCK + i * LANES)));
                for (r, acc) in acc.iter_mut().enumerate() {
                    let p = nibbles.as_ptr().add((row[r] + b) * nf4::BLOCK_BYTES) as *const i64;
                    let table = _mm512_mul_ps(levels, _mm512_set1_ps(*absmax.as_ptr().add(row[r] + b)));
                    for (i, x) in xs.iter().enumerate() {
                        let bytes = _mm512_set1_epi64(p.add(i).read_unaligned());
                        let w = _mm512_permutexvar_ps(_mm512_srlv_epi32(bytes, shifts), table);
                        *acc = _mm512_fmadd_ps(w, *x, *acc);
                    }
                }
            }
            for (y, a) in out[first..].iter_mut().zip(acc) {
                let mut lanes = [0.0f32; LANES];
                _mm512_storeu_ps(lanes.as_mut_ptr(), _mm512_permutexvar_ps(unmix, a));
                *y = fold_lanes(lanes);
            }
        }
    }
}
