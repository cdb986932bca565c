//! Rows of a source matrix, with what an adapter adds to them -> bytes of a GGUF format, with the error that makes.

use std::ops::Range;
use std::path::Path;

use lichen_kernels::formats::{decode, float, q4_0, q5_0, q8_0};
use lichen_kernels::{Format, Matrix};
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::{Error, ModelConfig, ModelSource, Part, Result};

use super::merge::{Merge, MergePair};
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
    ///
    /// # Errors
    /// The first that is found.
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

/// Where weights come from: a model's files, and an adapter that is added on the way.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub source: &'a ModelSource,
    pub merge: Option<&'a Merge>,
}

impl Input<'_> {
    /// Of what is written: with an adapter's own head or embedding, a model whose head was its embedding has both.
    pub fn config(&self) -> ModelConfig {
        let config = self.source.config();
        let tied_head = config.tied_head && !self.merge.is_some_and(|merge| merge.unties(config));
        ModelConfig { tied_head, ..config.clone() }
    }

    /// Format whose bytes can be passed on as they are.
    fn format_as_is(&self, weight: Weight) -> Result<Option<Format>> {
        match self.pair_of(weight).is_some() || self.table_of(weight).is_some() {
            true => Ok(None),
            false => self.source.plain_format(self.stored_part(weight), weight.layer),
        }
    }

    /// The part of the source that a weight is read from.
    fn stored_part(&self, weight: Weight) -> Part {
        match weight.part {
            Part::Output if self.source.config().tied_head => Part::TokenEmbedding,
            part => part,
        }
    }

    fn table_of(&self, weight: Weight) -> Option<&Matrix> {
        self.merge?.table(weight.part)
    }

    /// Calls `visit` with the rows of a weight, at most `rows_max` at a time, front to back, all of them finite.
    ///
    /// # Errors
    /// A value is not finite; what `visit` returns.
    pub fn visit_rows(
        &self,
        weight: Weight,
        rows_max: usize,
        mut visit: impl FnMut(Range<usize>, &[f32]) -> Result<()>,
    ) -> Result<()> {
        if let Some(table) = self.table_of(weight) {
            return visit_table(table, rows_max, visit);
        }
        let pair = self.pair_of(weight);
        let mut merged = Vec::new();
        self.source.visit_rows(self.stored_part(weight), weight.layer, rows_max, |rows, values| {
            let cols = values.len() / rows.len();
            weight.check_finite(values, rows.start, cols)?;
            let Some(pair) = &pair else { return visit(rows, values) };
            merged.clear();
            merged.extend_from_slice(values);
            pair.add_to(&mut merged, rows.start);
            if merged.iter().any(|v| !v.is_finite()) {
                let message = format!("tensor \"{}\": the sum with the adapter is too large for f32", weight.name);
                return Err(Error::input(message).in_file(weight.model));
            }
            visit(rows, &merged)
        })
    }

    fn pair_of(&self, weight: Weight) -> Option<MergePair<'_>> {
        self.merge?.pair(weight.part, weight.layer?)
    }
}

/// [`Input::visit_rows`] of an adapter's own matrix, whose values were looked at when it was opened.
fn visit_table(
    table: &Matrix,
    rows_max: usize,
    mut visit: impl FnMut(Range<usize>, &[f32]) -> Result<()>,
) -> Result<()> {
    let mut values = vec![0.0; rows_max.min(table.rows()) * table.cols()];
    for start in (0..table.rows()).step_by(rows_max) {
        let rows = start..table.rows().min(start + rows_max);
        let values = &mut values[..rows.len() * table.cols()];
        table.decode_rows(rows.clone(), values);
        visit(rows, values)?;
    }
    Ok(())
}

/// Rows that are visited at a time.
pub fn rows_per_block(cols: usize) -> usize {
    (BLOCK_VALUES / cols).max(1)
}

/// Streams a weight, as its file holds it, as `format` into `write`. Bytes are passed on as they are where the source has
/// that format and nothing is added to them.
///
/// # Errors
/// A value is not finite or too large for the format; what `write` and `progress` return.
pub fn convert(
    input: Input,
    weight: Weight,
    format: Format,
    progress: &mut dyn Progress,
    mut write: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Sums> {
    let (PartShape::Matrix(_, cols) | PartShape::Vector(cols)) = weight.part.shape(input.source.config());
    let mut sums = Sums::default();
    let mut decoded = Vec::new();
    if input.format_as_is(weight)? == Some(format) {
        input.source.visit_bytes(input.stored_part(weight), weight.layer, rows_per_block(cols), |rows, bytes| {
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
    input.visit_rows(weight, rows_per_block(cols), |_, values| {
        encoded.clear();
        encode(format, values, &mut encoded);
        decoded.resize(values.len(), 0.0);
        decode(format, &encoded, &mut decoded);
        if decoded.iter().any(|v| !v.is_finite()) {
            let of = if format.is_float() { "" } else { "the f16 scales of " };
            let message = format!("tensor \"{}\": values too large for {of}{format}", weight.name);
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
        Format::Q5_0 => q5_0::encode(values, out),
        Format::Q4_0 => q4_0::encode(values, out),
        Format::F16 => float::encode_f16(values, out),
        Format::BF16 => float::encode_bf16(values, out),
        Format::F32 => out.extend_from_slice(bytemuck::cast_slice(values)),
        other => unreachable!("{other} is never written"),
    }
}
