//! Quantised linear layers of Hugging Face folders: bitsandbytes NF4 (computed with), and two int8 schemes that are
//! only read to be converted: bitsandbytes LLM.int8 and quanto qint8.
//!
//! NF4, per linear `P.weight` `[rows, cols]`: nibbles U8 `[rows * cols / 2, 1]` (or the same bytes called BF16, F16 or F32
//! values, of which there are fewer), the even element in the high half, one scale per block of 64 along the flattened matrix: F32 `.absmax`, or U8 codes with a second level of scales
//! (`.nested_absmax`, `.nested_quant_map`, `nested_offset`). bitsandbytes `functional.py`, `QuantState`.

use std::sync::Arc;

use lichen_kernels::formats::{decode, nf4};
use lichen_kernels::{Format, Matrix, SharedBytes};
use serde_json::Value;

use super::hf::{Found, HfWeights};
use super::json_file::{parse, show, Fields};
use super::safetensors::Dtype;
use crate::error::{Error, Result};
use crate::escape::thousands;

const QUANT_STATE: &str = "quant_state.bitsandbytes__";
const KNOWN_PARTS: [&str; 5] =
    ["absmax", "quant_map", "nested_absmax", "nested_quant_map", "quant_state.bitsandbytes__nf4"];
const MAX_BLOCK: u64 = 1 << 20;

/// How a linear layer is stored when it is not a plain tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// bitsandbytes 4 bit.
    Nf4,
    /// bitsandbytes LLM.int8: I8 weight, one F32 `SCB` per row, value `q * SCB / 127`.
    Int8,
    /// quanto qint8: `weight._data` I8, `weight._scale` per row, value `q * scale`.
    Quanto,
}

/// The scheme of the tensor `name` (`P.weight`); `None` when it is a plain tensor or absent.
pub fn scheme_of(weights: &HfWeights, name: &str) -> Option<Scheme> {
    match weights.tensor(name) {
        Some(found) if found.info.dtype == Dtype::U8 => Some(Scheme::Nf4),
        Some(found) if found.info.dtype == Dtype::I8 => Some(Scheme::Int8),
        // Nibbles under another type: `bnb_4bit_quant_storage`, which FSDP needs to shard them.
        Some(_) => weights.with_prefix(&format!("{name}.{QUANT_STATE}")).next().map(|_| Scheme::Nf4),
        None => weights.tensor(&format!("{name}._data")).map(|_| Scheme::Quanto),
    }
}

/// Refuses a `quantization_config` that is neither of the schemes above.
pub fn check_quantization_config(config: &Value) -> Result<()> {
    let Some(quantization) = Fields::of(config, "the file")?.object("quantization_config")? else { return Ok(()) };
    let method = quantization.string("quant_method")?.unwrap_or("bitsandbytes");
    match method {
        "quanto" => Ok(()),
        "bitsandbytes" => {
            let kind = quantization.string("bnb_4bit_quant_type")?.unwrap_or("nf4");
            if quantization.boolean("load_in_4bit")? == Some(true) && kind != "nf4" {
                return Err(unsupported_type(kind));
            }
            Ok(())
        }
        other => Err(Error::input(format!(
            "quantization_config.quant_method \"{other}\" is not supported (supported: bitsandbytes, quanto)"
        ))),
    }
}

fn unsupported_type(kind: &str) -> Error {
    Error::input(format!("bitsandbytes quant_type \"{kind}\" is not supported (supported: nf4)"))
}

/// The checked description of one NF4 linear layer.
pub struct Nf4Layout<'a> {
    nibbles: Found<'a>,
    absmax: Found<'a>,
    nested: Option<Nested<'a>>,
    rows: usize,
    cols: usize,
    /// Values that share one scale.
    block: usize,
}

struct Nested<'a> {
    absmax: Found<'a>,
    map: Found<'a>,
    block: usize,
    offset: f32,
}

impl<'a> Nf4Layout<'a> {
    /// Checks the parts of `name` against each other and against `(rows, cols)`; reads no scales yet.
    ///
    /// # Errors
    /// A part is missing, unknown, or of the wrong type or length; another quantisation than nf4. No file name in
    /// front.
    pub fn read(weights: &'a HfWeights, name: &str, rows: usize, cols: usize) -> Result<Self> {
        let fail = |message: String| Error::input(format!("\"{name}\": {message}"));
        let part = |part: &str| weights.tensor(&format!("{name}.{part}"));
        let nibbles = weights.tensor(name).ok_or_else(|| fail("is missing".into()))?;
        check_parts(weights, name)?;
        let state_found = part(KNOWN_PARTS[4]).ok_or_else(|| fail("has no quant_state.bitsandbytes__nf4".into()))?;
        let state = QuantState::read(state_found).map_err(|e| fail(format!("quant_state: {}", e.message())))?;
        if state.shape != [rows as u64, cols as u64] {
            let [r, c] = state.shape;
            return Err(Error::input(format!("tensor \"{name}\": {r} x {c} here, {rows} x {cols} by config.json")));
        }
        // Both factors are bounded by the config's limits: no overflow.
        let n_values = rows * cols;
        let (n_bytes, needed) = (nibbles.info.range.len(), n_values.div_ceil(2));
        if n_bytes != needed {
            return Err(fail(format!("{n_bytes} bytes for {n_values} values; {needed} are needed")));
        }
        check_levels(part("quant_map")).map_err(fail)?;
        let absmax = part("absmax").ok_or_else(|| fail("has no absmax".into()))?;
        let n_blocks = n_values.div_ceil(state.block);
        let nested = match absmax.info.dtype {
            Dtype::F32 => None,
            Dtype::U8 => Some(Nested::read(&part, &state, n_blocks).map_err(fail)?),
            other => return Err(fail(format!("absmax is {}; F32 or U8 is needed", other.name()))),
        };
        let n_scales = absmax.info.range.len() / absmax.info.dtype.size_bytes();
        if n_scales != n_blocks {
            return Err(fail(format!(
                "{} scales for {} blocks of {}",
                thousands(n_scales as u64),
                thousands(n_blocks as u64),
                state.block
            )));
        }
        Ok(Nf4Layout { nibbles, absmax, nested, rows, cols, block: state.block })
    }

    /// Bytes that [`Nf4Layout::matrix`] takes on the heap.
    pub fn heap_bytes(&self) -> usize {
        match self.cols % nf4::BLOCK {
            0 if self.block.is_multiple_of(nf4::BLOCK) => self.rows * self.cols / nf4::BLOCK * 4,
            _ => self.rows * self.cols * 4,
        }
    }

    /// The matrix: NF4 over the file's own nibbles with expanded f32 scales, or F32 on the heap where a row is not
    /// whole blocks of 64.
    ///
    /// # Errors
    /// A scale is not finite.
    pub fn matrix(&self) -> Result<Matrix> {
        let absmax = self.expand_absmax();
        let n_bad = absmax.iter().filter(|v| !v.is_finite()).count();
        if n_bad > 0 {
            return Err(Error::input(format!(
                "\"{}\": {n_bad} of {} scales are not finite",
                self.nibbles.info.name,
                thousands(absmax.len() as u64)
            )));
        }
        if self.cols.is_multiple_of(nf4::BLOCK) && self.block.is_multiple_of(nf4::BLOCK) {
            let n_blocks = self.rows * self.cols / nf4::BLOCK;
            let repeat = self.block / nf4::BLOCK;
            let absmax: Arc<[f32]> = match repeat {
                1 => absmax.into(),
                _ => absmax.iter().flat_map(|v| std::iter::repeat_n(*v, repeat)).take(n_blocks).collect(),
            };
            return Ok(Matrix::new_nf4(self.rows, self.cols, self.nibbles.bytes(), absmax));
        }
        let nibbles = self.nibbles.slice();
        let values = (0..self.rows * self.cols).map(|i| {
            // The even element lies in the high half.
            let nibble = nibbles[i / 2] >> (4 * (1 - i % 2)) & 15;
            nf4::LEVELS[nibble as usize] * absmax[i / self.block]
        });
        Ok(f32_matrix(self.rows, self.cols, values))
    }

    fn expand_absmax(&self) -> Vec<f32> {
        match &self.nested {
            None => f32s(self.absmax.slice()).collect(),
            Some(nested) => {
                let scales: Vec<f32> = f32s(nested.absmax.slice()).collect();
                let mut map = [0.0; 256];
                map.iter_mut().zip(f32s(nested.map.slice())).for_each(|(m, v)| *m = v);
                nf4::decode_nested(self.absmax.slice(), &map, &scales, nested.block, nested.offset)
            }
        }
    }
}

impl<'a> Nested<'a> {
    fn read(
        part: &impl Fn(&str) -> Option<Found<'a>>,
        state: &QuantState,
        n_blocks: usize,
    ) -> std::result::Result<Self, String> {
        let f32_part = |what: &str, len: usize| {
            let found = part(what).ok_or_else(|| format!("has no {what}"))?;
            if found.info.dtype != Dtype::F32 || found.info.range.len() != len * 4 {
                return Err(format!(
                    "{what} is {} {:?}; {} F32 values are needed",
                    found.info.dtype.name(),
                    found.info.shape(),
                    thousands(len as u64)
                ));
            }
            Ok(found)
        };
        let block = state.nested_block.ok_or("quant_state: nested_blocksize is missing")?;
        Ok(Nested {
            absmax: f32_part("nested_absmax", n_blocks.div_ceil(block))?,
            map: f32_part("nested_quant_map", 256)?,
            block,
            offset: state.nested_offset.ok_or("quant_state: nested_offset is missing")?,
        })
    }
}

/// The JSON in `quant_state.bitsandbytes__nf4`.
struct QuantState {
    block: usize,
    shape: [u64; 2],
    nested_block: Option<usize>,
    nested_offset: Option<f32>,
}

impl QuantState {
    fn read(found: Found) -> Result<QuantState> {
        let bytes = found.slice();
        if bytes.len() > 65_536 {
            return Err(Error::input(format!("is {} bytes; at most 65536", bytes.len())));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::input("is not UTF-8"))?;
        let value: Value = parse(text)?;
        let fields = Fields::of(&value, "it")?;
        match fields.string("quant_type")? {
            Some("nf4") => {}
            other => return Err(unsupported_type(other.unwrap_or("none"))),
        }
        let missing = |name: &str| Error::input(format!("{name} is missing"));
        let block = fields.integer("blocksize", 1, MAX_BLOCK)?.ok_or_else(|| missing("blocksize"))? as usize;
        let shape = fields.get("shape").ok_or_else(|| missing("shape"))?;
        let list = shape.as_array().filter(|list| list.len() == 2);
        let dims = list.and_then(|list| Some([list[0].as_u64()?, list[1].as_u64()?]));
        let shape = dims.ok_or_else(|| Error::input(format!("shape is {}; two sizes expected", show(shape))))?;
        let nested_offset = match fields.get("nested_offset") {
            None => None,
            Some(v) => match v.as_f64().map(|v| v as f32) {
                Some(v) if v.is_finite() => Some(v),
                _ => return Err(Error::input(format!("nested_offset is {}; a finite number expected", show(v)))),
            },
        };
        let nested_block = fields.integer("nested_blocksize", 1, MAX_BLOCK)?.map(|n| n as usize);
        Ok(QuantState { block, shape, nested_block, nested_offset })
    }
}

/// bitsandbytes refuses unknown parts too: a part this reader does not know would change the values.
fn check_parts(weights: &HfWeights, name: &str) -> Result<()> {
    let prefix = format!("{name}.");
    for found in weights.with_prefix(&prefix) {
        let part = &found.info.name[prefix.len()..];
        if KNOWN_PARTS.contains(&part) {
            continue;
        }
        return Err(match part.strip_prefix(QUANT_STATE) {
            Some(kind) => unsupported_type(kind),
            None => Error::input(format!("\"{name}\": unknown part \"{part}\"")),
        });
    }
    Ok(())
}

/// The map must be NF4's: the kernels have its levels built in.
fn check_levels(map: Option<Found>) -> std::result::Result<(), String> {
    let map = map.ok_or("has no quant_map")?;
    let n = map.info.range.len() / map.info.dtype.size_bytes();
    if map.info.dtype != Dtype::F32 || n != nf4::LEVELS.len() {
        return Err(format!("quant_map has {n} {} values; 16 F32 are needed", map.info.dtype.name()));
    }
    match f32s(map.slice()).zip(nf4::LEVELS).all(|(found, level)| (found - level).abs() <= 1e-6) {
        true => Ok(()),
        false => Err("quant_map does not hold NF4's levels".into()),
    }
}

/// Decodes an int8 linear layer to F32 on the heap, row by row.
///
/// # Errors
/// A part is missing, or of the wrong type or shape. No file name in front.
pub fn int8_matrix(weights: &HfWeights, name: &str, scheme: Scheme, rows: usize, cols: usize) -> Result<Matrix> {
    let module = name.strip_suffix("weight").unwrap_or(name);
    let (data_name, scale_name, unit) = match scheme {
        Scheme::Int8 => (name.to_string(), format!("{module}SCB"), 1.0 / 127.0),
        Scheme::Quanto => (format!("{name}._data"), format!("{name}._scale"), 1.0),
        Scheme::Nf4 => unreachable!("Nf4Layout reads those"),
    };
    let find = |name: &str| weights.tensor(name).ok_or_else(|| Error::input(format!("tensor \"{name}\" is missing")));
    let (data, scale) = (find(&data_name)?, find(&scale_name)?);
    if data.info.dtype != Dtype::I8 {
        return Err(Error::input(format!("tensor \"{data_name}\": {}; I8 is needed", data.info.dtype.name())));
    }
    if data.info.shape() != [rows, cols] {
        let found = data.info.shape().iter().map(usize::to_string).collect::<Vec<_>>().join(" x ");
        return Err(Error::input(format!("tensor \"{data_name}\": {found} here, {rows} x {cols} by config.json")));
    }
    let scale_format = scale.info.dtype.format().filter(|f| scale.info.range.len() / f.block_bytes() == rows);
    let Some(scale_format) = scale_format else {
        return Err(Error::input(format!("tensor \"{scale_name}\": one floating-point scale per row is needed")));
    };
    // LLM.int8 says how the rows are laid out; anything but row-major was made for one kind of GPU.
    let layout = weights.tensor(&format!("{module}weight_format")).filter(|_| scheme == Scheme::Int8);
    if let Some(layout) = layout.filter(|l| l.slice() != [0]) {
        return Err(Error::input(format!("tensor \"{}\": only row-major (0) is supported", layout.info.name)));
    }
    let mut scales = vec![0.0; rows];
    decode(scale_format, scale.slice(), &mut scales);
    let values = data.slice().chunks_exact(cols).zip(&scales).flat_map(|(row, scale)| {
        let scale = scale * unit;
        row.iter().map(move |q| *q as i8 as f32 * scale)
    });
    Ok(f32_matrix(rows, cols, values))
}

fn f32_matrix(rows: usize, cols: usize, values: impl Iterator<Item = f32>) -> Matrix {
    let mut bytes = Vec::with_capacity(rows * cols * 4);
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    Matrix::new(Format::F32, rows, cols, SharedBytes::from_vec(bytes))
}

fn f32s(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}
