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
}
