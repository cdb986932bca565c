//! The kernels' sums on the CPU, in the kernels' order: equal bits.
//!
//! The four blocks of 32 (NF4: quarters) of a k-tile of 128 have an accumulator each. `splits` warps take pairs of k-tiles in
//! turn; a warp folds its accumulators as (0 + 1) + (2 + 3), and the warps' sums are added in order.

use lichen_kernels::formats::{nf4, Format};
use lichen_kernels::Matrix;

/// Warps that share the k of a row, by the rule of decode/cuda.rs. `unit_rows` of them are two tiles.
pub fn splits(n_sms: u32, format: Format, rows: &[usize], cols: usize, is_gated: bool) -> usize {
    let (tile_rows, n_warps) = match format {
        Format::NF4 => (8, 16),
        Format::Q4_0 => (8, 8),
        _ => (4, 8),
    };
    let unit_rows = if is_gated { tile_rows } else { 2 * tile_rows };
    let n_units: usize = rows.iter().map(|n| n.div_ceil(unit_rows)).sum();
    let mut splits = 1;
    while n_units * splits < n_sms as usize * 16 && splits < n_warps && 4 * splits <= cols.div_ceil(128) {
        splits *= 2;
    }
    splits
}

/// Adds what `part(tile, quarter, accumulator)` makes of each quarter of each k-tile.
fn in_order(cols: usize, splits: usize, part: impl Fn(usize, usize, f32) -> f32) -> f32 {
    let mut total = 0.0f32;
    for split in 0..splits {
        let mut sums = [0.0f32; 4];
        for tile in (0..cols.div_ceil(128)).filter(|tile| tile / 2 % splits == split) {
            for (quarter, sum) in sums.iter_mut().enumerate() {
                *sum = part(tile, quarter, *sum);
            }
        }
        total += (sums[0] + sums[1]) + (sums[2] + sums[3]);
    }
    total
}

/// A block of `x` as codes of 16 bits and its scale: the rule of kernels/src/ops/matmul/quantize.rs.
fn quantize(x: &[f32]) -> ([i32; 32], f32) {
    let amax = f32::from_bits(x.iter().map(|v| v.to_bits() & 0x7fff_ffff).max().unwrap());
    let is_tiny = amax < 1e-30;
    let inverse = if is_tiny { 0.0 } else { 32512.0 / amax };
    let code = |i: usize| x[i].mul_add(inverse, 12_582_912.0).to_bits() as i16 as i32;
    (std::array::from_fn(code), if is_tiny { 0.0 } else { amax / 32512.0 })
}

/// `w[row] . x` for Q8_0 and Q4_0.
fn integer_dot(w: &Matrix, row: usize, x: &[f32], splits: usize) -> f32 {
    let (cols, block_bytes) = (w.cols(), w.format().block_bytes());
    in_order(cols, splits, |tile, quarter, sum| {
        let b = tile * 4 + quarter;
        if b * 32 >= cols {
            return sum;
        }
        let bytes = &w.bytes()[(row * cols / 32 + b) * block_bytes..][..block_bytes];
        let (codes, x_scale) = quantize(&x[b * 32..(b + 1) * 32]);
        let weight = |i: usize| match w.format() {
            Format::Q8_0 => bytes[2 + i] as i8 as i32,
            _ if i < 16 => (bytes[2 + i] & 15) as i32 - 8,
            _ => (bytes[2 + i - 16] >> 4) as i32 - 8,
        };
        let dot: i32 = (0..32).map(|i| weight(i) * codes[i]).sum();
        let w_scale = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
        (dot as f32).mul_add(w_scale * x_scale, sum)
    })
}

/// The nearest f16, ties to even.
fn to_half(v: f64) -> f64 {
    if v == 0.0 || !v.is_finite() {
        return v;
    }
    let exponent = ((v.abs().to_bits() >> 52) as i32 - 1023).max(-14);
    let step = 2f64.powi(exponent - 10);
    (v / step).round_ties_even() * step
}

/// `w[row] . x` for NF4: products in f16, eight to a chain.
fn nf4_dot(w: &Matrix, absmax_scale: f32, row: usize, x: &[f32], splits: usize) -> f32 {
    let cols = w.cols();
    let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let exponent = ((largest.to_bits() >> 23) as i32 - 127).max(-100);
    let up = 2f64.powi(10 - exponent);
    let level = |i: usize| {
        let byte = w.bytes()[(row * cols + i) / 2];
        to_half(nf4::LEVELS[if i.is_multiple_of(2) { byte >> 4 } else { byte & 15 } as usize] as f64)
    };
    let sum = in_order(cols, splits, |tile, quarter, sum| {
        let k = tile * 128 + quarter * 32;
        if k >= cols {
            // Padding: scale zero.
            return sum;
        }
        let chain = |first: usize| {
            (0..8).fold(0.0f64, |sum, i| {
                let at = first + 2 * i;
                to_half(level(at) * to_half((x[at] as f64 * up) as f32 as f64) + sum)
            }) as f32
        };
        let dot = (chain(k) + chain(k + 1)) + (chain(k + 16) + chain(k + 17));
        let absmax = w.absmax()[(row * cols + k) / 64] / absmax_scale;
        dot.mul_add(absmax, sum)
    });
    sum * (absmax_scale * (1.0 / up) as f32)
}

/// `x` (T, K) times a matrix that was downloaded again; `None` where the order of sums is not ours: float formats, tensor
/// cores.
pub fn product(on_gpu: &Matrix, x: &[f32], bias: Option<&[f32]>, splits: usize) -> Option<Vec<f32>> {
    let w = on_gpu.packed().download().expect("a download");
    let dot = |row: usize, x: &[f32]| match w.format() {
        Format::Q8_0 | Format::Q4_0 => integer_dot(&w, row, x, splits),
        _ => nf4_dot(&w, on_gpu.packed().absmax_scale, row, x, splits),
    };
    if w.format().is_float() || (w.format() == Format::NF4 && on_gpu.packed().codes.cuda().arch() >= 80) {
        return None;
    }
    let add = |row: usize, y: f32| bias.map_or(y, |b| y + b[row]);
    Some(x.chunks(w.cols()).flat_map(|x| (0..w.rows()).map(move |row| add(row, dot(row, x)))).collect())
}
