//! What makes a model the model it is, whatever the format of its file: its shape, its tokenizer, and 64 short rows of its
//! weights as numbers. An adapter carries it, so that the base it was made for is known again as Q4_0, and told from a
//! fine-tune of the same shape.
//!
//! Two models are the same when at most [`ROWS_ALLOWED`] of the rows differ by more than the two formats explain. Of a pair of
//! formats the finer is rounded to the coarser before they are compared: what was quantised from the same weights then has
//! the same bits, but for the values that the finer's own error carries over a rounding boundary. With e the error of a
//! format as a share of its values (F32 0, F16 2^-12, BF16 2^-9, else 2^(1 - bits a weight): Q8_0 0.6%, Q4_0 8.8%), that is
//! about 1.7 sqrt(e_fine e_coarse); where the coarser cannot be rounded to here (K-quants), or both are coarse, rows are
//! compared as they are, and differ by sqrt(e_fine^2 + e_coarse^2). Twice that is allowed.
//!
//! Measured on the two small models of the tests in F32, BF16, F16, Q8_0, Q4_0 and NF4 (tests/tests/adapters/base.rs): all 36
//! pairs of formats of one model are the same; a fine-tune whose rows moved by 8% in the median is told in 34 of 36 pairs,
//! all but Q4_0 against NF4, and one whose rows moved by 0.8% in 30: not where one side is Q4_0 or NF4 and the other Q8_0,
//! Q4_0 or NF4 of another rounding. One that moved the three sampled rows that are allowed, or the norms alone, passes.

use lichen_kernels::formats::{decode, float, nf4, q4_0, q8_0};
use lichen_kernels::Format;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use super::{Backing, ModelSource, Part, PartShape};
use crate::error::{Error, Result};
use crate::model_config::ModelConfig;
use crate::text::tokenizer::Tokenizer;

const N_ROWS: usize = 64;
/// Values of a row: one block of NF4, two of Q8_0 and Q4_0.
const N_VALUES: usize = 64;
/// Rows that may differ by more than their formats explain: unused tokens, whose rows some writers set to zero.
pub const ROWS_ALLOWED: usize = 3;
/// How much more than its expected difference a row may show: 64 values say it within a third or so.
const HEADROOM: f64 = 2.0;
/// Rounding of what is recorded, and of the second level of NF4's scales.
const E_RECORDED: f64 = 1.0 / 4096.0;
const E_NF4_SCALES: f64 = 0.01;
const VERSION: u64 = 1;

/// Words of several scripts, numbers, code and white space, whose tokens tell tokenizers apart.
const TEXT: &str =
    "The lichen grows 1,234.5 mm a year; it's slow.\n\n    fn grow(x: &mut [f32]) { x[0] += 0x1F; }\t// नमस्ते दुनिया, \
    ಕಲ್ಲು ಹೂವು, 地衣類は岩に生える。 Ça va, Žižek? 🙂🌱 https://example.org/a_b?c=d%20e";

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelIdentity {
    shape: String,
    /// `None` for a model without a tokenizer.
    tokens: Option<String>,
    rows: Vec<SampledRow>,
}

#[derive(Clone, Debug, PartialEq)]
struct SampledRow {
    format: String,
    /// The format's error as a share of its values.
    error: f64,
    /// Rounded to f16.
    values: Vec<f32>,
}

/// How two identities compare.
#[derive(Clone, Debug, PartialEq)]
pub enum SameModel {
    Yes,
    /// Another model; why, as the end of a sentence.
    Other(String),
    /// One of another shape: what was made for one does not fit the other.
    OtherShape(String),
}

impl ModelIdentity {
    /// Reads 64 rows of the weights. Nothing else is touched, so it is cheap on a large file.
    ///
    /// # Errors
    /// A weight or the tokenizer cannot be read.
    pub fn of(source: &ModelSource, tokenizer: Option<&Tokenizer>) -> Result<ModelIdentity> {
        let config = source.config();
        let is_matrix = |(part, _): &(Part, Option<usize>)| matches!(part.shape(config), PartShape::Matrix(..));
        // A head may be stored or not where it is the embedding.
        let matrices: Vec<_> = Part::of_model(config).filter(is_matrix).filter(|(p, _)| *p != Part::Output).collect();
        let row = |i: usize| {
            let (part, layer) = matrices[i * matrices.len() / N_ROWS];
            sampled_row(source, part, layer, i)
        };
        let tokens = tokenizer.map(|t| t.encode(TEXT)).transpose()?;
        Ok(ModelIdentity {
            shape: shape(config),
            tokens: tokens.map(|ids| hex(&Sha256::digest(bytemuck::cast_slice::<u32, u8>(&ids))[..16])),
            rows: (0..N_ROWS).map(row).collect::<Result<_>>()?,
        })
    }

    /// Whether `other`, which was read from a file, may be the same model.
    pub fn compare(&self, other: &ModelIdentity) -> SameModel {
        if self.shape != other.shape {
            return SameModel::OtherShape(format!("{} there, {} here", self.shape, other.shape));
        }
        if let (Some(a), Some(b)) = (&self.tokens, &other.tokens) {
            if a != b {
                return SameModel::Other("its tokenizer gives other tokens".to_string());
            }
        }
        let rows = || self.rows.iter().zip(&other.rows).map(|(a, b)| a.difference(b));
        let n_other = rows().filter(|(found, allowed)| found.is_nan() || found > allowed).count();
        if n_other <= ROWS_ALLOWED {
            return SameModel::Yes;
        }
        let mut shares: Vec<f64> = rows().map(|(found, _)| found).collect();
        shares.sort_by(f64::total_cmp);
        SameModel::Other(format!(
            "{n_other} of {N_ROWS} sampled rows of its weights differ by more than their formats explain, {:.1}% in the median",
            100.0 * shares[shares.len() / 2]
        ))
    }

    /// One line of JSON of about 17,000 bytes.
    pub fn to_text(&self) -> String {
        let formats: Vec<&str> = self.rows.iter().map(|row| row.format.as_str()).collect();
        let errors: Vec<f64> = self.rows.iter().map(|row| row.error).collect();
        let mut bytes = Vec::new();
        let lengths: Vec<usize> = self.rows.iter().map(|row| row.values.len()).collect();
        self.rows.iter().for_each(|row| float::encode_f16(&row.values, &mut bytes));
        json!({
            "version": VERSION, "shape": self.shape, "tokens": self.tokens, "formats": formats, "errors": errors,
            "lengths": lengths, "rows": hex(&bytes),
        })
        .to_string()
    }

    /// Undoes [`ModelIdentity::to_text`].
    ///
    /// # Errors
    /// The text is not one, or of a later version.
    pub fn parse(text: &str) -> Result<ModelIdentity> {
        let wrong = || Error::input("the record of the base model is damaged");
        let value: Value = serde_json::from_str(text).map_err(|_| wrong())?;
        if value["version"].as_u64() != Some(VERSION) {
            return Err(Error::input("the record of the base model is of another version"));
        }
        let list = |name: &str| value[name].as_array().filter(|list| list.len() == N_ROWS).ok_or_else(wrong);
        let (formats, errors, lengths) = (list("formats")?, list("errors")?, list("lengths")?);
        let bytes = value["rows"].as_str().and_then(unhex).ok_or_else(wrong)?;
        let (mut rows, mut at) = (Vec::with_capacity(N_ROWS), 0);
        for ((format, error), n) in formats.iter().zip(errors).zip(lengths) {
            let n = n.as_u64().filter(|n| (1..=N_VALUES as u64).contains(n)).ok_or_else(wrong)? as usize;
            let bytes = bytes.get(at..at + 2 * n).ok_or_else(wrong)?;
            at += 2 * n;
            let mut values = vec![0.0; n];
            decode(Format::F16, bytes, &mut values);
            let error = error.as_f64().filter(|e| (0.0..=1.0).contains(e)).ok_or_else(wrong)?;
            rows.push(SampledRow { format: format.as_str().ok_or_else(wrong)?.to_string(), error, values });
        }
        if at != bytes.len() || rows.iter().any(|row| row.values.iter().any(|v| !v.is_finite())) {
            return Err(wrong());
        }
        let shape = value["shape"].as_str().ok_or_else(wrong)?.to_string();
        Ok(ModelIdentity { shape, tokens: value["tokens"].as_str().map(str::to_string), rows })
    }
}

impl SampledRow {
    /// The root of the mean square of the difference over that of the values, and how much the formats explain.
    fn difference(&self, other: &SampledRow) -> (f64, f64) {
        let (fine, coarse) = if self.error <= other.error { (self, other) } else { (other, self) };
        if fine.values.len() != coarse.values.len() {
            return (f64::NAN, 0.0);
        }
        let as_they_are = (share(&fine.values, &coarse.values), fine.error.hypot(coarse.error) + E_RECORDED);
        if fine.format == coarse.format && is_rounded_to(&coarse.format) {
            return (as_they_are.0, HEADROOM * E_RECORDED);
        }
        let rounded = rounded_to(&coarse.format, &fine.values);
        let (found, expected) = match rounded.filter(|_| fine.error < coarse.error / 4.0) {
            Some(rounded) => {
                let scales = if coarse.format == Format::NF4.name() { E_NF4_SCALES } else { E_RECORDED };
                (share(&rounded, &coarse.values), 1.7 * ((fine.error + E_RECORDED) * coarse.error).sqrt() + scales)
            }
            None => as_they_are,
        };
        // One value that falls over a boundary is a whole step of the coarser format, root 12 of its error, in one of n.
        let one_step = 1.1 * coarse.error * (12.0 / coarse.values.len() as f64).sqrt();
        (found, (HEADROOM * expected).max(one_step))
    }
}

fn share(a: &[f32], b: &[f32]) -> f64 {
    let square = |v: f64| v * v;
    let difference: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let squares: f64 = a.iter().zip(b).map(|(a, b)| square(f64::from(*a)).max(square(f64::from(*b)))).sum();
    match squares > 0.0 {
        true => (difference / squares).sqrt(),
        false => 0.0,
    }
}

/// The error of a format as a share of its values.
fn error_of(format: Format) -> f64 {
    match format {
        Format::F32 => 0.0,
        Format::F16 => E_RECORDED,
        Format::BF16 => 1.0 / 512.0,
        // Its scales are another plane.
        Format::NF4 => 0.09,
        other => {
            let bits = 8.0 * other.block_bytes() as f64 / other.block_len() as f64;
            2f64.powf(1.0 - bits)
        }
    }
}

fn is_rounded_to(format: &str) -> bool {
    rounded_to(format, &[0.0; N_VALUES]).is_some()
}

/// Values as this format gives them back, where it is one that is written here.
fn rounded_to(format: &str, values: &[f32]) -> Option<Vec<f32>> {
    let format = Format::ALL.into_iter().find(|f| f.name() == format)?;
    let mut bytes = Vec::new();
    let mut out = vec![0.0; values.len()];
    if !values.len().is_multiple_of(format.block_len()) {
        return None;
    }
    match format {
        Format::F32 => return Some(values.to_vec()),
        Format::F16 => float::encode_f16(values, &mut bytes),
        Format::BF16 => float::encode_bf16(values, &mut bytes),
        Format::Q8_0 => q8_0::encode(values, &mut bytes),
        Format::Q4_0 => q4_0::encode(values, &mut bytes),
        Format::NF4 => {
            let mut absmax = Vec::new();
            nf4::encode(values, &mut bytes, &mut absmax);
            let level = |nibble: u8| nf4::LEVELS[usize::from(nibble)];
            for ((i, out), byte) in out.chunks_mut(2).enumerate().zip(&bytes) {
                let scale = absmax[2 * i / nf4::BLOCK];
                (out[0], out[1]) = (level(byte >> 4) * scale, level(byte & 15) * scale);
            }
            return Some(out);
        }
        _ => return None,
    }
    decode(format, &bytes, &mut out);
    Some(out)
}

/// `gemma3, 26 layers of 1152 x 6912, heads 4/1 x 256`.
fn shape(c: &ModelConfig) -> String {
    format!(
        "{}, {} layers of {} x {}, heads {}/{} x {}",
        c.architecture.gguf_name(),
        c.n_layers,
        c.dim,
        c.hidden_dim,
        c.n_heads,
        c.n_kv_heads,
        c.head_dim
    )
}

/// The `i`-th row: a function of the shape alone.
fn sampled_row(source: &ModelSource, part: Part, layer: Option<usize>, i: usize) -> Result<SampledRow> {
    let PartShape::Matrix(rows, cols) = part.shape(source.config()) else { unreachable!("matrices are sampled") };
    let draw = scrambled(i as u64);
    let row = (draw % rows as u64) as usize;
    // Whole blocks of NF4, which run on over the ends of rows.
    let n = N_VALUES.min(cols);
    let first = N_VALUES * ((draw >> 32) as usize % (cols / N_VALUES).max(1));
    let mut values = vec![0.0; cols];
    let stored = match &source.backing {
        Backing::Gguf(model) => Some(model.stored(part, layer)?),
        Backing::HuggingFace(model) if model.is_plain(part, layer) => Some(model.stored(part, layer)?),
        Backing::HuggingFace(_) => None,
    };
    let format = match (stored, &source.backing) {
        (Some(stored), _) => {
            let row_bytes = stored.format.row_bytes(cols).expect("checked when the file was opened");
            decode(stored.format, &stored.bytes.as_slice()[row * row_bytes..][..row_bytes], &mut values);
            stored.format
        }
        (None, Backing::HuggingFace(model)) => {
            let matrix = model.quantized(part, layer, rows, cols)?.expect("not plain");
            matrix.decode_rows(row..row + 1, &mut values);
            matrix.format()
        }
        (None, Backing::Gguf(_)) => unreachable!("tensors of GGUF files are plain"),
    };
    let mut bytes = Vec::with_capacity(2 * n);
    float::encode_f16(&values[first..first + n], &mut bytes);
    let mut values = vec![0.0; n];
    decode(Format::F16, &bytes, &mut values);
    Ok(SampledRow { format: format.name().to_string(), error: error_of(format), values })
}

/// SplitMix64.
fn scrambled(i: u64) -> u64 {
    let mut z = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let pairs = text.as_bytes().chunks_exact(2);
    (text.len().is_multiple_of(2)).then(|| pairs.map(|p| Some(digit(p[0])? << 4 | digit(p[1])?)).collect())?
}
