//! Some rows of an array, and back to their places: the labelled ones, which alone have a loss.

mod cuda;

use crate::device::Device;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("rows", Role::Training)];

/// `out[i] = x[rows[i]]`. Shapes: `out` (n, D), `x` (T, D), `rows` (n), each below T.
pub fn gather(device: &Device, mut out: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, rows: View<'_, u32, 1>) {
    let ([n, dim], [_, x_dim]) = (out.shape(), x.shape());
    assert!(rows.len() == n && dim == x_dim);
    match device {
        Device::Cpu(_) => {
            for (to, row) in out.host_mut().chunks_exact_mut(dim).zip(rows.host()) {
                to.copy_from_slice(&x.host()[*row as usize * dim..][..dim]);
            }
        }
        Device::Cuda(cuda) => cuda::gather(cuda, out, x, rows),
    }
}

/// `out[rows[i]] = x[i]`; other rows stay. Shapes: `out` (T, D), `x` (n, D), `rows` (n), each below T and none twice.
pub fn scatter(device: &Device, mut out: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, rows: View<'_, u32, 1>) {
    let ([_, dim], [n, x_dim]) = (out.shape(), x.shape());
    assert!(rows.len() == n && dim == x_dim);
    match device {
        Device::Cpu(_) => {
            let out = out.host_mut();
            for (from, row) in x.host().chunks_exact(dim).zip(rows.host()) {
                out[*row as usize * dim..][..dim].copy_from_slice(from);
            }
        }
        Device::Cuda(cuda) => cuda::scatter(cuda, out, x, rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_and_come_back() {
        let device = Device::cpu(1).unwrap();
        let (x, rows) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2u32, 0]);
        let mut out = [0.0; 4];
        gather(&device, ViewMut::new(&mut out, [2, 2]), View::new(&x, [3, 2]), View::new(&rows, [2]));
        assert_eq!(out, [5.0, 6.0, 1.0, 2.0]);
        let mut back = [9.0; 6];
        scatter(&device, ViewMut::new(&mut back, [3, 2]), View::new(&out, [2, 2]), View::new(&rows, [2]));
        assert_eq!(back, [1.0, 2.0, 9.0, 9.0, 5.0, 6.0]);
    }
}
