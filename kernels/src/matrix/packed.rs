//! Weights in the device's own layouts (`kernels/cuda/LAYOUTS.md`).

use std::ops::Range;
use std::sync::Arc;

use super::{pack, Matrix, SharedBytes};
use crate::cuda::{Allocation, Arena, Cuda, DeviceError, PinnedBytes};
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

    /// Bytes both planes of such a matrix take of an arena.
    pub fn planned_bytes(format: Format, rows: usize, cols: usize) -> usize {
        let (codes, scales) = pack::plane_bytes(format, rows, cols);
        Arena::padded(codes) + Arena::padded(scales)
    }

    /// Copies a matrix of the host to the device through `staging`; `on_rows_done` hears of the rows that need not be kept.
    ///
    /// # Errors
    /// The device has no room or fails, or `staging` is too small for eight rows.
    pub fn upload(
        cuda: &Cuda,
        matrix: &Matrix,
        memory: &mut dyn FnMut(usize) -> Result<Allocation, DeviceError>,
        staging: &mut PinnedBytes,
        on_rows_done: &mut dyn FnMut(Range<usize>),
    ) -> Result<PackedMatrix, DeviceError> {
        let (format, rows, cols) = (matrix.format(), matrix.rows(), matrix.cols());
        let (group_codes, group_scales) = pack::plane_bytes(format, pack::ROW_GROUP, cols);
        let available = staging.as_slice().len();
        let groups = available / (group_codes + group_scales).max(1);
        if groups == 0 {
            return Err(DeviceError::Other(format!(
                "the upload buffer has {available} bytes; {} rows of {cols} in {format} need {}",
                pack::ROW_GROUP,
                group_codes + group_scales
            )));
        }
        let (n_codes, n_scales) = pack::plane_bytes(format, rows, cols);
        let codes = memory(n_codes)?;
        let scales = if n_scales > 0 { Some(memory(n_scales)?) } else { None };
        let (factor, absmax_scale) = pack::absmax_factor(matrix.absmax());
        let mut first = 0;
        while first < rows {
            let part = first..rows.min(first + groups * pack::ROW_GROUP);
            let (part_codes, part_scales) = pack::plane_bytes(format, part.len(), cols);
            // Waits for the copy of the part before.
            let (c, s) = staging.as_mut_slice()[..part_codes + part_scales].split_at_mut(part_codes);
            pack::pack_rows(matrix, part.clone(), factor, c, s);
            let group = first / pack::ROW_GROUP;
            cuda.copy_from_pinned(&codes, group * group_codes, staging, 0..part_codes);
            if let Some(scales) = &scales {
                let bytes = part_codes..part_codes + part_scales;
                cuda.copy_from_pinned(scales, group * group_scales, staging, bytes);
            }
            on_rows_done(part.clone());
            first = part.end;
        }
        cuda.check()?;
        let padded_cols = cols.next_multiple_of(pack::TILE_COLS);
        Ok(PackedMatrix { format: format.on_gpu(), rows, cols, padded_cols, codes, scales, absmax_scale })
    }

    /// Zeros of a format without scales.
    ///
    /// # Errors
    /// The device has no room.
    pub(crate) fn zeros(cuda: &Cuda, format: Format, rows: usize, cols: usize) -> Result<PackedMatrix, DeviceError> {
        let (n_codes, n_scales) = pack::plane_bytes(format, rows, cols);
        assert_eq!(n_scales, 0, "{format} has scales");
        let mut codes = cuda.alloc(n_codes)?;
        codes.fill_zero()?;
        let padded_cols = cols.next_multiple_of(pack::TILE_COLS);
        Ok(PackedMatrix { format, rows, cols, padded_cols, codes, scales: None, absmax_scale: 1.0 })
    }

    /// The same in other memory of the device, without waiting.
    ///
    /// # Errors
    /// The device has no room.
    pub fn copy(&self) -> Result<PackedMatrix, DeviceError> {
        let copy = |from: &Allocation| {
            let to = from.cuda().alloc(from.len_bytes())?;
            from.cuda().copy_on_device(to.ptr(), from.ptr(), from.len_bytes());
            Ok(to)
        };
        let (codes, scales) = (copy(&self.codes)?, self.scales.as_ref().map(copy).transpose()?);
        Ok(PackedMatrix { codes, scales, ..*self })
    }

    /// The matrix on the host again: the file's bytes, NF4's absmax as the device rounded it.
    ///
    /// # Errors
    /// The device fails.
    pub fn download(&self) -> Result<Matrix, DeviceError> {
        let mut codes = vec![0; self.codes.len_bytes()];
        self.codes.read(0, &mut codes)?;
        let mut scales = vec![0; self.scales.as_ref().map_or(0, |s| s.len_bytes())];
        if let Some(plane) = &self.scales {
            plane.read(0, &mut scales)?;
        }
        let (bytes, absmax) = pack::unpack(self.format, self.rows, self.cols, self.absmax_scale, &codes, &scales);
        let bytes = SharedBytes::from_vec(bytes);
        Ok(match self.format {
            Format::NF4 => Matrix::new_nf4(self.rows, self.cols, bytes, Arc::from(absmax)),
            format => Matrix::new(format, self.rows, self.cols, bytes),
        })
    }
}
