//! Embedding lookup: `out[t] = table[token[t]] * scale` (Gemma scales by the square root of the width).

use crate::device::Device;
use crate::matrix::Matrix;
use crate::view::ViewMut;

/// Shapes: `out` (T, D), `table` (V, D). Panics on a token outside the table: callers check what people give them.
pub fn forward(device: &Device, mut out: ViewMut<'_, f32, 2>, table: &Matrix, tokens: &[u32], scale: f32) {
    let [n_rows, dim] = out.shape();
    assert_eq!(n_rows, tokens.len());
    assert_eq!(dim, table.cols());
    match device {
        Device::Cpu(_) => {
            for (row, token) in out.host_mut().chunks_exact_mut(dim).zip(tokens) {
                let token = *token as usize;
                table.decode_rows(token..token + 1, row);
                if scale != 1.0 {
                    row.iter_mut().for_each(|v| *v *= scale);
                }
            }
        }
    }
}
