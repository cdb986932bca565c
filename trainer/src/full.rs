//! Every weight of a model as one flat vector of f32: what full fine-tuning updates. The matrices that the forward pass
//! multiplies are made from it after each step, in f32 or bf16.

use std::collections::HashMap;

use lichen_kernels::ops::{copy, encode};
use lichen_kernels::{Buffer, Device, DeviceError, Format, Matrix};
use lichen_runtime::files::model_source::{Part, PartShape};
use lichen_runtime::model::Model;
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

    /// Copies the weights of `model`, which is on the host, to `values` on the device, and replaces them by weights of the
    /// device that training may change: matrices in `format` (F32 or BF16), vectors in f32.
    ///
    /// # Errors
    /// The device has no room.
    pub fn take_over(
        &self,
        device: &Device,
        model: &mut Model,
        format: Format,
        values: &mut Buffer<f32>,
    ) -> Result<(), DeviceError> {
        let mut rows = Vec::new();
        for place in &self.places {
            match weight(model, place.part, place.layer) {
                Weight::Matrix(m) => copy_out(m, place.start, values, &mut rows)?,
                Weight::Vector(v) => values.write(place.start, v.host())?,
            }
        }
        for place in &self.places {
            match weight_mut(model, place.part, place.layer) {
                WeightMut::Matrix(m) => *m = Matrix::zeros(device, format, m.rows(), m.cols())?,
                WeightMut::Vector(v) => *v = Buffer::new(device, v.len())?,
            }
        }
        if model.config.tied_head {
            model.head = model.embedding.clone();
        }
        self.write(device, model, values);
        Ok(())
    }

    /// Puts the values into `model`, whose weights were made by [`Full::take_over`] and are held by nobody else.
    pub fn write(&self, device: &Device, model: &mut Model, values: &Buffer<f32>) {
        // A tied head is a second holder of the embedding.
        if model.config.tied_head {
            model.head = model.layers[0].q.clone();
        }
        for place in &self.places {
            if place.part == Part::AttnQ && place.layer == Some(0) && model.config.tied_head {
                model.head = model.embedding.clone();
            }
            match weight_mut(model, place.part, place.layer) {
                WeightMut::Matrix(m) => {
                    let values = values.part(place.start, [m.rows(), m.cols()]);
                    encode::matrix(device, m, values);
                }
                WeightMut::Vector(v) => {
                    copy::copy(device, v.view_mut([place.len]), values.part(place.start, [place.len]))
                }
            }
        }
    }
}

/// Bytes of rows that are decoded at once on their way to the values: a table may be larger than what is left of the host.
const COPY_BYTES: usize = 4 << 20;

/// Copies a matrix to `values` from element `start` on, through `rows`.
fn copy_out(m: &Matrix, start: usize, values: &mut Buffer<f32>, rows: &mut Vec<f32>) -> Result<(), DeviceError> {
    let n_rows = (COPY_BYTES / 4 / m.cols()).max(1);
    for first in (0..m.rows()).step_by(n_rows) {
        let part = first..m.rows().min(first + n_rows);
        rows.resize(part.len() * m.cols(), 0.0);
        m.decode_rows(part, rows);
        values.write(start + first * m.cols(), rows)?;
    }
    Ok(())
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
