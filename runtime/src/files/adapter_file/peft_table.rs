//! Whole embeddings and heads of an adapter: `modules_to_save`, or saved because the vocabulary was trained too.

use lichen_kernels::formats::decode;
use lichen_kernels::Matrix;

use super::peft::{not_a_weight, WEIGHTS_FILE};
use super::peft_config::{module_path, PeftConfig};
use super::{Tables, TARGETS};
use crate::error::{Error, Result};
use crate::files::formats::safetensors::{SafeTensors, TensorInfo};
use crate::files::model_source::{Part, PartShape};
use crate::model_config::ModelConfig;

/// A whole weight of the file.
pub struct TableTensor<'a> {
    pub tensor: &'a TensorInfo,
    pub part: Part,
    /// The module's, as the file has it.
    pub path: &'a str,
}

/// Values that are looked at at once.
const CHECKED_VALUES: usize = 64 << 10;

/// The embedding and the head that stand in place of the base's.
///
/// A table that `modules_to_save` names is the adapter's own: in a model whose head is its embedding the other stays the
/// base's, unless `ensure_weight_tying` says that it does not. One that it does not name is written over the base's, and a
/// head that is the embedding changes with it.
///
/// # Errors
/// Another shape than the model's, values that are not finite, a module of `modules_to_save` that is missing or is neither.
pub fn tables(tensors: &SafeTensors, found: &[TableTensor], peft: &PeftConfig, config: &ModelConfig) -> Result<Tables> {
    check_saved(found, peft, config)?;
    let mut tables = Tables::default();
    for (i, table) in found.iter().enumerate() {
        if let Some(other) = found[..i].iter().find(|other| other.part == table.part) {
            let (a, b) = (&other.tensor.name, &table.tensor.name);
            return Err(Error::input(format!("\"{a}\" and \"{b}\" are the same matrix")));
        }
        let matrix = matrix(tensors, table, config)?;
        let is_saved = peft.modules.saved().iter().any(|name| table.path.ends_with(name.as_str()));
        let is_shared = config.tied_head && (peft.ties_tables || !is_saved);
        let places = match table.part {
            Part::TokenEmbedding => [Some(&mut tables.embedding), is_shared.then_some(&mut tables.head)],
            _ => [Some(&mut tables.head), is_shared.then_some(&mut tables.embedding)],
        };
        for (i, place) in places.into_iter().flatten().enumerate() {
            // What a tensor of its own says counts more than what is shared.
            if i == 0 || place.is_none() {
                *place = Some(matrix.clone());
            }
        }
    }
    Ok(tables)
}

/// What `modules_to_save` names is there, or is nothing of this model.
fn check_saved(found: &[TableTensor], peft: &PeftConfig, config: &ModelConfig) -> Result<()> {
    let others = other_modules(config);
    for name in peft.modules.saved() {
        for (part, module) in [(Part::TokenEmbedding, "model.embed_tokens"), (Part::Output, "lm_head")] {
            let is_there = found.iter().any(|table| table.part == part);
            // The adapter's own copy of a tied table is written once.
            let may_be_shared = config.tied_head && peft.ties_tables && !found.is_empty();
            if module.ends_with(name.as_str()) && !is_there && !may_be_shared {
                return Err(Error::input(format!(
                    "modules_to_save names \"{name}\", and {WEIGHTS_FILE} has no \"base_model.model.{module}.weight\""
                )));
            }
        }
        if let Some(module) = others.iter().find(|module| module.ends_with(name.as_str())) {
            return Err(Error::input(format!(
                "modules_to_save \"{name}\" ({module}) is not supported: embed_tokens and lm_head are"
            )));
        }
    }
    Ok(())
}

/// Every module of the model but the embedding and the head; those of all layers have the names of the first's.
fn other_modules(config: &ModelConfig) -> Vec<String> {
    let linear = TARGETS.map(|part| module_path(config, part, 0));
    let norms = Part::of_layer(config.architecture).iter().filter(|part| part.is_norm());
    let norms = norms.map(|part| module_path(config, *part, 0));
    let blocks = ["model.layers.0.self_attn", "model.layers.0.mlp", "model.layers.0", "model.layers", "model.norm"];
    linear.into_iter().chain(norms).chain(blocks.map(str::to_string)).chain(["model".to_string()]).collect()
}

fn matrix(tensors: &SafeTensors, table: &TableTensor, config: &ModelConfig) -> Result<Matrix> {
    let tensor = table.tensor;
    let PartShape::Matrix(rows, cols) = table.part.shape(config) else { unreachable!("tables are matrices") };
    if tensor.shape() != [rows, cols] {
        let dims: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
        return Err(Error::input(format!(
            "\"{}\" is {}; the model's is {rows} x {cols}: the adapter was made for a model with another vocabulary or width",
            tensor.name,
            dims.join(" x ")
        )));
    }
    let format = tensor.dtype.format().ok_or_else(|| not_a_weight(tensor))?;
    let bytes = tensors.tensor_bytes(tensor);
    let mut values = vec![0.0; CHECKED_VALUES.min(rows * cols)];
    let mut n_bad = 0;
    for chunk in bytes.as_slice().chunks(CHECKED_VALUES * tensor.dtype.size_bytes()) {
        let values = &mut values[..chunk.len() / tensor.dtype.size_bytes()];
        decode(format, chunk, values);
        n_bad += values.iter().filter(|v| !v.is_finite()).count();
    }
    match n_bad {
        0 => Ok(Matrix::new(format, rows, cols, bytes)),
        1 => Err(Error::input(format!("\"{}\": 1 value is not finite", tensor.name))),
        n => Err(Error::input(format!("\"{}\": {n} values are not finite", tensor.name))),
    }
}
