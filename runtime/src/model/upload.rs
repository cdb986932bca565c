//! Weights on their way to a GPU: through one small pinned buffer, repacked into the device's layout, the file's pages given
//! back behind. On the CPU they stay where they are.

use std::ops::Range;

use lichen_kernels::cuda::{Arena, Cuda, PinnedBytes};
use lichen_kernels::{Device, Format, Matrix, PackedMatrix};

use crate::error::Result;

/// Bytes of the pinned buffer, both halves: one half is filled while the other is copied.
pub const STAGING_BYTES: usize = 16 << 20;

/// Carries matrices to the device, one after the other.
pub struct Upload {
    gpu: Option<(Cuda, PinnedBytes)>,
}

impl Upload {
    /// # Errors: no pinned memory is left.
    pub fn new(device: &Device) -> Result<Upload> {
        let gpu = match device {
            Device::Cpu(_) => None,
            Device::Cuda(cuda) => Some((cuda.clone(), cuda.alloc_pinned(STAGING_BYTES)?)),
        };
        Ok(Upload { gpu })
    }

    /// The matrix where the device wants it. `release` gets each part of its bytes once it has been copied.
    ///
    /// # Errors
    /// The device has no room.
    pub fn matrix(&mut self, matrix: Matrix, release: &dyn Fn(&[u8])) -> Result<Matrix> {
        let Some((cuda, staging)) = &mut self.gpu else { return Ok(matrix) };
        let row_bytes = matrix.bytes().len() / matrix.rows().max(1);
        let bytes = matrix.bytes();
        let mut done = |rows: Range<usize>| release(&bytes[rows.start * row_bytes..rows.end * row_bytes]);
        let packed = PackedMatrix::upload(cuda, &matrix, &mut |bytes| cuda.alloc(bytes), staging, &mut done)?;
        Ok(Matrix::on_gpu(packed))
    }
}

/// Device bytes of a matrix stored in `format`, as the loader keeps it there.
pub(crate) fn matrix_bytes(format: Format, rows: usize, cols: usize) -> usize {
    PackedMatrix::planned_bytes(format, rows, cols)
}

/// Device bytes of a vector of `n` values.
pub(crate) fn vector_bytes(n: usize) -> usize {
    Arena::padded(4 * n)
}
