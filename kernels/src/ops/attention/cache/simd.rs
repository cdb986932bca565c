//! The two inner loops: scores against rows of keys, and the weighted sum of rows of values.
#![allow(unsafe_code)]

use super::kv_store::KvRows;
use crate::simd::{fold_lanes, half_to_float, per_isa, Isa, LANES};

/// `out[j] = q . key[j]`, sixteen lanes.
pub fn scores(isa: Isa, q: &[f32], keys: KvRows<'_>, out: &mut [f32]) {
    match keys {
        KvRows::F16(rows) => {
            assert_eq!(rows.len(), q.len() * out.len());
            // SAFETY:
            // - An instruction set is only chosen where `Isa::is_available` found it.
            // - `rows` holds a row as long as `q` for each of `out`: asserted above; q is whole registers: in the guard.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 if q.len().is_multiple_of(LANES) => avx512::scores(q, rows, out),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 if q.len().is_multiple_of(LANES) => avx2::scores(q, rows, out),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon | Isa::NeonDot if q.len().is_multiple_of(LANES) => neon::scores(q, rows, out),
                    _ => scores_f16(isa, q, rows, out),
                }
            }
        }
        KvRows::F32(rows) => scores_f32(isa, q, rows, out),
        KvRows::I8(codes, scales) => scores_i8(isa, q, codes, scales, out),
    }
}

/// `out += sum over j of p[j] * value[j]`, key by key.
pub fn accumulate(isa: Isa, p: &[f32], values: KvRows<'_>, out: &mut [f32]) {
    match values {
        KvRows::F16(rows) => {
            assert_eq!(rows.len(), p.len() * out.len());
            // SAFETY:
            // - As in `scores`, with `out` in the place of `q`.
            unsafe {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 if out.len().is_multiple_of(LANES) => avx512::accumulate(p, rows, out),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 if out.len().is_multiple_of(LANES) => avx2::accumulate(p, rows, out),
                    #[cfg(target_arch = "aarch64")]
                    Isa::Neon | Isa::NeonDot if out.len().is_multiple_of(LANES) => neon::accumulate(p, rows, out),
                    _ => accumulate_f16(isa, p, rows, out),
                }
            }
        }
        KvRows::F32(rows) => accumulate_f32(isa, p, rows, out),
        KvRows::I8(codes, scales) => accumulate_i8(isa, p, codes, scales, out),
    }
}

per_isa! {
    fn scores_f32(q: &[f32], rows: &[f32], out: &mut [f32]) = scores_f32_body;
}
per_isa! {
    fn accumulate_f32(p: &[f32], rows: &[f32], out: &mut [f32]) = accumulate_f32_body;
}
per_isa! {
    fn scores_f16(q: &[f32], rows: &[u16], out: &mut [f32]) = scores_f16_body;
}
per_isa! {
    fn accumulate_f16(p: &[f32], rows: &[u16], out: &mut [f32]) = accumulate_f16_body;
}
per_isa! {
    fn scores_i8(q: &[f32], codes: &[i8], scales: &[f32], out: &mut [f32]) = scores_i8_body;
}
per_isa! {
    fn accumulate_i8(p: &[f32], codes: &[i8], scales: &[f32], out: &mut [f32]) = accumulate_i8_body;
}

/// `dot(q, row)` where the row is converted on the way.
#[inline(always)]
fn dot_with<T: Copy>(q: &[f32], row: &[T], convert: impl Fn(T) -> f32) -> f32 {
    let mut acc = [0.0f32; LANES];
    let (q_chunks, chunks) = (q.chunks_exact(LANES), row.chunks_exact(LANES));
    let (q_tail, tail) = (q_chunks.remainder(), chunks.remainder());
    for (q, row) in q_chunks.zip(chunks) {
        for i in 0..LANES {
            acc[i] = q[i].mul_add(convert(row[i]), acc[i]);
        }
    }
    for (i, (q, v)) in q_tail.iter().zip(tail).enumerate() {
        acc[i] = q.mul_add(convert(*v), acc[i]);
    }
    fold_lanes(acc)
}

#[inline(always)]
fn scores_f32_body(q: &[f32], rows: &[f32], out: &mut [f32]) {
    for (y, row) in out.iter_mut().zip(rows.chunks_exact(q.len())) {
        *y = crate::simd::dot(q, row);
    }
}

#[inline(always)]
fn accumulate_f32_body(p: &[f32], rows: &[f32], out: &mut [f32]) {
    for (p, row) in p.iter().zip(rows.chunks_exact(out.len())) {
        for (y, v) in out.iter_mut().zip(row) {
            *y = p.mul_add(*v, *y);
        }
    }
}

#[inline(always)]
fn scores_f16_body(q: &[f32], rows: &[u16], out: &mut [f32]) {
    for (y, row) in out.iter_mut().zip(rows.chunks_exact(q.len())) {
        *y = dot_with(q, row, half_to_float);
    }
}

#[inline(always)]
fn accumulate_f16_body(p: &[f32], rows: &[u16], out: &mut [f32]) {
    for (p, row) in p.iter().zip(rows.chunks_exact(out.len())) {
        for (y, v) in out.iter_mut().zip(row) {
            *y = p.mul_add(half_to_float(*v), *y);
        }
    }
}

#[inline(always)]
fn scores_i8_body(q: &[f32], codes: &[i8], scales: &[f32], out: &mut [f32]) {
    for ((y, row), scale) in out.iter_mut().zip(codes.chunks_exact(q.len())).zip(scales) {
        *y = dot_with(q, row, |c| c as f32) * scale;
    }
}

#[inline(always)]
fn accumulate_i8_body(p: &[f32], codes: &[i8], scales: &[f32], out: &mut [f32]) {
    for ((p, row), scale) in p.iter().zip(codes.chunks_exact(out.len())).zip(scales) {
        let weight = p * scale;
        for (y, c) in out.iter_mut().zip(row) {
            *y = weight.mul_add(*c as f32, *y);
        }
    }
}

/// Keys whose sums run side by side, to hide the latency of the fused product.
const KEYS: usize = 4;
/// Groups of sixteen outputs that stay in registers together.
const CHUNKS: usize = 4;

/// Defines `scores` and `accumulate` from what the module around it gives: a register type `V` of `WIDTH` lanes and
/// `load_f16`, `load`, `store`, `splat`, `fma` on it. Sixteen lanes are `LANES / WIDTH` registers, so the order of
/// operations, and with it every bit, is that of the plain loops above.
macro_rules! half_kernels {
    ($features:literal) => {
        const REGS: usize = LANES / WIDTH;

        #[target_feature(enable = $features)]
        pub unsafe fn scores(q: &[f32], rows: &[u16], out: &mut [f32]) {
            let dim = q.len();
            for (first, out) in (0..out.len()).step_by(KEYS).zip(out.chunks_mut(KEYS)) {
                let base = rows.as_ptr().add(first * dim);
                // Fewer keys than KEYS are computed again and dropped.
                let row: [*const u16; KEYS] = std::array::from_fn(|j| base.add(j.min(out.len() - 1) * dim));
                let mut acc = [[splat(0.0); REGS]; KEYS];
                for i in (0..dim).step_by(LANES) {
                    for r in 0..REGS {
                        let at = i + r * WIDTH;
                        let x = load(q.as_ptr().add(at));
                        for (acc, row) in acc.iter_mut().zip(row) {
                            acc[r] = fma(x, load_f16(row.add(at)), acc[r]);
                        }
                    }
                }
                for (y, acc) in out.iter_mut().zip(acc) {
                    let mut lanes = [0.0f32; LANES];
                    for (r, acc) in acc.into_iter().enumerate() {
                        store(lanes.as_mut_ptr().add(r * WIDTH), acc);
                    }
                    *y = fold_lanes(lanes);
                }
            }
        }

        #[target_feature(enable = $features)]
        pub unsafe fn accumulate(p: &[f32], rows: &[u16], out: &mut [f32]) {
            let dim = out.len();
            let mut at = 0;
            while at < dim {
                let n = (CHUNKS * REGS).min((dim - at) / WIDTH);
                let mut acc = [splat(0.0); CHUNKS * REGS];
                for (c, a) in acc.iter_mut().enumerate().take(n) {
                    *a = load(out.as_ptr().add(at + c * WIDTH));
                }
                for (j, p) in p.iter().enumerate() {
                    let weight = splat(*p);
                    let row = rows.as_ptr().add(j * dim + at);
                    for (c, a) in acc.iter_mut().enumerate().take(n) {
                        *a = fma(weight, load_f16(row.add(c * WIDTH)), *a);
                    }
                }
                for (c, a) in acc.iter().enumerate().take(n) {
                    store(out.as_mut_ptr().add(at + c * WIDTH), *a);
                }
                at += n * WIDTH;
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{fold_lanes, CHUNKS, KEYS, LANES};
    use std::arch::x86_64::{
        __m256i, __m512, _mm256_loadu_si256, _mm512_cvtph_ps, _mm512_fmadd_ps as fma, _mm512_loadu_ps as load,
        _mm512_set1_ps as splat, _mm512_storeu_ps as store,
    };

    type V = __m512;
    const WIDTH: usize = 16;

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    unsafe fn load_f16(p: *const u16) -> V {
        _mm512_cvtph_ps(_mm256_loadu_si256(p as *const __m256i))
    }

    half_kernels!("avx512f,avx512vl");
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{fold_lanes, CHUNKS, KEYS, LANES};
    use std::arch::x86_64::{
        __m128i, __m256, _mm256_cvtph_ps, _mm256_fmadd_ps as fma, _mm256_loadu_ps as load, _mm256_set1_ps as splat,
        _mm256_storeu_ps as store, _mm_loadu_si128,
    };

    type V = __m256;
    const WIDTH: usize = 8;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn load_f16(p: *const u16) -> V {
        _mm256_cvtph_ps(_mm_loadu_si128(p as *const __m128i))
    }

    half_kernels!("avx2,fma,f16c");
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::{fold_lanes, CHUNKS, KEYS, LANES};
    use crate::simd::widen_f16;
    use std::arch::aarch64::{
        float32x4_t, vdupq_n_f32 as splat, vfmaq_f32, vld1_u16, vld1q_f32 as load, vst1q_f32 as store,
    };

    type V = float32x4_t;
    const WIDTH: usize = 4;

    #[inline(always)]
    unsafe fn load_f16(p: *const u16) -> V {
        widen_f16(vld1_u16(p))
    }

    #[inline(always)]
    unsafe fn fma(a: V, b: V, sum: V) -> V {
        vfmaq_f32(sum, a, b)
    }

    half_kernels!("neon");
}

#[cfg(test)]
mod tests {
    use crate::simd::half_to_float;

    #[test]
    fn every_half_becomes_its_float() {
        for bits in 0..=u16::MAX {
            let (got, want) = (half_to_float(bits), half::f16::from_bits(bits).to_f32());
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#06x}");
        }
    }
}
