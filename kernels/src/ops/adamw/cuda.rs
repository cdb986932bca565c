//! Launch of adamw.cu.

use super::{Factors, CHUNK};
use crate::cuda::{Cuda, LaunchShape};
use crate::view::{View, ViewMut};

/// ADAMW_THREADS and ADAMW_BLOCK of adamw.cu, whose ADAMW_CHUNK is CHUNK.
const THREADS: usize = 256;
const ELEMENTS_PER_BLOCK: usize = 4 * THREADS;
const _: () = assert!(CHUNK == 16_384 && CHUNK.is_multiple_of(ELEMENTS_PER_BLOCK));

pub fn step(cuda: &Cuda, p: ViewMut<'_, f32, 1>, g: View<'_, f32, 1>, moments: ViewMut<'_, f32, 1>, f: Factors) {
    let n = p.len();
    if n == 0 {
        return;
    }
    let grid = [n.div_ceil(ELEMENTS_PER_BLOCK) as u32, 1, 1];
    let shape = LaunchShape { grid, block: THREADS as u32, shared_bytes: 0 };
    let args = [
        p.ptr().into(),
        g.ptr().into(),
        moments.ptr().into(),
        (n as u64).into(),
        f.keep.into(),
        f.beta1.into(),
        f.rest1.into(),
        f.beta2.into(),
        f.rest2.into(),
        f.rate.into(),
        f.root.into(),
        f.eps.into(),
        f.gradient_scale.into(),
    ];
    cuda.launch("adamw_step", shape, &args);
}
