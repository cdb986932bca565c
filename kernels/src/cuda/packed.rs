//! Weights in the device's own layouts.

use super::Allocation;
use crate::formats::Format;

/// A matrix on the device: codes and scales in planes of their own, rows and columns padded to whole tiles.
pub struct PackedMatrix {
    pub format: Format,
    pub rows: usize,
    pub cols: usize,
    /// `cols` rounded up to 128.
    pub padded_cols: usize,
    pub codes: Allocation,
    /// Block scales; `None` for float formats.
    pub scales: Option<Allocation>,
    /// NF4: what every product is multiplied by, a power of two; 1 for the others.
    pub absmax_scale: f32,
}

impl PackedMatrix {
    /// Bytes of both planes.
    pub fn size_bytes(&self) -> usize {
        self.codes.len_bytes() + self.scales.as_ref().map_or(0, |s| s.len_bytes())
    }

    /// Bytes both planes of such a matrix take.
    pub fn planned_bytes(_format: Format, _rows: usize, _cols: usize) -> usize {
        unimplemented!()
    }

    /// Copies a matrix of the host to the device through `staging`; `on_rows_done` hears of the rows that need not be kept.
    pub fn upload(
        _cuda: &super::Cuda,
        _matrix: &crate::Matrix,
        _memory: &mut dyn FnMut(usize) -> Result<Allocation, super::DeviceError>,
        _staging: &mut super::PinnedBytes,
        _on_rows_done: &mut dyn FnMut(std::ops::Range<usize>),
    ) -> Result<PackedMatrix, super::DeviceError> {
        unimplemented!()
    }
}
