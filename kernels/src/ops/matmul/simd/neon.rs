//! ARMv8.0 Advanced SIMD, as in the Cortex-A57. `smlal` multiplies 16-bit integers into 32-bit lanes: four products an
//! instruction, one instruction a cycle, so a core at 1.43 GHz multiplies at most 5.7 billion weights a second.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::{by_format, by_panel, Panel, StorePart, Tile, Weights, Q5_0, Q8_0};
use crate::matrix::Matrix;
use crate::ops::matmul::quantize::{QuantizedRows, TILE_ROWS};
use crate::ops::matmul::PANEL_ROWS;

/// Rows of weights in one register of 32-bit lanes.
pub(super) const GROUP: usize = 4;
/// Rows of weights in one column tile of the panel: one register of 16-bit codes. With a tile's twelve rows of `x` that
/// makes 24 accumulators, two registers of weights and three of `x`, of 32.
pub(super) const COLUMN_TILE: usize = 8;

pub fn matvec(weights: &Matrix, rows: Range<usize>, x: &QuantizedRows, store: &mut StorePart<'_>) {
    let w = Weights::new(weights);
    // SAFETY:
    // - Advanced SIMD is part of the target's base.
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
    // - As in `matvec`; `pack` filled the panel (4, K, 8) and its scales (K/block, 32); sums hold (m, 32).
    let tile = |t: Tile<'_>, panel: &mut Panel| unsafe { tile(t, panel) };
    by_panel(weights, rows.clone(), x, store, pack, tile);
}

/// Rows of `x` one by one against rows of weights, four at a time: a block of `x` stays in registers for all four.
unsafe fn matvec_rows<const F: u8>(w: Weights<'_>, rows: Range<usize>, x: &QuantizedRows, store: &mut StorePart<'_>) {
    for first in rows.clone().step_by(GROUP) {
        let valid = (rows.end - first).min(GROUP);
        let base = w.bytes.as_ptr().add(first * w.row_bytes);
        let row_offset = |r: usize| r.min(valid - 1) * w.row_bytes;
        let next = NextRows::new(&w, base);
        for t in 0..x.n_rows() {
            let (_, q, scales) = x.tile(t);
            let mut acc = vdupq_n_f32(0.0);
            for (b, x_scale) in scales.iter().enumerate() {
                if t == 0 {
                    next.prefetch(b);
                }
                let block = base.add(b * w.block_bytes);
                let mut sums = [vdupq_n_s32(0); GROUP];
                let x: [int16x8_t; 4] = std::array::from_fn(|i| vld1q_s16(q.as_ptr().add(b * 32 + i * 8)));
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = dot32(widen(codes32::<F>(block.add(row_offset(r)))), x);
                }
                let scale = vmulq_n_f32(row_scales(&w, first, b, valid), *x_scale);
                acc = vfmaq_f32(acc, vcvtq_f32_s32(fold(sums)), scale);
            }
            store(t, first, &lanes(acc)[..valid]);
        }
    }
}

/// Widens up to 32 rows into `codes` (4, K, 8) and `scales` (K/block, 32); missing rows repeat the last.
unsafe fn pack<const F: u8>(w: Weights<'_>, rows: Range<usize>, panel: &mut Panel) {
    let cols = w.n_blocks * 32;
    pack_scales(&w, rows.clone(), panel);
    for column_tile in 0..PANEL_ROWS / COLUMN_TILE {
        let row_at = |r: usize| {
            w.bytes.as_ptr().add((rows.start + column_tile * COLUMN_TILE + r).min(rows.end - 1) * w.row_bytes)
        };
        for group in 0..w.n_blocks {
            let mut v = [[vdupq_n_s16(0); COLUMN_TILE]; 4];
            for r in 0..COLUMN_TILE {
                let codes = widen(codes32::<F>(row_at(r).add(group * w.block_bytes)));
                for (v, codes) in v.iter_mut().zip(codes) {
                    v[r] = codes;
                }
            }
            let mut at = panel.codes.as_mut_ptr().add((column_tile * cols + group * 32) * COLUMN_TILE);
            for v in v.iter_mut() {
                transpose(v);
                for v in v {
                    vst1q_s16(at, *v);
                    at = at.add(COLUMN_TILE);
                }
            }
        }
    }
}

/// The scales of up to 32 rows, (K/block, 32).
pub(super) unsafe fn pack_scales(w: &Weights<'_>, rows: Range<usize>, panel: &mut Panel) {
    for group in 0..PANEL_ROWS / GROUP {
        let first = (rows.start + group * GROUP).min(rows.end - 1);
        let valid = (rows.end - first).min(GROUP);
        for b in 0..w.n_blocks {
            let scale = row_scales(w, first, b, valid);
            vst1q_f32(panel.scales.as_mut_ptr().add(b * PANEL_ROWS + group * GROUP), scale);
        }
    }
}

unsafe fn tile(t: Tile<'_>, panel: &mut Panel) {
    macro_rules! by_rows {
        ($column_tile:ident, $($n:literal)*) => {
            match t.m {
                $($n => tile_rows::<$n>(t, panel, $column_tile),)*
                _ => unreachable!("a tile has 1 to {TILE_ROWS} rows"),
            }
        };
    }
    for column_tile in 0..PANEL_ROWS / COLUMN_TILE {
        by_rows!(column_tile, 1 2 3 4 5 6 7 8 9 10 11 12)
    }
}

/// `M` rows of `x` against 8 rows of weights: 2 M integer accumulators in registers, flushed into f32 sums once a block.
unsafe fn tile_rows<const M: usize>(t: Tile<'_>, panel: &mut Panel, column_tile: usize) {
    debug_assert!(t.m == M && t.q.len() >= t.n_blocks * t.pairs * 2 * M);
    let mut w = panel.codes.as_ptr().add(column_tile * t.n_blocks * t.pairs * 2 * COLUMN_TILE);
    let mut x = t.q.as_ptr();
    let mut sums = [[vdupq_n_f32(0.0); 2]; M];
    for b in 0..t.n_blocks {
        let mut acc = [[vdupq_n_s32(0); 2]; M];
        for _ in 0..t.pairs {
            // Eight rows at an even k and at the odd one after it.
            let (w0, w1) = (vld1q_s16(w), vld1q_s16(w.add(COLUMN_TILE)));
            macro_rules! four_rows {
                ($($row:literal $even:literal $odd:literal),*) => {
                    let x4 = load_pairs(x, M, [$($row),*][0]);
                    $(if $row < M {
                        let [low, high] = &mut acc[$row];
                        *low = vmlal_laneq_s16::<$even>(*low, vget_low_s16(w0), x4);
                        *high = vmlal_high_laneq_s16::<$even>(*high, w0, x4);
                        *low = vmlal_laneq_s16::<$odd>(*low, vget_low_s16(w1), x4);
                        *high = vmlal_high_laneq_s16::<$odd>(*high, w1, x4);
                    })*
                };
            }
            four_rows!(0 0 1, 1 2 3, 2 4 5, 3 6 7);
            four_rows!(4 0 1, 5 2 3, 6 4 5, 7 6 7);
            four_rows!(8 0 1, 9 2 3, 10 4 5, 11 6 7);
            w = w.add(2 * COLUMN_TILE);
            x = x.add(2 * M);
        }
        let w_scales = panel.scales.as_ptr().add(b * PANEL_ROWS + column_tile * COLUMN_TILE);
        flush(&acc, &mut sums, w_scales, t.scales.as_ptr().add(b * M));
    }
    store_column_tile(&sums, panel, column_tile);
}

/// The pairs of rows `row .. row + 4` of `m`, as far as there are so many.
#[inline(always)]
unsafe fn load_pairs(x: *const i16, m: usize, row: usize) -> int16x8_t {
    let p = x.wrapping_add(row * 2);
    let one = |p: *const i16| vreinterpret_s16_s32(vdup_n_s32((p as *const i32).read_unaligned()));
    match m.saturating_sub(row) {
        0 => vdupq_n_s16(0),
        1 => vcombine_s16(one(p), vdup_n_s16(0)),
        2 => vcombine_s16(vld1_s16(p), vdup_n_s16(0)),
        3 => vcombine_s16(vld1_s16(p), one(p.add(4))),
        _ => vld1q_s16(p),
    }
}

/// `sums += acc * w_scale * x_scale` for 8 rows of weights and each row of `x`.
#[inline(always)]
pub(super) unsafe fn flush(
    acc: &[[int32x4_t; 2]],
    sums: &mut [[float32x4_t; 2]],
    w_scales: *const f32,
    x_scales: *const f32,
) {
    let (w0, w1) = (vld1q_f32(w_scales), vld1q_f32(w_scales.add(GROUP)));
    for (m, (sum, acc)) in sums.iter_mut().zip(acc).enumerate() {
        let x_scale = *x_scales.add(m);
        sum[0] = vfmaq_f32(sum[0], vcvtq_f32_s32(acc[0]), vmulq_n_f32(w0, x_scale));
        sum[1] = vfmaq_f32(sum[1], vcvtq_f32_s32(acc[1]), vmulq_n_f32(w1, x_scale));
    }
}

#[inline(always)]
pub(super) unsafe fn store_column_tile(sums: &[[float32x4_t; 2]], panel: &mut Panel, column_tile: usize) {
    for (m, sum) in sums.iter().enumerate() {
        let out = panel.sums.as_mut_ptr().add(m * PANEL_ROWS + column_tile * COLUMN_TILE);
        vst1q_f32(out, sum[0]);
        vst1q_f32(out.add(GROUP), sum[1]);
    }
}

/// The rows after the current four. They are read in order while these are computed, so DRAM sees one stream and not
/// four.
pub(super) struct NextRows {
    start: *const u8,
    lines_per_block: usize,
}

impl NextRows {
    #[inline(always)]
    pub(super) fn new(w: &Weights<'_>, base: *const u8) -> Self {
        let bytes = GROUP * w.row_bytes;
        NextRows { start: base.wrapping_add(bytes), lines_per_block: (bytes / 64).div_ceil(w.n_blocks) }
    }

    #[inline(always)]
    pub(super) fn prefetch(&self, block: usize) {
        for line in 0..self.lines_per_block {
            let p = self.start.wrapping_add((block * self.lines_per_block + line) * 64);
            // SAFETY:
            // - A prefetch of any address, mapped or not, is a hint without effect on the program.
            unsafe { asm!("prfm pldl1strm, [{}]", in(reg) p, options(nostack, preserves_flags, readonly)) }
        }
    }
}

/// 32 values of a block, from the block's first byte, in order.
#[inline(always)]
pub(super) unsafe fn codes32<const F: u8>(block: *const u8) -> [int8x16_t; 2] {
    let p = block.add(if F == Q5_0 { 6 } else { 2 });
    if F == Q8_0 {
        return [vld1q_s8(p as *const i8), vld1q_s8(p.add(16) as *const i8)];
    }
    let bytes = vld1q_u8(p);
    let low = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(15)));
    let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes));
    if F == Q5_0 {
        let fifth = block.add(2);
        return [less_16(low, fifth), less_16(high, fifth.add(2))];
    }
    [vsubq_s8(low, vdupq_n_s8(8)), vsubq_s8(high, vdupq_n_s8(8))]
}

/// Takes 16 off each value whose fifth bit is not set: the bits of the two bytes at `fifth` are those of sixteen lanes.
#[inline(always)]
unsafe fn less_16(v: int8x16_t, fifth: *const u8) -> int8x16_t {
    let own_bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let bytes = vcombine_u8(vdup_n_u8(*fifth), vdup_n_u8(*fifth.add(1)));
    // All bits of a lane whose fifth bit is clear.
    let is_clear = vmvnq_u8(vtstq_u8(bytes, own_bit));
    vsubq_s8(v, vreinterpretq_s8_u8(vandq_u8(is_clear, vdupq_n_u8(16))))
}

#[inline(always)]
unsafe fn widen(v: [int8x16_t; 2]) -> [int16x8_t; 4] {
    [vmovl_s8(vget_low_s8(v[0])), vmovl_high_s8(v[0]), vmovl_s8(vget_low_s8(v[1])), vmovl_high_s8(v[1])]
}

/// Partial sums of 32 products, in two chains.
#[inline(always)]
unsafe fn dot32(w: [int16x8_t; 4], x: [int16x8_t; 4]) -> int32x4_t {
    let mut a = vmull_s16(vget_low_s16(w[0]), vget_low_s16(x[0]));
    let mut b = vmull_high_s16(w[0], x[0]);
    for i in 1..4 {
        a = vmlal_s16(a, vget_low_s16(w[i]), vget_low_s16(x[i]));
        b = vmlal_high_s16(b, w[i], x[i]);
    }
    vaddq_s32(a, b)
}

/// Scales of block `b` of four rows.
#[inline(always)]
pub(super) unsafe fn row_scales(w: &Weights<'_>, first: usize, b: usize, valid: usize) -> float32x4_t {
    let base = w.bytes.as_ptr().add(first * w.row_bytes + b * w.block_bytes);
    let scales: [u16; GROUP] =
        std::array::from_fn(|r| (base.add(r.min(valid - 1) * w.row_bytes) as *const u16).read_unaligned());
    crate::simd::widen_f16(vld1_u16(scales.as_ptr()))
}

/// Sums each of four vectors; lane r of the result is the sum of `v[r]`.
#[inline(always)]
pub(super) unsafe fn fold(v: [int32x4_t; GROUP]) -> int32x4_t {
    vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3]))
}

#[inline(always)]
pub(super) unsafe fn lanes(y: float32x4_t) -> [f32; GROUP] {
    let mut lanes = [0.0f32; GROUP];
    vst1q_f32(lanes.as_mut_ptr(), y);
    lanes
}

/// Transposes eight rows of eight 16-bit lanes: each round rotates the six bits of (row, lane) by one.
#[inline(always)]
unsafe fn transpose(v: &mut [int16x8_t; COLUMN_TILE]) {
    for _ in 0..3 {
        let u = *v;
        for i in 0..4 {
            (v[2 * i], v[2 * i + 1]) = (vzip1q_s16(u[i], u[i + 4]), vzip2q_s16(u[i], u[i + 4]));
        }
    }
}
