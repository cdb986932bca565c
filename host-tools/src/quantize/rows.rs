//! Rows of a source matrix -> bytes of a GGUF format, with the error that makes.

use std::path::Path;

use lichen_kernels::formats::{decode, float, q4_0, q8_0};
use lichen_kernels::Format;
use lichen_runtime::model_source::PartShape;
use lichen_runtime::{Error, ModelSource, Part, Result};

use super::report::Sums;
use super::Progress;

/// Values held at a time: 4 MiB as f32, twice.
const BLOCK_VALUES: usize = 1 << 20;

/// A weight of the source and what it is called in what is written.
#[derive(Clone, Copy)]
pub struct Weight<'a> {
    pub part: Part,
    pub layer: Option<usize>,
    pub name: &'a str,
    /// For messages.
    pub model: &'a Path,
}

impl Weight<'_> {
    /// Refuses NaN and infinity in `(rows, cols)` from `first_row` on: blocks would hide them.
    pub fn check_finite(&self, values: &[f32], first_row: usize, cols: usize) -> Result<()> {
        let Some(at) = values.iter().position(|v| !v.is_finite()) else { return Ok(()) };
        Err(Error::input(format!(
            "tensor \"{}\": row {} column {} is {}: the model is damaged",
            self.name,
            first_row + at / cols,
            at % cols,
            values[at]
        ))
        .in_file(self.model))
    }
}

/// Rows that are visited at a time.
pub fn rows_per_block(cols: usize) -> usize {
    (BLOCK_VALUES / cols).max(1)
}

/// Streams a weight, as its file holds it, as `format` into `write`. Bytes are passed on as they are where the source has that format.
///
/// # Errors
/// A value is not finite or too large for the format; what `write` and `progress` return.
pub fn convert(
    source: &ModelSource,
    weight: Weight,
    format: Format,
    progress: &mut dyn Progress,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Sums> {
    let Weight { part, layer, .. } = weight;
    let (PartShape::Matrix(_, cols) | PartShape::Vector(cols)) = part.shape(source.config());
    let mut sums = Sums::default();
    let mut decoded = Vec::new();
    if source.plain_format(part, layer)? == Some(format) {
        source.visit_bytes(part, layer, rows_per_block(cols), |rows, bytes| {
            decoded.resize(rows.len() * cols, 0.0);
            decode(format, bytes, &mut decoded);
            weight.check_finite(&decoded, rows.start, cols)?;
            sums.add(&decoded, &decoded);
            write(bytes)?;
            progress.advance(decoded.len() as u64)
        })?;
        return Ok(sums);
    }
    let mut encoded = Vec::new();
    source.visit_rows(part, layer, rows_per_block(cols), |rows, values| {
        weight.check_finite(values, rows.start, cols)?;
        encoded.clear();
        encode(format, values, &mut encoded);
        decoded.resize(values.len(), 0.0);
        decode(format, &encoded, &mut decoded);
        if decoded.iter().any(|v| !v.is_finite()) {
            let message = format!("tensor \"{}\": values too large for the f16 scales of {format}", weight.name);
            return Err(Error::input(message).in_file(weight.model));
        }
        sums.add(values, &decoded);
        write(&encoded)?;
        progress.advance(values.len() as u64)
    })?;
    Ok(sums)
}

fn encode(format: Format, values: &[f32], out: &mut Vec<u8>) {
    match format {
        Format::Q8_0 => q8_0::encode(values, out),
        Format::Q4_0 => q4_0::encode(values, out),
        Format::F16 => float::encode_f16(values, out),
        Format::BF16 => float::encode_bf16(values, out),
        other => unreachable!("{other} is never written"),
    }
}
