//! One linear layer as bitsandbytes stores it: nibbles, and two levels of scales.
//!
//! The scales come first in the file and the nibbles last, so a layer is read twice: once for the largest value of each
//! block of 64, once for the nibbles. What is kept in between is 1 byte per 64 values.

use lichen_kernels::formats::nf4::{self, NestedScales};
use lichen_kernels::Format;
use lichen_runtime::files::formats::safetensors::Dtype;
use lichen_runtime::files::formats::safetensors_write::NewTensor;
use lichen_runtime::Result;

use super::report::Sums;
use super::rows::{rows_per_block, Input, Weight};
use super::Progress;

/// Length of `quant_state` where it is not known yet: for the bill, never for a header.
const QUANT_STATE_BYTES: usize = 180;

/// A linear layer `(rows, cols)` and the scales of its blocks.
pub struct Nf4Layer {
    rows: usize,
    cols: usize,
    scales: NestedScales,
    quant_state: String,
}

impl Nf4Layer {
    /// The first pass.
    ///
    /// # Errors
    /// A value is not finite; what `progress` returns.
    pub fn read(
        input: Input,
        weight: Weight,
        (rows, cols): (usize, usize),
        progress: &mut dyn Progress,
    ) -> Result<Nf4Layer> {
        let mut absmax = Vec::with_capacity((rows * cols).div_ceil(nf4::BLOCK));
        input.visit_rows(weight, whole_blocks(cols), |_, values| {
            let largest = |block: &[f32]| block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            absmax.extend(values.chunks(nf4::BLOCK).map(largest));
            progress.advance(values.len() as u64)
        })?;
        let scales = nf4::encode_nested(&absmax);
        let dtype = match input.source.plain_format(weight.part, weight.layer)? {
            Some(Format::BF16) => "bfloat16",
            Some(Format::F16) => "float16",
            _ => "float32",
        };
        let quant_state = quant_state(dtype, rows, cols, scales.offset);
        Ok(Nf4Layer { rows, cols, scales, quant_state })
    }

    /// The tensors of the layer `name` (`P.weight`), each with its contents but for the nibbles.
    pub fn tensors(&self, name: &str) -> Vec<(NewTensor, Option<Vec<u8>>)> {
        let part = |part: &str| format!("{name}.{part}");
        let f32s = |name: String, values: &[f32]| {
            let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (NewTensor::new(name, Dtype::F32, &[values.len()]), Some(bytes))
        };
        let bytes =
            |name: String, bytes: &[u8]| (NewTensor::new(name, Dtype::U8, &[bytes.len()]), Some(bytes.to_vec()));
        let n_bytes = (self.rows * self.cols).div_ceil(2);
        vec![
            f32s(part("nested_absmax"), &self.scales.nested_absmax),
            f32s(part("nested_quant_map"), nf4::dynamic_map()),
            f32s(part("quant_map"), &nf4::LEVELS),
            (NewTensor::new(name, Dtype::U8, &[n_bytes, 1]), None),
            bytes(part("absmax"), &self.scales.codes),
            bytes(part("quant_state.bitsandbytes__nf4"), self.quant_state.as_bytes()),
        ]
    }

    /// The second pass: the nibbles into `write`. The error is that of what a reader gets back.
    ///
    /// # Errors
    /// What `write` and `progress` return.
    pub fn write_nibbles(
        &self,
        input: Input,
        weight: Weight,
        progress: &mut dyn Progress,
        mut write: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<Sums> {
        let NestedScales { codes, nested_absmax, offset } = &self.scales;
        let scales = nf4::decode_nested(codes, nf4::dynamic_map(), nested_absmax, nf4::NESTED_BLOCK, *offset);
        let mut sums = Sums::default();
        let (mut padded, mut nibbles, mut decoded, mut largest) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        input.visit_rows(weight, whole_blocks(self.cols), |block, values| {
            // Only the last block of a matrix can be short; zeros change neither its scale nor its nibbles.
            padded.clear();
            padded.extend_from_slice(values);
            padded.resize(values.len().next_multiple_of(nf4::BLOCK), 0.0);
            nibbles.clear();
            largest.clear();
            nf4::encode(&padded, &mut nibbles, &mut largest);
            let first = block.start * self.cols / nf4::BLOCK;
            decoded.resize(padded.len(), 0.0);
            nf4::decode(&nibbles, &scales[first..first + padded.len() / nf4::BLOCK], &mut decoded);
            sums.add(values, &decoded[..values.len()]);
            write(&nibbles[..values.len().div_ceil(2)])?;
            progress.advance(values.len() as u64)
        })?;
        Ok(sums)
    }

    /// Bytes of all tensors of a layer of this shape, to within a few bytes.
    pub fn estimated_bytes(rows: usize, cols: usize) -> u64 {
        let n_blocks = (rows * cols).div_ceil(nf4::BLOCK);
        let scales = n_blocks + n_blocks.div_ceil(nf4::NESTED_BLOCK) * 4;
        ((rows * cols).div_ceil(2) + scales + (256 + 16) * 4 + QUANT_STATE_BYTES) as u64
    }
}

/// Rows per visit whose values are whole blocks of 64, whatever the width.
fn whole_blocks(cols: usize) -> usize {
    rows_per_block(cols).next_multiple_of(nf4::BLOCK)
}

/// As Python's `json.dumps` spells bitsandbytes' `QuantState.as_dict`.
fn quant_state(dtype: &str, rows: usize, cols: usize, offset: f32) -> String {
    let offset = serde_json::Value::from(offset as f64);
    format!(
        "{{\"quant_type\": \"nf4\", \"blocksize\": {}, \"dtype\": \"{dtype}\", \"shape\": [{rows}, {cols}], \
         \"nested_blocksize\": {}, \"nested_dtype\": \"float32\", \"nested_offset\": {offset}}}",
        nf4::BLOCK,
        nf4::NESTED_BLOCK
    )
}
