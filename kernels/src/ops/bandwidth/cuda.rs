//! Blocks of 256 threads with eight reads of 16 bytes on their way each: 32 KiB a block, so a few blocks fill an SM.

use super::Pass;
use crate::cuda::{Allocation, Cuda, DeviceError, LaunchShape};

const THREADS: u32 = 256;
const BLOCKS_PER_SM: u32 = 8;

pub(super) fn read(cuda: &Cuda, data: &Allocation, n_passes: usize) -> Result<Vec<Pass>, DeviceError> {
    assert!(data.len_bytes().is_multiple_of(16), "{} bytes; whole reads of 16", data.len_bytes());
    let n = (data.len_bytes() / 16) as u64;
    let n_blocks = (cuda.n_sms() * BLOCKS_PER_SM).min(n.div_ceil(u64::from(THREADS)).max(1) as u32);
    let sums = cuda.alloc(n_blocks as usize * 4)?;
    let shape = LaunchShape { grid: [n_blocks, 1, 1], block: THREADS, shared_bytes: 0 };
    let args = [data.ptr().into(), n.into(), sums.ptr().into()];
    cuda.prepare(&|module| module == "bandwidth/bandwidth")?;
    let mut of_blocks = vec![0u32; n_blocks as usize];
    (0..n_passes)
        .map(|_| {
            let ms = cuda.time_ms(&mut || cuda.launch("read_bandwidth", shape, &args))?;
            sums.read(0, bytemuck::cast_slice_mut(&mut of_blocks))?;
            Ok(Pass { ms, sum: of_blocks.iter().fold(0, |a, b| a.wrapping_add(*b)) })
        })
        .collect()
}
