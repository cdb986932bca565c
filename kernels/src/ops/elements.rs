//! The launch shape of what goes element by element (kernels/cuda/elements.cuh).

use crate::cuda::{Cuda, LaunchShape};

/// ELEMENTS_THREADS of elements.cuh.
const THREADS: usize = 256;
/// Elements of a thread at once.
const GROUP: usize = 4;
/// Blocks that keep a multiprocessor busy: more would only start later.
const BLOCKS_PER_SM: usize = 16;

/// For `n` elements, none included.
pub(crate) fn shape(cuda: &Cuda, n: usize) -> LaunchShape {
    let n_blocks = n.div_ceil(GROUP * THREADS).clamp(1, BLOCKS_PER_SM * cuda.n_sms() as usize);
    LaunchShape { grid: [n_blocks as u32, 1, 1], block: THREADS as u32, shared_bytes: 0 }
}
