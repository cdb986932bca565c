//! The scalar oracle for quantised weights: one row of weights against one row of `x`.

use crate::formats::{q5_0, Format};
use crate::matrix::Matrix;
use crate::ops::matmul::quantize::{QuantizedRows, BLOCK};
use half::f16;

/// `w[row] . x[t]` by the numerical contract.
pub fn dot(weights: &Matrix, row: usize, x: &QuantizedRows, t: usize) -> f32 {
    let (rows, q, scales) = x.tile(t / x.tile_rows());
    let m = t % x.tile_rows();
    let mut acc = 0.0f32;
    for b in 0..x.cols() / BLOCK {
        let mut codes = [0i32; BLOCK];
        let w_scale = decode_block(weights, row, b, &mut codes);
        let mut sum = 0i32;
        for (k, code) in codes.iter().enumerate() {
            sum += code * q[((b * BLOCK + k) / 2 * rows + m) * 2 + k % 2] as i32;
        }
        acc = (sum as f32).mul_add(w_scale * scales[b * rows + m], acc);
    }
    acc
}

/// Block `b` of a row as integers and their scale.
pub fn decode_block(weights: &Matrix, row: usize, b: usize, codes: &mut [i32; BLOCK]) -> f32 {
    let format = weights.format();
    let row_bytes = format.row_bytes(weights.cols()).expect("whole blocks");
    let at = row * row_bytes + b * format.block_bytes();
    let bytes = &weights.bytes()[at..at + format.block_bytes()];
    match format {
        Format::Q8_0 => {
            codes.iter_mut().zip(&bytes[2..]).for_each(|(c, q)| *c = *q as i8 as i32);
            f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
        }
        Format::Q4_0 => {
            for (j, q) in bytes[2..].iter().enumerate() {
                codes[j] = (q & 15) as i32 - 8;
                codes[j + 16] = (q >> 4) as i32 - 8;
            }
            f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
        }
        Format::Q5_0 => {
            codes.iter_mut().zip(q5_0::codes(bytes)).for_each(|(c, q)| *c = i32::from(q));
            f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
        }
        other => unreachable!("{other} has no integer blocks"),
    }
}
