//! ARMv8.2 with the dot product extension. `sdot` multiplies signed bytes into 32-bit lanes: sixteen products an
//! instruction. A 16-bit code is `high * 256 + low` with two signed bytes (32512 = 127 * 256 is the largest), so the
//! sum of a block is exact as `sum(high) * 256 + sum(low)`.
//!
//! The intrinsics of this extension are not stable in Rust, so the two forms used are written in assembly.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use super::neon::{
    codes32, flush, fold, lanes, pack_scales, row_scales, store_column_tile, NextRows, COLUMN_TILE, GROUP,
};
use super::{by_format, by_panel, grow, Panel, StorePart, Tile, Weights};
use crate::matrix::Matrix;
use crate::ops::matmul::quantize::{QuantizedRows, TILE_ROWS};
use crate::ops::matmul::PANEL_ROWS;

pub fn matvec(weights: &Matrix, rows: Range<usize>, x: &QuantizedRows, store: &mut StorePart<'_>) {
    let w = Weights::new(weights);
    // SAFETY:
    // - This instruction set is only chosen where `Isa::is_available` found it.
    // - `rows` lies inside the matrix, and each row of `x` holds K codes and K / block scales: asserted by the caller.
    unsafe { by_format!(weights.format(), F => matvec_rows::<F>(w, rows, x, store)) }
}

pub fn matmul(weights: &Matrix, rows: Range<usize>, x: &QuantizedRows, store: &mut dyn FnMut(usize, &[f32])) {
    // SAFETY:
    // - As in `matvec`; the panel holds PANEL_ROWS rows and their scales.
    let pack = |w: Weights<'_>, panel: &mut Panel| unsafe {
        grow(&mut panel.split, weights.cols() * TILE_ROWS * 2);
        by_format!(weights.format(), F => pack::<F>(w, rows.clone(), panel))
    };
    // SAFETY:
    // - As in `matvec`; `pack` filled the panel and its scales (K/block, 32); sums hold (m, 32), and `split` a tile of
    //   twelve rows.
    let tile = |t: Tile<'_>, panel: &mut Panel| unsafe {
        split_tile(t, &mut panel.split);
        tile(t, panel)
    };
    by_panel(weights, rows.clone(), x, store, pack, tile);
}

/// Rows of `x` one by one against rows of weights, four at a time: a block of `x` is split once for all four.
#[target_feature(enable = "dotprod")]
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
                let (mut high, mut low) = ([vdupq_n_s32(0); GROUP], [vdupq_n_s32(0); GROUP]);
                let p = q.as_ptr().add(b * 32);
                let x = [split(vld1q_s16(p), vld1q_s16(p.add(8))), split(vld1q_s16(p.add(16)), vld1q_s16(p.add(24)))];
                for r in 0..GROUP {
                    let codes = codes32::<F>(block.add(row_offset(r)));
                    high[r] = sdot(sdot(high[r], codes[0], x[0].high), codes[1], x[1].high);
                    low[r] = sdot(sdot(low[r], codes[0], x[0].low), codes[1], x[1].low);
                }
                let sums = vaddq_s32(vshlq_n_s32::<8>(fold(high)), fold(low));
                let scale = vmulq_n_f32(row_scales(&w, first, b, valid), *x_scale);
                acc = vfmaq_f32(acc, vcvtq_f32_s32(sums), scale);
            }
            store(t, first, &lanes(acc)[..valid]);
        }
    }
}

/// Bytes of weights a panel keeps for each column tile and block: (K/4 of the block, 8, 4).
const TILE_BLOCK_BYTES: usize = 32 * COLUMN_TILE;

/// Lays up to 32 rows out as (4, K/block, [`TILE_BLOCK_BYTES`]); missing rows repeat the last.
#[target_feature(enable = "dotprod")]
unsafe fn pack<const F: u8>(w: Weights<'_>, rows: Range<usize>, panel: &mut Panel) {
    pack_scales(&w, rows.clone(), panel);
    let codes = panel.codes.as_mut_ptr() as *mut i8;
    for column_tile in 0..PANEL_ROWS / COLUMN_TILE {
        for b in 0..w.n_blocks {
            let at = codes.add((column_tile * w.n_blocks + b) * TILE_BLOCK_BYTES);
            for r in 0..COLUMN_TILE {
                let row = (rows.start + column_tile * COLUMN_TILE + r).min(rows.end - 1);
                let block = w.bytes.as_ptr().add(row * w.row_bytes + b * w.block_bytes);
                let at = at.add(r * 4);
                let v = codes32::<F>(block);
                store_fours(v[0], at);
                store_fours(v[1], at.add(16 * COLUMN_TILE));
            }
        }
    }
}

/// Sixteen neighbouring k of one row, four by four, to the places of that row in a column tile.
#[inline(always)]
unsafe fn store_fours(v: int8x16_t, at: *mut i8) {
    let v = vreinterpretq_s32_s8(v);
    let words = [vgetq_lane_s32::<0>(v), vgetq_lane_s32::<1>(v), vgetq_lane_s32::<2>(v), vgetq_lane_s32::<3>(v)];
    for (i, word) in words.into_iter().enumerate() {
        (at.add(i * 4 * COLUMN_TILE) as *mut i32).write_unaligned(word);
    }
}

/// Splits a tile (K/2, m, 2) into (K/block, [high, low], K/4 of the block, m rounded up to 4, 4). The rows beyond m keep
/// whatever they held: their sums are dropped.
unsafe fn split_tile(t: Tile<'_>, split_x: &mut [i8]) {
    let stride = t.m.next_multiple_of(4);
    let plane = t.pairs * 2 * stride;
    for b in 0..t.n_blocks {
        for quad in 0..t.pairs / 2 {
            let from = t.q.as_ptr().add((b * t.pairs + quad * 2) * t.m * 2);
            let high = split_x.as_mut_ptr().add(2 * b * plane + quad * stride * 4);
            let low = high.add(plane);
            let whole = t.m / 4 * 4;
            for row in (0..whole).step_by(4) {
                let (a, b) = (vld1q_s16(from.add(row * 2)), vld1q_s16(from.add((t.m + row) * 2)));
                let (a, b) = (vreinterpretq_s32_s16(a), vreinterpretq_s32_s16(b));
                let x = split(vreinterpretq_s16_s32(vzip1q_s32(a, b)), vreinterpretq_s16_s32(vzip2q_s32(a, b)));
                vst1q_s8(high.add(row * 4), x.high);
                vst1q_s8(low.add(row * 4), x.low);
            }
            for row in whole..t.m {
                for k in 0..4 {
                    let v = *from.add((k / 2 * t.m + row) * 2 + k % 2);
                    *high.add(row * 4 + k) = ((v + 128) >> 8) as i8;
                    *low.add(row * 4 + k) = v as i8;
                }
            }
        }
    }
}

unsafe fn tile(t: Tile<'_>, panel: &mut Panel) {
    for column_tile in 0..PANEL_ROWS / COLUMN_TILE {
        match t.m.div_ceil(4) {
            1 => tile_rows::<4>(t, panel, column_tile),
            2 => tile_rows::<8>(t, panel, column_tile),
            3 => tile_rows::<12>(t, panel, column_tile),
            _ => unreachable!("a tile has 1 to {TILE_ROWS} rows"),
        }
    }
}

/// `M` rows of `x`, the last of them padding, against 8 rows of weights: 2 M integer accumulators in registers. The
/// products of bytes are summed from the most significant down, with a shift by 8 between.
#[target_feature(enable = "dotprod")]
unsafe fn tile_rows<const M: usize>(t: Tile<'_>, panel: &mut Panel, column_tile: usize) {
    // Known when compiled, so that the accumulators stay in registers from one sum to the next.
    const QUADS: usize = 8;
    let x_plane = QUADS * 4 * M;
    let codes = (panel.codes.as_ptr() as *const i8).add(column_tile * t.n_blocks * TILE_BLOCK_BYTES);
    let mut sums = [[vdupq_n_f32(0.0); 2]; M];
    for b in 0..t.n_blocks {
        let w = codes.add(b * TILE_BLOCK_BYTES);
        let x = panel.split.as_ptr().add(b * 2 * x_plane);
        let mut acc = [[vdupq_n_s32(0); 2]; M];
        add_products(&mut acc, w, x, QUADS);
        shift(&mut acc);
        add_products(&mut acc, w, x.add(x_plane), QUADS);
        let w_scales = panel.scales.as_ptr().add(b * PANEL_ROWS + column_tile * COLUMN_TILE);
        flush(&acc[..t.m], &mut sums, w_scales, t.scales.as_ptr().add(b * t.m));
    }
    store_column_tile(&sums[..t.m], panel, column_tile);
}

/// `acc += w . x` over one block: `w` (quads, 8, 4) and `x` (quads, M, 4), all signed bytes.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn add_products<const M: usize>(acc: &mut [[int32x4_t; 2]; M], w: *const i8, x: *const i8, quads: usize) {
    for quad in 0..quads {
        let w = w.add(quad * COLUMN_TILE * 4);
        let (w0, w1) = (vld1q_s8(w), vld1q_s8(w.add(16)));
        for (i, rows) in acc.chunks_exact_mut(4).enumerate() {
            let x4 = vld1q_s8(x.add((quad * M + i * 4) * 4));
            rows[0] = [sdot_lane::<0>(rows[0][0], w0, x4), sdot_lane::<0>(rows[0][1], w1, x4)];
            rows[1] = [sdot_lane::<1>(rows[1][0], w0, x4), sdot_lane::<1>(rows[1][1], w1, x4)];
            rows[2] = [sdot_lane::<2>(rows[2][0], w0, x4), sdot_lane::<2>(rows[2][1], w1, x4)];
            rows[3] = [sdot_lane::<3>(rows[3][0], w0, x4), sdot_lane::<3>(rows[3][1], w1, x4)];
        }
    }
}

#[inline(always)]
unsafe fn shift<const M: usize>(acc: &mut [[int32x4_t; 2]; M]) {
    for acc in acc.iter_mut() {
        *acc = [vshlq_n_s32::<8>(acc[0]), vshlq_n_s32::<8>(acc[1])];
    }
}

/// Sixteen codes of `x` as signed bytes.
#[derive(Clone, Copy)]
struct Split {
    high: int8x16_t,
    low: int8x16_t,
}

/// `v = high * 256 + low`: the narrowing shift rounds, which is what makes `low` signed.
#[inline(always)]
unsafe fn split(a: int16x8_t, b: int16x8_t) -> Split {
    let high = vrshrn_high_n_s16::<8>(vrshrn_n_s16::<8>(a), b);
    Split { high, low: vmovn_high_s16(vmovn_s16(a), b) }
}

/// Lane i of the result: `acc[i]` plus the four products at bytes 4 i ...
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn sdot(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    asm!("sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b", acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
        options(pure, nomem, nostack, preserves_flags));
    acc
}

/// Lane i of the result: `acc[i]` plus the four products of bytes 4 i .. of `a` with bytes 4 LANE .. of `b`.
#[inline]
#[target_feature(enable = "dotprod")]
unsafe fn sdot_lane<const LANE: i32>(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    asm!("sdot {acc:v}.4s, {a:v}.16b, {b:v}.4b[{lane}]", acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
        lane = const LANE, options(pure, nomem, nostack, preserves_flags));
    acc
}
