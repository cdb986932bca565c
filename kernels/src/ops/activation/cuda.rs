//! Launch of activation.cu.

use crate::cuda::{Cuda, DevicePtr, LaunchShape};

use super::Activation;

const THREADS: usize = 256;

/// Blocks that keep a multiprocessor busy: more would only start later.
const BLOCKS_PER_SM: usize = 16;

pub fn forward(cuda: &Cuda, activation: Activation, gate: DevicePtr, up: DevicePtr, n: usize) {
    if n == 0 {
        return;
    }
    let n_blocks = n.div_ceil(THREADS).min(BLOCKS_PER_SM * cuda.n_sms() as usize);
    let shape = LaunchShape { grid: [n_blocks as u32, 1, 1], block: THREADS as u32, shared_bytes: 0 };
    let which: u32 = match activation {
        Activation::GeluTanh => 0,
        Activation::Silu => 1,
    };
    cuda.launch("activation_gated", shape, &[gate.into(), up.into(), (n as u64).into(), which.into()]);
}
