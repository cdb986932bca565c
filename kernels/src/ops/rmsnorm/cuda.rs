//! Launches of rmsnorm.cu.

use crate::cuda::{Cuda, DevicePtr, LaunchShape};
use crate::view::{View, ViewMut};

use super::Normed;

/// Adds in place: the block that owns a row is its only reader.
pub fn add_norm(cuda: &Cuda, n: Normed<'_>) {
    let dim = n.residual.dim();
    let first = n.rows.start * dim * size_of::<f32>();
    let (x, y) = n.residual.both_mut(n.rows.end);
    let x = x.ptr().offset(first);
    let y = y.map_or(DevicePtr::NULL, |y| y.ptr().offset(first));
    let post_norm = n.post_norm.map_or(DevicePtr::NULL, |w| w.ptr());
    launch(cuda, [x, x, y, post_norm, n.weight.ptr(), n.h.ptr()], n.rows.len(), dim, n.eps);
    n.residual.settled(&n.rows);
}

pub fn forward(cuda: &Cuda, out: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, weight: View<'_, f32, 1>, eps: f32) {
    let [n_rows, dim] = x.shape();
    let null = DevicePtr::NULL;
    launch(cuda, [x.ptr(), null, null, null, weight.ptr(), out.ptr()], n_rows, dim, eps);
}

/// `pointers`: x, x_new, y, post_weight, weight, h.
fn launch(cuda: &Cuda, pointers: [DevicePtr; 6], n_rows: usize, dim: usize, eps: f32) {
    let [x, x_new, y, post_weight, weight, h] = pointers.map(Into::into);
    let shape = LaunchShape { grid: [n_rows as u32, 1, 1], block: 256, shared_bytes: 0 };
    cuda.launch("rmsnorm_add", shape, &[x, x_new, y, post_weight, weight, h, (dim as u32).into(), eps.into()]);
}
