//! Synthetic models of real shapes: a board can be measured before anything is downloaded to it.

use std::sync::Arc;

use half::f16;
use lichen_kernels::{Buffer, Device, Format, Matrix, SharedBytes};

use crate::error::{Error, Result};
use crate::files::model_source::Part;
use crate::model::upload::{matrix_bytes, vector_bytes, Upload};
use crate::model::{assemble, Model};
use crate::model_config::ModelConfig;
use crate::setting::FORMAT;

/// Format of the embedding and the head when the body has `format`: those of 4 and 5 bits keep them in Q8_0.
pub fn table_format(format: Format) -> Format {
    match format {
        Format::NF4 | Format::Q4_0 | Format::Q5_0 => Format::Q8_0,
        other => other,
    }
}

/// Bytes of all weights of a model of this shape, without making them.
///
/// # Errors
/// A row is no whole number of the format's blocks.
pub fn weights_bytes(config: &ModelConfig, format: Format) -> Result<usize> {
    let mut total = 0usize;
    for (rows, cols, n) in matrix_shapes(config) {
        let is_table = rows == config.vocab_size;
        let format = if is_table { table_format(format) } else { format };
        let row = format.row_bytes(cols).ok_or_else(|| whole_blocks(format, cols))?;
        let scales = if format == Format::NF4 { cols / 64 * 4 } else { 0 };
        total = total.saturating_add((row + scales).saturating_mul(rows).saturating_mul(n));
    }
    Ok(total)
}

/// Bytes of all weights on a GPU, and of the largest matrix on the host before it goes there.
///
/// # Errors
/// A row is no whole number of the format's blocks.
pub fn gpu_bytes(config: &ModelConfig, format: Format) -> Result<(usize, usize)> {
    let (mut device, mut largest) = (0usize, 0);
    for (rows, cols, n) in matrix_shapes(config) {
        let format = if rows == config.vocab_size { table_format(format) } else { format };
        let row_bytes = format.row_bytes(cols).ok_or_else(|| whole_blocks(format, cols))?;
        device = device.saturating_add(matrix_bytes(format, rows, cols).saturating_mul(n));
        largest = largest.max(rows.saturating_mul(row_bytes + cols / 64 * 4));
    }
    // Norms and biases: at most six vectors of a layer, and the output's.
    let vectors = (6 * config.n_layers + 1) * vector_bytes(config.dim.max(config.q_dim()));
    Ok((device + vectors, largest))
}

/// (rows, cols, how many) of every matrix.
fn matrix_shapes(c: &ModelConfig) -> Vec<(usize, usize, usize)> {
    vec![
        (c.vocab_size, c.dim, if c.tied_head { 1 } else { 2 }),
        (c.q_dim(), c.dim, c.n_layers),
        (c.kv_dim(), c.dim, 2 * c.n_layers),
        (c.dim, c.q_dim(), c.n_layers),
        (c.hidden_dim, c.dim, 2 * c.n_layers),
        (c.dim, c.hidden_dim, c.n_layers),
    ]
}

fn whole_blocks(format: Format, cols: usize) -> Error {
    Error::usage(format!("{FORMAT} {format}: rows of {cols} values are not whole blocks of {}", format.block_len()))
}

/// A model with seeded random weights, scaled so that activations stay of the order of one. On a GPU every layer is a copy of
/// the first, in memory of its own: making the 41 GB of a 72B model on the host would take longer than measuring it.
///
/// # Errors
/// Rows are no whole blocks of the format, nothing computes with it, or the device refuses.
pub fn model(config: ModelConfig, format: Format, device: &Device) -> Result<Model> {
    let mut upload = Upload::new(device)?;
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    let mut firsts: Vec<(Part, Matrix)> = Vec::new();
    let shape = |part: Part| match part {
        Part::TokenEmbedding | Part::Output => (config.vocab_size, config.dim),
        Part::AttnQ => (config.q_dim(), config.dim),
        Part::AttnK | Part::AttnV => (config.kv_dim(), config.dim),
        Part::AttnOutput => (config.dim, config.q_dim()),
        Part::FfnGate | Part::FfnUp => (config.hidden_dim, config.dim),
        Part::FfnDown => (config.dim, config.hidden_dim),
        other => unreachable!("{other:?} is a vector"),
    };
    let mut model = assemble(
        config.clone(),
        [0; 32],
        &mut |part, layer| {
            if let Some((_, first)) = firsts.iter().find(|(p, _)| *p == part && layer.is_some()) {
                return Ok(Matrix::on_gpu(first.packed().copy()?));
            }
            let (rows, cols) = shape(part);
            let is_table = matches!(part, Part::TokenEmbedding | Part::Output);
            let format = if is_table { table_format(format) } else { format };
            let matrix = upload.matrix(random_matrix(format, rows, cols, &mut random)?, &|_| {})?;
            if matches!(device, Device::Cuda(_)) {
                firsts.push((part, matrix.clone()));
            }
            Ok(matrix)
        },
        &mut |part, _| {
            let values = match part {
                Part::AttnQBias => vec![0.0; config.q_dim()],
                Part::AttnKBias | Part::AttnVBias => vec![0.0; config.kv_dim()],
                Part::AttnQNorm | Part::AttnKNorm => vec![1.0; config.head_dim],
                _ => vec![1.0; config.dim],
            };
            Ok(Buffer::from_vec(device, values)?)
        },
    )?;
    model.heap_bytes = if matches!(device, Device::Cpu(_)) { model.weights_bytes() } else { 0 };
    Ok(model)
}

/// Random codes with scales that give weights of standard deviation 1 / sqrt(cols).
fn random_matrix(format: Format, rows: usize, cols: usize, random: &mut XorShift) -> Result<Matrix> {
    let row_bytes = format.row_bytes(cols).ok_or_else(|| whole_blocks(format, cols))?;
    let size = row_bytes
        .checked_mul(rows)
        .ok_or_else(|| Error::limit(format!("a matrix of {rows} x {cols} {format} values does not fit the memory")))?;
    let std = 1.0 / (cols as f32).sqrt();
    let mut bytes = Vec::with_capacity(size);
    match format {
        Format::F32 | Format::F16 | Format::BF16 => {
            for _ in 0..rows * cols {
                // Uniform in -a..a has standard deviation a / sqrt(3).
                let value = ((random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * std * 1.732;
                match format {
                    Format::F32 => bytes.extend(value.to_le_bytes()),
                    Format::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
                    _ => bytes.extend(half::bf16::from_f32(value).to_le_bytes()),
                }
            }
        }
        Format::Q8_0 | Format::Q5_0 | Format::Q4_0 => {
            // The standard deviations of uniform codes of 8, 5 and 4 bits.
            let of_codes = if format == Format::Q8_0 {
                74.0
            } else if format == Format::Q5_0 {
                9.2
            } else {
                4.6
            };
            let scale = f16::from_f32(std / of_codes);
            random.fill(&mut bytes, size);
            for block in bytes.chunks_exact_mut(format.block_bytes()) {
                block[..2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        Format::NF4 => {
            random.fill(&mut bytes, size);
            // The sixteen levels have a standard deviation of 0.57.
            let absmax = Arc::from(vec![std / 0.57; rows * cols / 64]);
            return Ok(Matrix::new_nf4(rows, cols, SharedBytes::from_vec(bytes), absmax));
        }
        other => return Err(Error::usage(format!("{FORMAT} {other} is read but never computed with"))),
    }
    Ok(Matrix::new(format, rows, cols, SharedBytes::from_vec(bytes)))
}

/// Marsaglia's xorshift64: fast enough to fill a gigabyte in half a second.
struct XorShift(u64);

impl XorShift {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn fill(&mut self, bytes: &mut Vec<u8>, size: usize) {
        while bytes.len() + 8 <= size {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        let tail = self.next().to_le_bytes();
        bytes.extend_from_slice(&tail[..size - bytes.len()]);
    }
}
