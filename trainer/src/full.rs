//! Every weight of a model as one flat vector of f32: what full fine-tuning updates. The matrices that the forward pass
//! multiplies are made from it after each step, in f32 or bf16.

use std::collections::HashMap;

use lichen_kernels::formats::float;
use lichen_kernels::{Buffer, Format, Matrix, SharedBytes};
use lichen_runtime::model::Model;
use lichen_runtime::model_source::{Part, PartShape};
use lichen_runtime::ModelConfig;

/// Where one weight lies in the flat vector.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub part: Part,
    pub layer: Option<usize>,
    pub start: usize,
    pub len: usize,
}

/// The layout: matrices first, which weight decay applies to, then norms and biases, which it does not.
#[derive(Clone, Debug)]
pub struct Full {
    places: Vec<Place>,
    index: HashMap<(Part, Option<usize>), usize>,
    n_decayed: usize,
    n_parameters: usize,
}

impl Full {
    pub fn new(config: &ModelConfig) -> Full {
        let is_matrix = |part: Part| matches!(part.shape(config), PartShape::Matrix(..));
        let parts: Vec<_> = Part::of_model(config).collect();
        let (matrices, vectors): (Vec<_>, Vec<_>) = parts.into_iter().partition(|(part, _)| is_matrix(*part));
        let (mut places, mut index, mut start, mut n_decayed) = (Vec::new(), HashMap::new(), 0, 0);
        for (part, layer) in matrices.into_iter().chain(vectors) {
            let len = match part.shape(config) {
                PartShape::Vector(n) => n,
                PartShape::Matrix(rows, cols) => rows * cols,
            };
            index.insert((part, layer), places.len());
            places.push(Place { part, layer, start, len });
            start += len;
            n_decayed = if is_matrix(part) { start } else { n_decayed };
        }
        Full { places, index, n_decayed, n_parameters: start }
    }

    pub fn n_parameters(&self) -> usize {
        self.n_parameters
    }

    /// Parameters that weight decay applies to: the first ones.
    pub fn n_decayed(&self) -> usize {
        self.n_decayed
    }

    pub fn places(&self) -> &[Place] {
        &self.places
    }

    pub fn place(&self, part: Part, layer: Option<usize>) -> Place {
        self.places[self.index[&(part, layer)]]
    }

    pub fn name_of(&self, index: usize) -> String {
        match self.places.iter().find(|p| (p.start..p.start + p.len).contains(&index)) {
            Some(Place { part, layer: Some(layer), .. }) => format!("layer {layer} {part:?}"),
            Some(Place { part, .. }) => format!("{part:?}"),
            None => format!("parameter {index}"),
        }
    }

    /// Copies the weights of `model` out.
    pub fn read(&self, model: &Model, values: &mut [f32]) {
        for place in &self.places {
            let out = &mut values[place.start..place.start + place.len];
            match weight(model, place.part, place.layer) {
                Weight::Matrix(m) => m.decode_rows(0..m.rows(), out),
                Weight::Vector(v) => out.copy_from_slice(v.host()),
            }
        }
    }

    /// Puts the values into `model`, whose matrices were made by [`own_matrices`] and are held by nobody else.
    pub fn write(&self, model: &mut Model, values: &[f32]) {
        // A tied head is a second holder of the embedding.
        if model.config.tied_head {
            model.head = model.layers[0].q.clone();
        }
        for place in &self.places {
            if place.part == Part::AttnQ && place.layer == Some(0) && model.config.tied_head {
                model.head = model.embedding.clone();
            }
            let values = &values[place.start..place.start + place.len];
            match weight_mut(model, place.part, place.layer) {
                WeightMut::Matrix(m) => encode(m, values),
                WeightMut::Vector(v) => v.host_mut().copy_from_slice(values),
            }
        }
    }
}

/// Replaces every matrix by one on the heap in `format` (F32 or BF16), which training may change.
pub fn own_matrices(model: &mut Model, format: Format) {
    let own = |m: &Matrix| {
        let row_bytes = format.row_bytes(m.cols()).expect("float formats have no blocks");
        let mut owned = Matrix::new(format, m.rows(), m.cols(), SharedBytes::from_vec(vec![0; row_bytes * m.rows()]));
        let mut row = vec![0.0; m.cols()];
        let bytes = owned.bytes_mut().expect("just made");
        for (i, bytes) in bytes.chunks_exact_mut(row_bytes).enumerate() {
            m.decode_rows(i..i + 1, &mut row);
            encode_into(format, &row, bytes);
        }
        owned
    };
    model.embedding = own(&model.embedding);
    model.head = if model.config.tied_head { model.embedding.clone() } else { own(&model.head) };
    for w in &mut model.layers {
        for m in [&mut w.q, &mut w.k, &mut w.v, &mut w.o, &mut w.gate, &mut w.up, &mut w.down] {
            *m = own(m);
        }
    }
}

fn encode(m: &mut Matrix, values: &[f32]) {
    let (format, cols) = (m.format(), m.cols());
    let row_bytes = format.row_bytes(cols).expect("float formats have no blocks");
    let bytes = m.bytes_mut().expect("nobody else holds weights in training");
    for (bytes, row) in bytes.chunks_exact_mut(row_bytes).zip(values.chunks_exact(cols)) {
        encode_into(format, row, bytes);
    }
}

fn encode_into(format: Format, row: &[f32], bytes: &mut [u8]) {
    match format {
        Format::F32 => bytes.copy_from_slice(bytemuck::cast_slice(row)),
        Format::BF16 => float::encode_bf16_into(row, bytes),
        other => panic!("{other} is not trained in"),
    }
}

/// A weight of a model.
pub enum Weight<'a> {
    Matrix(&'a Matrix),
    Vector(&'a Buffer<f32>),
}

enum WeightMut<'a> {
    Matrix(&'a mut Matrix),
    Vector(&'a mut Buffer<f32>),
}

/// Defines the look-up once for both kinds of reference.
macro_rules! look_up {
    ($model:expr, $part:expr, $layer:expr, $kind:ident, $($mutable:tt)?) => {{
        let there = "a weight of this architecture";
        match ($part, $layer) {
            (Part::TokenEmbedding, _) => $kind::Matrix(&$($mutable)? $model.embedding),
            (Part::Output, _) => $kind::Matrix(&$($mutable)? $model.head),
            (Part::OutputNorm, _) => $kind::Vector(&$($mutable)? $model.output_norm),
            (part, Some(layer)) => {
                let w = &$($mutable)? $model.layers[layer];
                match part {
                    Part::AttnQ => $kind::Matrix(&$($mutable)? w.q),
                    Part::AttnK => $kind::Matrix(&$($mutable)? w.k),
                    Part::AttnV => $kind::Matrix(&$($mutable)? w.v),
                    Part::AttnOutput => $kind::Matrix(&$($mutable)? w.o),
                    Part::FfnGate => $kind::Matrix(&$($mutable)? w.gate),
                    Part::FfnUp => $kind::Matrix(&$($mutable)? w.up),
                    Part::FfnDown => $kind::Matrix(&$($mutable)? w.down),
                    Part::AttnNorm => $kind::Vector(&$($mutable)? w.attn_norm),
                    Part::FfnNorm => $kind::Vector(&$($mutable)? w.ffn_norm),
                    Part::AttnQBias => $kind::Vector(&$($mutable)? (&$($mutable)? w.qkv_bias).into_iter().next().expect(there)[0]),
                    Part::AttnKBias => $kind::Vector(&$($mutable)? (&$($mutable)? w.qkv_bias).into_iter().next().expect(there)[1]),
                    Part::AttnVBias => $kind::Vector(&$($mutable)? (&$($mutable)? w.qkv_bias).into_iter().next().expect(there)[2]),
                    Part::AttnQNorm => $kind::Vector(&$($mutable)? (&$($mutable)? w.qk_norm).into_iter().next().expect(there)[0]),
                    Part::AttnKNorm => $kind::Vector(&$($mutable)? (&$($mutable)? w.qk_norm).into_iter().next().expect(there)[1]),
                    Part::PostAttnNorm => $kind::Vector((&$($mutable)? w.post_attn_norm).into_iter().next().expect(there)),
                    Part::PostFfnNorm => $kind::Vector((&$($mutable)? w.post_ffn_norm).into_iter().next().expect(there)),
                    Part::TokenEmbedding | Part::Output | Part::OutputNorm => unreachable!("not of a layer"),
                }
            }
            (part, None) => unreachable!("{part:?} is of a layer"),
        }
    }};
}

/// The weight in this role.
pub fn weight(model: &Model, part: Part, layer: Option<usize>) -> Weight<'_> {
    look_up!(model, part, layer, Weight,)
}

fn weight_mut(model: &mut Model, part: Part, layer: Option<usize>) -> WeightMut<'_> {
    look_up!(model, part, layer, WeightMut, mut)
}
