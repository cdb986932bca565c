//! Launches of rmsnorm.cu and backward.cu.

use crate::cuda::{Cuda, DevicePtr, LaunchShape};
use crate::ops::Write;
use crate::view::{View, ViewMut};

use super::Normed;

/// NORM_THREADS of sums.cuh.
const THREADS: usize = 256;
/// Rows of a block where a warp takes one.
const SHORT_ROWS: usize = THREADS / 32;
/// The longest row that a warp takes: sixteen values a lane. A block on a row of a head would have more barriers than work.
const SHORT_DIM_MAX: usize = 512;
/// NORM_COLUMNS and NORM_COLUMN_THREADS of backward.cu.
const COLUMNS: usize = 8;
const COLUMN_THREADS: u32 = 512;

/// A norm that adds to the stream in place. x, y and h are those of the first row; y and the post-norm's weight may be null.
#[derive(Clone, Copy)]
pub struct InPlace {
    pub x: DevicePtr,
    pub y: DevicePtr,
    pub post_weight: DevicePtr,
    pub weight: DevicePtr,
    pub h: DevicePtr,
    pub eps: f32,
}

impl InPlace {
    /// The stream counts as added to from now on: it is, for whatever is launched after this.
    pub fn of(n: Normed<'_>) -> InPlace {
        let first = n.rows.start * n.residual.dim() * size_of::<f32>();
        let (x, y) = n.residual.both_mut(n.rows.end);
        let x = x.ptr().offset(first);
        let y = y.map_or(DevicePtr::NULL, |y| y.ptr().offset(first));
        n.residual.settled(&n.rows);
        let post_weight = n.post_norm.map_or(DevicePtr::NULL, |w| w.ptr());
        InPlace { x, y, post_weight, weight: n.weight.ptr(), h: n.h.ptr(), eps: n.eps }
    }
}

/// Adds in place: the block that owns a row is its only reader.
pub fn add_norm(cuda: &Cuda, n: Normed<'_>) {
    let [n_rows, dim] = n.h.shape();
    let n = InPlace::of(n);
    launch(cuda, n, n.x, n_rows, dim);
}

pub fn forward(cuda: &Cuda, out: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, weight: View<'_, f32, 1>, eps: f32) {
    let [n_rows, dim] = x.shape();
    let (y, post_weight) = (DevicePtr::NULL, DevicePtr::NULL);
    let norm = InPlace { x: x.ptr(), y, post_weight, weight: weight.ptr(), h: out.ptr(), eps };
    launch(cuda, norm, DevicePtr::NULL, n_rows, dim);
}

/// `x_new` takes the stream that was added to; null where nothing is added.
fn launch(cuda: &Cuda, norm: InPlace, x_new: DevicePtr, n_rows: usize, dim: usize) {
    let InPlace { x, y, post_weight, weight, h, eps } = norm;
    let [x, x_new, y, post_weight, weight, h] = [x, x_new, y, post_weight, weight, h].map(Into::into);
    let shape = LaunchShape { grid: [n_rows as u32, 1, 1], block: 256, shared_bytes: 0 };
    cuda.launch("rmsnorm_add", shape, &[x, x_new, y, post_weight, weight, h, (dim as u32).into(), eps.into()]);
}

/// `dx` and `dy` (T, D) may be one.
pub fn backward_input(
    cuda: &Cuda,
    dx: DevicePtr,
    dy: DevicePtr,
    x: View<'_, f32, 2>,
    weight: View<'_, f32, 1>,
    eps: f32,
    write: Write,
) {
    let [n_rows, dim] = x.shape();
    if x.is_empty() {
        return;
    }
    let (block, width, is_added) = (THREADS as u32, dim as u32, u32::from(write == Write::Add));
    let [dx, dy, x, weight] = [dx, dy, x.ptr(), weight.ptr()].map(Into::into);
    if dim <= SHORT_DIM_MAX {
        let shape = LaunchShape { grid: [n_rows.div_ceil(SHORT_ROWS) as u32, 1, 1], block, shared_bytes: 0 };
        let args = [dx, dy, x, weight, (n_rows as u32).into(), width.into(), eps.into(), is_added.into()];
        cuda.launch("rmsnorm_backward_short", shape, &args);
    } else {
        let shape = LaunchShape { grid: [n_rows as u32, 1, 1], block, shared_bytes: 0 };
        let args = [dx, dy, x, weight, width.into(), eps.into(), is_added.into()];
        cuda.launch("rmsnorm_backward_long", shape, &args);
    }
}

pub fn backward_weight(
    cuda: &Cuda,
    dweight: ViewMut<'_, f32, 1>,
    rstd: ViewMut<'_, f32, 1>,
    dy: View<'_, f32, 2>,
    x: View<'_, f32, 2>,
    eps: f32,
) {
    let [n_rows, dim] = x.shape();
    if x.is_empty() {
        return;
    }
    let [dweight, rstd, dy, x] = [dweight.ptr(), rstd.ptr(), dy.ptr(), x.ptr()].map(Into::into);
    let (rows, width) = ((n_rows as u32).into(), (dim as u32).into());
    let grid = [n_rows.div_ceil(SHORT_ROWS) as u32, 1, 1];
    let shape = LaunchShape { grid, block: THREADS as u32, shared_bytes: 0 };
    cuda.launch("rmsnorm_rstd", shape, &[rstd, x, rows, width, eps.into()]);
    let grid = [dim.div_ceil(COLUMNS) as u32, 1, 1];
    let shape = LaunchShape { grid, block: COLUMN_THREADS, shared_bytes: 0 };
    cuda.launch("rmsnorm_backward_weight", shape, &[dweight, dy, x, rstd, rows, width]);
}
