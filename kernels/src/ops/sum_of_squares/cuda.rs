//! Launch of sum_of_squares.cu.

use super::n_partials;
use crate::cuda::{Cuda, LaunchShape};
use crate::view::{View, ViewMut};

/// SQUARES_THREADS of sum_of_squares.cu.
const THREADS: usize = 128;
/// Four threads make one partial sum.
const PARTIALS_PER_BLOCK: usize = THREADS / 4;

pub fn compute(cuda: &Cuda, x: View<'_, f32, 1>, partials: ViewMut<'_, f64, 1>) {
    if x.is_empty() {
        return;
    }
    let grid = [n_partials(x.len()).div_ceil(PARTIALS_PER_BLOCK) as u32, 1, 1];
    let shape = LaunchShape { grid, block: THREADS as u32, shared_bytes: 0 };
    cuda.launch("sum_of_squares_partials", shape, &[partials.ptr().into(), x.ptr().into(), (x.len() as u64).into()]);
}
