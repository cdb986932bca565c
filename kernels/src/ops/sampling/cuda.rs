//! Launches of sampling.cu.

use super::MAX_TOP_K;
use crate::cuda::{Cuda, LaunchShape};
use crate::readback::Readback;
use crate::view::{Buffer, View};

const THREADS: u32 = 256;
/// Logits that are worth a block.
const BLOCK_LOGITS: usize = 2048;
/// The last block merges what the others found: not too many of them.
const BLOCKS_MAX: usize = 128;

fn n_blocks(vocab_size: usize) -> usize {
    vocab_size.div_ceil(BLOCK_LOGITS).clamp(1, BLOCKS_MAX)
}

/// u32 values of the workspace of a row: a counter and one that is unused, then 64-bit keys, a list of them a block.
pub fn workspace_len(vocab_size: usize) -> usize {
    2 + n_blocks(vocab_size) * MAX_TOP_K * 2
}

pub fn find(
    cuda: &Cuda,
    logits: View<'_, f32, 2>,
    k: usize,
    workspace: &mut Buffer<u32>,
    found: &mut Readback<[u32; 2]>,
) {
    let [n_rows, n] = logits.shape();
    assert!(workspace.len() >= n_rows * workspace_len(n) && found.len() >= n_rows * k, "{n_rows} rows of {n} logits");
    let shape = LaunchShape { grid: [n_blocks(n) as u32, n_rows as u32, 1], block: THREADS, shared_bytes: 0 };
    let (logits, n, k) = (logits.ptr().into(), (n as u32).into(), k as u32);
    let (workspace, found) = (workspace.ptr().into(), found.ptr().into());
    if k == 1 {
        cuda.launch("sampling_argmax", shape, &[logits, n, workspace, found]);
    } else {
        cuda.launch("sampling_top_k", shape, &[logits, n, k.into(), workspace, found]);
    }
}
