//! Embedding lookup: `out[t] = table[token[t]] * scale` (Gemma scales by the square root of the width).

mod cuda;

use std::ops::Range;

use crate::device::Device;
use crate::matrix::Matrix;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::step::Step;
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] =
    &[KernelModule::one("embedding", Role::Every), KernelModule::one("backward", Role::Training)];

/// Shapes: `out` (T, D), `table` (V, D); the step has T tokens. Panics on a token outside the table: callers check what
/// people give them.
pub fn forward(device: &Device, out: ViewMut<'_, f32, 2>, table: &Matrix, step: &Step, scale: f32) {
    forward_rows(device, out, table, step, 0..step.n_rows(), scale);
}

/// The same for some of the rows: the others stay as they are.
pub fn forward_rows(
    device: &Device,
    out: ViewMut<'_, f32, 2>,
    table: &Matrix,
    step: &Step,
    rows: Range<usize>,
    scale: f32,
) {
    let [n_rows, dim] = out.shape();
    assert_eq!(n_rows, step.n_rows());
    assert_eq!(dim, table.cols());
    let tokens = &step.tokens()[rows.clone()];
    assert!(tokens.iter().all(|token| (*token as usize) < table.rows()));
    let mut out = out.into_rows(rows.clone());
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
        Device::Cuda(cuda) => cuda::forward(cuda, out, table, step.tokens_ptr().offset(4 * rows.start), scale),
    }
}

/// Backward: `dtable[token[t]] += scale * dx[t]`, in order of t. Shapes: `dtable` (V, D), `dx` (T, D).
pub fn backward(device: &Device, mut dtable: ViewMut<'_, f32, 2>, dx: View<'_, f32, 2>, step: &Step, scale: f32) {
    let ([n_rows, dim], [rows, cols]) = (dx.shape(), dtable.shape());
    assert!(n_rows == step.n_rows() && dim == cols);
    assert!(step.tokens().iter().all(|token| (*token as usize) < rows));
    match device {
        Device::Cpu(_) => {
            // On one thread: a row is a few hundred values, and two rows may have one token.
            let dtable = dtable.host_mut();
            for (dx, token) in dx.host().chunks_exact(dim).zip(step.tokens()) {
                let row = &mut dtable[*token as usize * dim..][..dim];
                row.iter_mut().zip(dx).for_each(|(d, x)| *d += scale * x);
            }
        }
        Device::Cuda(cuda) => cuda::backward(cuda, dtable, dx, step, scale),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_rows_leave_the_others_as_they_are() {
        let device = Device::cpu(1).unwrap();
        let mut step = Step::new(&device, 3).unwrap();
        step.set(0, &[1, 0, 1]);
        let bytes = bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0]).to_vec();
        let table = Matrix::new(crate::Format::F32, 2, 2, crate::SharedBytes::from_vec(bytes));
        let mut out = [9.0f32; 6];
        forward_rows(&device, ViewMut::new(&mut out, [3, 2]), &table, &step, 1..3, 10.0);
        assert_eq!(out, [9.0, 9.0, 10.0, 20.0, 30.0, 40.0]);
        forward(&device, ViewMut::new(&mut out, [3, 2]), &table, &step, 1.0);
        assert_eq!(out, [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    }

    #[test]
    fn rows_of_one_token_are_added_in_order() {
        let device = Device::cpu(1).unwrap();
        let mut step = Step::new(&device, 3).unwrap();
        step.set(0, &[2, 0, 2]);
        let mut table = [1.0f32; 6];
        let dx = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        backward(&device, ViewMut::new(&mut table, [3, 2]), View::new(&dx, [3, 2]), &step, 10.0);
        assert_eq!(table, [31.0, 41.0, 1.0, 1.0, 61.0, 81.0]);
    }
}
