//! Weights as a stream of numbers, for programs that convert a whole model in little memory.

use std::ops::Range;
use std::path::Path;

use lichen_kernels::formats::decode;
use lichen_kernels::{Format, Matrix};

use super::{Backing, ModelSource, Part, PartShape, Stored};
use crate::error::Result;
use crate::files::formats::gguf::Metadata;

/// Bytes of a source after which its pages are given back.
const CHUNK_BYTES: usize = 4 << 20;

/// What a model is stored in, for those who copy what the weights do not say.
pub enum Origin<'a> {
    /// The metadata of a GGUF file.
    Gguf(&'a Metadata),
    /// A Hugging Face folder.
    HuggingFace(&'a Path),
}

impl ModelSource {
    pub fn origin(&self) -> Origin<'_> {
        match &self.backing {
            Backing::Gguf(model) => Origin::Gguf(model.metadata()),
            Backing::HuggingFace(model) => Origin::HuggingFace(&model.dir),
        }
    }

    /// Format in which a weight lies in the file; `None` when it is spread over several tensors (NF4, int8).
    pub fn plain_format(&self, part: Part, layer: Option<usize>) -> Result<Option<Format>> {
        Ok(self.plain(part, layer)?.map(|stored| stored.format))
    }

    /// Calls `visit` with the rows of a weight as the file holds them, at most `rows_max` at a time, front to back; a
    /// vector is one row. The file's pages are given back behind. Panics where [`ModelSource::plain_format`] is `None`.
    ///
    /// # Errors
    /// What `visit` returns.
    pub fn visit_bytes(
        &self,
        part: Part,
        layer: Option<usize>,
        rows_max: usize,
        mut visit: impl FnMut(Range<usize>, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let (rows, cols) = self.rows_and_cols(part);
        let stored = self.plain(part, layer)?.expect("one tensor");
        let row_bytes = stored.format.row_bytes(cols).expect("checked when the file was opened");
        let mut dropped = 0;
        for start in (0..rows).step_by(rows_max) {
            let block = start..rows.min(start + rows_max);
            let bytes = block.start * row_bytes..block.end * row_bytes;
            visit(block, &stored.bytes.as_slice()[bytes.clone()])?;
            if bytes.end - dropped >= CHUNK_BYTES || bytes.end == rows * row_bytes {
                self.drop_pages(&stored, dropped..bytes.end);
                dropped = bytes.end;
            }
        }
        Ok(())
    }

    /// The same with the rows decoded, `(rows.len(), cols)`. Every format and scheme that is read; an int8 layer is held
    /// whole while its rows are visited.
    pub fn visit_rows(
        &self,
        part: Part,
        layer: Option<usize>,
        rows_max: usize,
        mut visit: impl FnMut(Range<usize>, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let (rows, cols) = self.rows_and_cols(part);
        let mut values = vec![0.0; rows_max.min(rows) * cols];
        if let Some(format) = self.plain_format(part, layer)? {
            return self.visit_bytes(part, layer, rows_max, |block, bytes| {
                let values = &mut values[..block.len() * cols];
                decode(format, bytes, values);
                visit(block, values)
            });
        }
        let matrix: Matrix = self.matrix(part, layer)?;
        for start in (0..rows).step_by(rows_max) {
            let block = start..rows.min(start + rows_max);
            let values = &mut values[..block.len() * cols];
            matrix.decode_rows(block.clone(), values);
            visit(block, values)?;
        }
        self.drop_planes(part, layer);
        Ok(())
    }

    fn rows_and_cols(&self, part: Part) -> (usize, usize) {
        match part.shape(self.config()) {
            PartShape::Vector(n) => (1, n),
            PartShape::Matrix(rows, cols) => (rows, cols),
        }
    }

    fn plain(&self, part: Part, layer: Option<usize>) -> Result<Option<Stored>> {
        match &self.backing {
            Backing::Gguf(model) => model.stored(part, layer).map(Some),
            Backing::HuggingFace(model) if model.is_plain(part, layer) => model.stored(part, layer).map(Some),
            Backing::HuggingFace(_) => Ok(None),
        }
    }

    /// Releases the pages of everything a weight is stored in.
    fn drop_planes(&self, part: Part, layer: Option<usize>) {
        if let Backing::HuggingFace(model) = &self.backing {
            for (_, _, bytes) in model.planes(part, layer) {
                let len = bytes.as_slice().len();
                self.drop_pages(&Stored { format: Format::F32, bytes }, 0..len);
            }
        }
    }
}
