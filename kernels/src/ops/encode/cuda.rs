//! Launches of encode.cu.

use crate::cuda::{Cuda, LaunchShape};
use crate::formats::Format;
use crate::matrix::PackedMatrix;
use crate::view::View;

/// ENCODE_THREADS of encode.cu.
const THREADS: usize = 256;
/// Values of a thread at once.
const GROUP: usize = 4;

pub fn matrix(cuda: &Cuda, packed: &mut PackedMatrix, values: View<'_, f32, 2>) {
    let [rows, cols] = values.shape();
    if values.is_empty() {
        return;
    }
    let kernel = match packed.format {
        Format::F32 => "encode_f32",
        Format::F16 => "encode_f16",
        Format::BF16 => "encode_bf16",
        other => unreachable!("{other} is no float format"),
    };
    let grid = [rows as u32, cols.div_ceil(GROUP * THREADS) as u32, 1];
    let shape = LaunchShape { grid, block: THREADS as u32, shared_bytes: 0 };
    let args =
        [packed.codes.ptr().into(), values.ptr().into(), (cols as u32).into(), (packed.padded_cols as u32).into()];
    cuda.launch(kernel, shape, &args);
}
