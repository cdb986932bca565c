//! The two inner loops: scores against rows of keys, and the weighted sum of rows of values.
#![allow(unsafe_code)]

use super::kv_store::KvRows;
use crate::simd::{fold_lanes, per_isa, Isa, LANES};

/// `out[j] = q . key[j]`, sixteen lanes.
pub fn scores(isa: Isa, q: &[f32], keys: KvRows<'_>, out: &mut [f32]) {
    match keys {
        #[cfg(target_arch = "x86_64")]
        KvRows::F16(rows) if isa == Isa::Avx512 && q.len() % LANES == 0 => {
            assert!(rows.len() == q.len() * out.len());
            // SAFETY:
            // - This instruction set is only chosen where `Isa::is_available` found it; sizes asserted above.
            unsafe { x86::scores(q, rows, out) }
        }
        KvRows::F16(rows) => scores_f16(isa, q, rows, out),
        KvRows::F32(rows) => scores_f32(isa, q, rows, out),
        KvRows::I8(codes, scales) => scores_i8(isa, q, codes, scales, out),
    }
}

/// `out += sum over j of p[j] * value[j]`, key by key.
pub fn accumulate(isa: Isa, p: &[f32], values: KvRows<'_>, out: &mut [f32]) {
    match values {
        #[cfg(target_arch = "x86_64")]
        KvRows::F16(rows) if isa == Isa::Avx512 && out.len() % LANES == 0 => {
            assert!(rows.len() == p.len() * out.len());
            // SAFETY:
            // - As in `scores`.
            unsafe { x86::accumulate(p, rows, out) }
        }
        KvRows::F16(rows) => accumulate_f16(isa, p, rows, out),
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

/// f16 to f32 by arithmetic alone, so that loops vectorise: the bits are moved into an f32 2^112 too small, and one exact
/// product puts subnormals right too.
#[inline(always)]
fn half_to_float(h: u16) -> f32 {
    let magnitude = ((h & 0x7fff) as u32) << 13;
    let scaled = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let special = if h & 0x7c00 == 0x7c00 { 0x7f80_0000 } else { 0 };
    f32::from_bits(scaled.to_bits() | special | ((h & 0x8000) as u32) << 16)
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

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{fold_lanes, LANES};
    use std::arch::x86_64::*;

    /// Keys whose sums run side by side, to hide the latency of the fused product.
    const KEYS: usize = 4;
    /// Registers of the output that stay in flight together.
    const CHUNKS: usize = 4;

    #[inline]
    #[target_feature(enable = "avx512f,avx512vl")]
    unsafe fn load(p: *const u16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(p as *const __m256i))
    }

    #[target_feature(enable = "avx512f,avx512vl")]
    pub unsafe fn scores(q: &[f32], rows: &[u16], out: &mut [f32]) {
        let dim = q.len();
        let mut at = 0;
        while at < out.len() {
            let n = KEYS.min(out.len() - at);
            let base = rows.as_ptr().add(at * dim);
            // Fewer keys than KEYS are computed again and dropped.
            let row: [*const u16; KEYS] = std::array::from_fn(|j| base.add(j.min(n - 1) * dim));
            let mut acc = [_mm512_setzero_ps(); KEYS];
            for i in (0..dim).step_by(LANES) {
                let x = _mm512_loadu_ps(q.as_ptr().add(i));
                for (a, row) in acc.iter_mut().zip(row) {
                    *a = _mm512_fmadd_ps(x, load(row.add(i)), *a);
                }
            }
            for (y, a) in out[at..at + n].iter_mut().zip(acc) {
                let mut lanes = [0.0f32; LANES];
                _mm512_storeu_ps(lanes.as_mut_ptr(), a);
                *y = fold_lanes(lanes);
            }
            at += n;
        }
    }

    #[target_feature(enable = "avx512f,avx512vl")]
    pub unsafe fn accumulate(p: &[f32], rows: &[u16], out: &mut [f32]) {
        let dim = out.len();
        let mut at = 0;
        while at < dim {
            let n = CHUNKS.min((dim - at) / LANES);
            let mut acc = [_mm512_setzero_ps(); CHUNKS];
            for (c, a) in acc.iter_mut().enumerate().take(n) {
                *a = _mm512_loadu_ps(out.as_ptr().add(at + c * LANES));
            }
            for (j, p) in p.iter().enumerate() {
                let weight = _mm512_set1_ps(*p);
                let row = rows.as_ptr().add(j * dim + at);
                for (c, a) in acc.iter_mut().enumerate().take(n) {
                    *a = _mm512_fmadd_ps(weight, load(row.add(c * LANES)), *a);
                }
            }
            for (c, a) in acc.iter().enumerate().take(n) {
                _mm512_storeu_ps(out.as_mut_ptr().add(at + c * LANES), *a);
            }
            at += n * LANES;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::half_to_float;

    #[test]
    fn every_half_becomes_its_float() {
        for bits in 0..=u16::MAX {
            let (got, want) = (half_to_float(bits), half::f16::from_bits(bits).to_f32());
            assert!(got.to_bits() == want.to_bits() || (got.is_nan() && want.is_nan()), "{bits:#06x}");
        }
    }
}
