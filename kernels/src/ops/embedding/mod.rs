//! Embedding lookup: `out[t] = table[token[t]] * scale` (Gemma scales by the square root of the width).

mod cuda;

use crate::device::Device;
use crate::matrix::Matrix;
use crate::step::Step;
use crate::view::ViewMut;

/// Shapes: `out` (T, D), `table` (V, D); the step has T tokens. Panics on a token outside the table: callers check what
/// people give them.
pub fn forward(device: &Device, mut out: ViewMut<'_, f32, 2>, table: &Matrix, step: &Step, scale: f32) {
    let [n_rows, dim] = out.shape();
    assert_eq!(n_rows, step.n_rows());
    assert_eq!(dim, table.cols());
    assert!(step.tokens().iter().all(|token| (*token as usize) < table.rows()));
    match device {
        Device::Cpu(_) => {
            for (row, token) in out.host_mut().chunks_exact_mut(dim).zip(step.tokens()) {
                let token = *token as usize;
                table.decode_rows(token..token + 1, row);
                if scale != 1.0 {
                    row.iter_mut().for_each(|v| *v *= scale);
                }
            }
        }
        Device::Cuda(cuda) => cuda::forward(cuda, out, table, step, scale),
    }
}
