//! Launch of rows.cu.

use crate::cuda::{Cuda, LaunchShape};
use crate::view::{View, ViewMut};

/// ROWS_THREADS of rows.cu.
const THREADS: usize = 128;
/// Values of a thread at once.
const GROUP: usize = 4;

pub fn gather(cuda: &Cuda, out: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, rows: View<'_, u32, 1>) {
    launch(cuda, out, x, rows, false);
}

pub fn scatter(cuda: &Cuda, out: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, rows: View<'_, u32, 1>) {
    launch(cuda, out, x, rows, true);
}

fn launch(cuda: &Cuda, out: ViewMut<'_, f32, 2>, x: View<'_, f32, 2>, rows: View<'_, u32, 1>, is_scatter: bool) {
    let [_, dim] = x.shape();
    if rows.is_empty() || dim == 0 {
        return;
    }
    let grid = [rows.len() as u32, dim.div_ceil(GROUP * THREADS) as u32, 1];
    let shape = LaunchShape { grid, block: THREADS as u32, shared_bytes: 0 };
    let args = [out.ptr().into(), x.ptr().into(), rows.ptr().into(), (dim as u32).into(), u32::from(is_scatter).into()];
    cuda.launch("rows_move", shape, &args);
}
