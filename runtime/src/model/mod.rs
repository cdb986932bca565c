//! A model in memory: immutable, shared by sessions.

pub mod adapter;
pub mod block;
pub(crate) mod forward;
pub mod kv_cache;
pub(crate) mod local_global;
pub mod presets;
pub mod session;
pub mod session_file;
pub mod snapshot;
pub mod step_graph;
pub mod synthetic;
pub(crate) mod upload;

use lichen_kernels::ops::matmul;
use lichen_kernels::{Buffer, Device, Format, Matrix};

use crate::error::{Error, Result};
use crate::files::model_source::{ModelSource, Part, PartShape};
use crate::model::upload::{matrix_bytes, vector_bytes, Upload};
use crate::model_config::ModelConfig;

/// Weights of one block. Matrices are (outputs, inputs); vectors of the length their names say.
pub struct LayerWeights {
    /// (dim).
    pub attn_norm: Buffer<f32>,
    /// (n_heads * head_dim, dim).
    pub q: Matrix,
    /// (n_kv_heads * head_dim, dim).
    pub k: Matrix,
    /// (n_kv_heads * head_dim, dim).
    pub v: Matrix,
    /// Biases of q, k and v (Qwen 2).
    pub qkv_bias: Option<[Buffer<f32>; 3]>,
    /// (head_dim) each, over queries and keys (Gemma 3).
    pub qk_norm: Option<[Buffer<f32>; 2]>,
    /// (dim, n_heads * head_dim).
    pub o: Matrix,
    /// (dim), after attention (Gemma 3).
    pub post_attn_norm: Option<Buffer<f32>>,
    /// (dim), before the feed-forward layer.
    pub ffn_norm: Buffer<f32>,
    /// (hidden_dim, dim).
    pub gate: Matrix,
    /// (hidden_dim, dim).
    pub up: Matrix,
    /// (dim, hidden_dim).
    pub down: Matrix,
    /// (dim), after the feed-forward layer (Gemma 3).
    pub post_ffn_norm: Option<Buffer<f32>>,
}

impl LayerWeights {
    /// The seven matrices, in the order of [`crate::model::adapter::TARGETS`].
    pub fn matrices(&self) -> [&Matrix; 7] {
        [&self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down]
    }
}

/// Config and weights.
pub struct Model {
    pub config: ModelConfig,
    /// (vocab_size, dim).
    pub embedding: Matrix,
    /// (vocab_size, dim): the embedding again when tied.
    pub head: Matrix,
    /// (dim).
    pub output_norm: Buffer<f32>,
    pub layers: Vec<LayerWeights>,
    /// SHA-256 over configuration and sampled weights: what saved sessions and adapters are keyed by.
    pub fingerprint: [u8; 32],
    /// Bytes of weights that live on the heap; the others are mapped from the file.
    pub heap_bytes: usize,
}

/// A float table beside 4-bit weights becomes Q8_0 in memory when it is at least this large: Gemma 3 1B's is 604 MB of
/// bf16 and 321 MB of Q8_0. Smaller ones stay exact.
const SHRINK_TABLE_BYTES: usize = 64 << 20;

impl Model {
    /// Takes every tensor the configuration implies from `source`; shapes are checked there. On a GPU each is copied to the
    /// device and its pages are given back before the next is read.
    pub fn load(source: &ModelSource, device: &Device) -> Result<Model> {
        match device {
            Device::Cpu(_) => Model::assemble_from(source, device),
            Device::Cuda(cuda) => {
                let (bytes, _) = Model::planned_gpu_bytes(source)?;
                cuda.with_arena(bytes, || Model::assemble_from(source, device))
            }
        }
    }

    fn assemble_from(source: &ModelSource, device: &Device) -> Result<Model> {
        let shrink = tables_shrink(source)?;
        let mut upload = Upload::new(device)?;
        let mut model = assemble(
            source.config().clone(),
            source.fingerprint(),
            &mut |part, layer| {
                let matrix = match shrink && is_table(part) {
                    true => source.matrix_q8_0(part, layer)?,
                    false => source.matrix(part, layer)?,
                };
                upload.matrix(matrix, &|bytes| source.release(bytes))
            },
            &mut |part, layer| Ok(Buffer::from_vec(device, source.vector(part, layer)?)?),
        )?;
        for (name, m) in model.named_matrices() {
            if !matmul::supports(m.format(), m.cols()) {
                let (format, cols) = (m.format(), m.cols());
                return Err(Error::input(format!("{name}: rows of {cols} {format} values are not whole blocks")));
            }
        }
        model.heap_bytes = if matches!(device, Device::Cpu(_)) { source.heap_bytes() } else { 0 };
        Ok(model)
    }

    /// Memory [`Model::load`] will take: (mapped, heap) bytes. No weight is read to say so.
    pub fn planned_bytes(source: &ModelSource) -> Result<(usize, usize)> {
        let weights = source.weight_memory()?;
        let (mut mapped, mut heap) = (weights.mapped, weights.heap);
        if tables_shrink(source)? {
            let config = source.config();
            let tables = if config.tied_head { 1 } else { 2 };
            mapped -= source.part_memory(Part::TokenEmbedding, None)?.mapped;
            if !config.tied_head {
                mapped -= source.part_memory(Part::Output, None)?.mapped;
            }
            heap += tables * config.vocab_size * Format::Q8_0.row_bytes(config.dim).unwrap_or(4 * config.dim);
        }
        Ok((mapped, heap))
    }

    /// Memory [`Model::load`] will take with a GPU: (on the device, at most at once on the host while weights are converted).
    pub fn planned_gpu_bytes(source: &ModelSource) -> Result<(usize, usize)> {
        let (config, shrink) = (source.config(), tables_shrink(source)?);
        let (mut device, mut converted) = (0, 0);
        for (part, layer) in Part::of_model(config) {
            let (rows, cols) = match part.shape(config) {
                PartShape::Vector(n) => {
                    device += vector_bytes(n);
                    continue;
                }
                PartShape::Matrix(rows, cols) => (rows, cols),
            };
            let (stored, format) = planned_format(source, part, layer, shrink)?;
            device += matrix_bytes(format, rows, cols);
            let heap = match format == stored {
                true => source.part_memory(part, layer)?.heap,
                false => rows * format.row_bytes(cols).unwrap_or(4 * cols),
            };
            converted = heap.max(converted);
        }
        Ok((device, converted))
    }

    /// The formats of the matrices that [`Model::load`] will make, each once.
    pub fn planned_formats(source: &ModelSource) -> Result<Vec<Format>> {
        let (config, shrink) = (source.config(), tables_shrink(source)?);
        let mut formats = Vec::new();
        for (part, layer) in Part::of_model(config) {
            if matches!(part.shape(config), PartShape::Matrix(..)) {
                let (_, format) = planned_format(source, part, layer, shrink)?;
                if !formats.contains(&format) {
                    formats.push(format);
                }
            }
        }
        Ok(formats)
    }

    /// Bytes read to produce one token: every matrix once, but one row of an untied embedding.
    pub fn active_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().flat_map(|l| l.matrices()).map(|m| m.size_bytes()).sum();
        layers + self.head.size_bytes()
    }

    /// Bytes of all weights, the tied table counted once.
    pub fn weights_bytes(&self) -> usize {
        let table = if self.config.tied_head { 0 } else { self.embedding.size_bytes() };
        self.active_bytes() + table
    }

    /// Number of parameters, the tied table counted once.
    pub fn n_parameters(&self) -> usize {
        let matrix = |m: &Matrix| m.rows() * m.cols();
        let layers: usize = self.layers.iter().flat_map(|l| l.matrices()).map(matrix).sum();
        let head = if self.config.tied_head { 0 } else { matrix(&self.head) };
        layers + matrix(&self.embedding) + head
    }

    fn named_matrices(&self) -> impl Iterator<Item = (String, &Matrix)> {
        const NAMES: [&str; 7] = ["q", "k", "v", "o", "gate", "up", "down"];
        let layers = self.layers.iter().enumerate().flat_map(|(i, l)| {
            l.matrices().into_iter().zip(NAMES).map(move |(m, name)| (format!("layer {i} {name}"), m))
        });
        [("embedding".to_string(), &self.embedding), ("head".to_string(), &self.head)].into_iter().chain(layers)
    }
}

/// The format of a matrix in its file, and the one that it is loaded in.
fn planned_format(source: &ModelSource, part: Part, layer: Option<usize>, shrink: bool) -> Result<(Format, Format)> {
    let PartShape::Matrix(_, cols) = part.shape(source.config()) else { panic!("{part:?} is a vector") };
    let stored = source.plain_format(part, layer)?.unwrap_or(Format::NF4);
    let format = match stored {
        f if f.is_float() && shrink && is_table(part) => Format::Q8_0,
        Format::NF4 if cols % Format::NF4.block_len() != 0 => Format::F32,
        f if f.is_computed() => f,
        _ => Format::Q8_0,
    };
    Ok((stored, format))
}

fn is_table(part: Part) -> bool {
    matches!(part, Part::TokenEmbedding | Part::Output)
}

/// True when the body is NF4 and the embedding a large float table.
fn tables_shrink(source: &ModelSource) -> Result<bool> {
    let config = source.config();
    let body = source.part_memory(Part::FfnDown, Some(0))?;
    // NF4 nibbles take half a byte a weight; every other mapped format takes more.
    let is_4_bit = body.mapped > 0 && body.mapped * 2 == config.dim * config.hidden_dim;
    let table = source.part_memory(Part::TokenEmbedding, None)?.mapped;
    let is_float = table >= config.vocab_size * config.dim * 2;
    Ok(is_4_bit && is_float && table >= SHRINK_TABLE_BYTES && config.dim.is_multiple_of(Format::Q8_0.block_len()))
}

/// Builds a model from whoever can give its matrices and vectors.
pub(crate) fn assemble(
    config: ModelConfig,
    fingerprint: [u8; 32],
    matrix: &mut dyn FnMut(Part, Option<usize>) -> Result<Matrix>,
    vector: &mut dyn FnMut(Part, Option<usize>) -> Result<Buffer<f32>>,
) -> Result<Model> {
    let embedding = matrix(Part::TokenEmbedding, None)?;
    let head = if config.tied_head { embedding.clone() } else { matrix(Part::Output, None)? };
    let output_norm = vector(Part::OutputNorm, None)?;
    let mut layers = Vec::with_capacity(config.n_layers);
    for i in 0..config.n_layers {
        let at = Some(i);
        let has = config.block;
        layers.push(LayerWeights {
            attn_norm: vector(Part::AttnNorm, at)?,
            q: matrix(Part::AttnQ, at)?,
            k: matrix(Part::AttnK, at)?,
            v: matrix(Part::AttnV, at)?,
            qkv_bias: if has.has_qkv_bias {
                Some([vector(Part::AttnQBias, at)?, vector(Part::AttnKBias, at)?, vector(Part::AttnVBias, at)?])
            } else {
                None
            },
            qk_norm: if has.has_qk_norm {
                Some([vector(Part::AttnQNorm, at)?, vector(Part::AttnKNorm, at)?])
            } else {
                None
            },
            o: matrix(Part::AttnOutput, at)?,
            post_attn_norm: if has.has_post_norms { Some(vector(Part::PostAttnNorm, at)?) } else { None },
            ffn_norm: vector(Part::FfnNorm, at)?,
            gate: matrix(Part::FfnGate, at)?,
            up: matrix(Part::FfnUp, at)?,
            down: matrix(Part::FfnDown, at)?,
            post_ffn_norm: if has.has_post_norms { Some(vector(Part::PostFfnNorm, at)?) } else { None },
        });
    }
    Ok(Model { config, embedding, head, output_norm, layers, fingerprint, heap_bytes: 0 })
}
