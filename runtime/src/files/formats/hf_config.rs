//! `config.json` -> [`ModelConfig`], in the style of released checkpoints (`rope_theta`, `rope_local_base_freq`,
//! `sliding_window_pattern`, `rope_scaling`) and of transformers 5 (`rope_parameters`, `layer_types`). Where a field is
//! absent the value is the one transformers takes; what the forward pass does not do is refused by its name.

use half::{bf16, f16};
use lichen_kernels::ops::rope::RopeScaling;
use lichen_kernels::Format;
use serde_json::Value;

use super::hf_rope;
use super::json_file::{show, Fields};
use crate::error::{Error, Result};
use crate::model_config::{Architecture, ModelConfig};

pub(super) const MAX_POSITIONS: u64 = 1 << 24;

/// What `config.json` describes. `embedding` is the format of the embedding's weights: transformers rounds Gemma's
/// embedding scale sqrt(dim) to it (`embed_scale.to(self.weight.dtype)`), so that a bf16 checkpoint of width 1152
/// scales by 34, and the same checkpoint in f32 by 33.941124.
///
/// # Errors
/// The first field that is wrong, missing or not supported, by name, without the file's name.
pub fn model_config(config: &Value, embedding: Format) -> Result<ModelConfig> {
    let outer = Fields::of(config, "the file")?;
    let model_type = outer.string("model_type")?.ok_or_else(|| missing("model_type"))?;
    let config = match model_type {
        "gemma3_text" => gemma3(outer, outer, embedding)?,
        // Multimodal Gemma 3 (4B and up): the text model is one of its parts.
        "gemma3" => gemma3(outer.object("text_config")?.ok_or_else(|| missing("text_config"))?, outer, embedding)?,
        "qwen2" => qwen2(outer)?,
        other => {
            return Err(Error::input(format!(
                "model_type \"{other}\" is not supported (supported: gemma3_text, gemma3, qwen2)"
            )));
        }
    };
    config.check()?;
    Ok(config)
}

fn gemma3(fields: Fields, outer: Fields, embedding: Format) -> Result<ModelConfig> {
    for name in ["final_logit_softcapping", "attn_logit_softcapping"] {
        if let Some(value) = fields.get(name) {
            return Err(Error::input(format!("{name} is {}; soft-capping is not supported", show(value))));
        }
    }
    refuse_true(&fields, "attention_bias")?;
    refuse_true(&fields, "use_bidirectional_attention")?;
    for name in ["hidden_activation", "hidden_act"] {
        require(&fields, name, "gelu_pytorch_tanh")?;
    }
    let n_layers = required(&fields, "num_hidden_layers", 512)?;
    let dim = required(&fields, "hidden_size", 65_536)?;
    let is_global = gemma3_layers(&fields, n_layers)?;
    // Defaults are those of transformers' Gemma3TextConfig, which the config of the 4B model relies on.
    let window = fields.integer("sliding_window", 1, MAX_POSITIONS)?.unwrap_or(4096) as usize;
    let query_scalar = fields.positive("query_pre_attn_scalar", 1e6)?.unwrap_or(256.0);
    let rope = hf_rope::gemma3(&fields)?;
    Ok(ModelConfig {
        architecture: Architecture::Gemma3,
        block: Architecture::Gemma3.block(),
        n_layers,
        dim,
        hidden_dim: required(&fields, "intermediate_size", 1 << 20)?,
        n_heads: optional(&fields, "num_attention_heads", 1024, 8)?,
        n_kv_heads: optional(&fields, "num_key_value_heads", 1024, 4)?,
        head_dim: optional(&fields, "head_dim", 1024, 256)?,
        vocab_size: optional(&fields, "vocab_size", 1 << 24, 262_208)?,
        context_length: optional(&fields, "max_position_embeddings", MAX_POSITIONS, 131_072)?,
        rms_eps: fields.positive("rms_norm_eps", 0.1)?.unwrap_or(1e-6) as f32,
        rope_theta: rope.theta,
        rope_theta_local: rope.theta_local,
        rope_scaling: rope.scaling,
        sliding_window: is_global.contains(&false).then_some(window),
        is_global,
        query_scale: query_scalar.powf(-0.5) as f32,
        embedding_scale: round_to(embedding, (dim as f64).sqrt() as f32),
        tied_head: tied(&fields, &outer, true)?,
    })
}

fn qwen2(fields: Fields) -> Result<ModelConfig> {
    require(&fields, "hidden_act", "silu")?;
    let n_layers = required(&fields, "num_hidden_layers", 512)?;
    let dim = required(&fields, "hidden_size", 65_536)?;
    let n_heads = required(&fields, "num_attention_heads", 1024)?;
    let trained_context = optional(&fields, "max_position_embeddings", MAX_POSITIONS, 32_768)?;
    let (rope_theta, rope_scaling) = hf_rope::qwen2(&fields, trained_context)?;
    let context_length = match rope_scaling {
        RopeScaling::Yarn(yarn) => yarn.context().max(trained_context),
        RopeScaling::Linear(_) => trained_context,
    };
    refuse_qwen2_window(&fields, n_layers, context_length)?;
    if !dim.is_multiple_of(n_heads) {
        return Err(Error::input(format!("hidden_size is {dim}; num_attention_heads {n_heads} does not divide it")));
    }
    let head_dim = optional(&fields, "head_dim", 1024, (dim / n_heads) as u64)?;
    Ok(ModelConfig {
        architecture: Architecture::Qwen2,
        block: Architecture::Qwen2.block(),
        n_layers,
        dim,
        hidden_dim: required(&fields, "intermediate_size", 1 << 20)?,
        n_heads,
        n_kv_heads: optional(&fields, "num_key_value_heads", 1024, n_heads as u64)?,
        head_dim,
        vocab_size: required(&fields, "vocab_size", 1 << 24)?,
        context_length,
        rms_eps: fields.positive("rms_norm_eps", 0.1)?.unwrap_or(1e-6) as f32,
        rope_theta,
        rope_theta_local: rope_theta,
        rope_scaling,
        sliding_window: None,
        is_global: vec![true; n_layers],
        query_scale: (head_dim as f64).powf(-0.5) as f32,
        embedding_scale: 1.0,
        tied_head: tied(&fields, &fields, false)?,
    })
}

/// `layer_types`, or every `sliding_window_pattern`-th layer global.
fn gemma3_layers(fields: &Fields, n_layers: usize) -> Result<Vec<bool>> {
    if let Some(types) = layer_types(fields, n_layers)? {
        return Ok(types);
    }
    let pattern = match fields.integer("sliding_window_pattern", 1, 512)? {
        Some(pattern) => pattern,
        None => fields.integer("_sliding_window_pattern", 1, 512)?.unwrap_or(6),
    };
    Ok((0..n_layers as u64).map(|i| (i + 1) % pattern == 0).collect())
}

/// One bool per layer: true for "full_attention".
fn layer_types(fields: &Fields, n_layers: usize) -> Result<Option<Vec<bool>>> {
    let Some(value) = fields.get("layer_types") else { return Ok(None) };
    let Value::Array(list) = value else {
        return Err(Error::input(format!("layer_types is {}; a list expected", show(value))));
    };
    if list.len() != n_layers {
        return Err(Error::input(format!("layer_types has {} entries for {n_layers} layers", list.len())));
    }
    let is_global = list.iter().map(|item| match item.as_str() {
        Some("full_attention") => Ok(true),
        Some("sliding_attention") => Ok(false),
        _ => Err(Error::input(format!(
            "layer_types holds {}; \"full_attention\" or \"sliding_attention\" expected",
            show(item)
        ))),
    });
    is_global.collect::<Result<Vec<bool>>>().map(Some)
}

/// Qwen 2's windowed layers are not computed; the switch is accepted where no layer would be windowed.
fn refuse_qwen2_window(fields: &Fields, n_layers: usize, context_length: usize) -> Result<()> {
    if let Some(types) = layer_types(fields, n_layers)? {
        return match types.contains(&false) {
            true => Err(Error::input("layer_types holds \"sliding_attention\"; qwen2 is supported without windows")),
            false => Ok(()),
        };
    }
    let first_windowed = fields.integer("max_window_layers", 0, 1 << 24)?.unwrap_or(28);
    let window = fields.integer("sliding_window", 1, MAX_POSITIONS)?;
    let moot = first_windowed >= n_layers as u64 || window.is_none_or(|w| w >= context_length as u64);
    match fields.boolean("use_sliding_window")? {
        Some(true) if !moot => Err(Error::input("use_sliding_window is true; qwen2 is supported without windows")),
        _ => Ok(()),
    }
}

fn tied(fields: &Fields, outer: &Fields, default: bool) -> Result<bool> {
    match fields.boolean("tie_word_embeddings")? {
        Some(tied) => Ok(tied),
        None => Ok(outer.boolean("tie_word_embeddings")?.unwrap_or(default)),
    }
}

fn required(fields: &Fields, name: &str, max: u64) -> Result<usize> {
    fields.integer(name, 1, max)?.map(|n| n as usize).ok_or_else(|| missing(name))
}

fn optional(fields: &Fields, name: &str, max: u64, default: u64) -> Result<usize> {
    Ok(fields.integer(name, 1, max)?.unwrap_or(default) as usize)
}

pub(super) fn missing(name: &str) -> Error {
    Error::input(format!("{name} is missing"))
}

fn refuse_true(fields: &Fields, name: &str) -> Result<()> {
    match fields.boolean(name)? {
        Some(true) => Err(Error::input(format!("{name} is true; that is not supported"))),
        _ => Ok(()),
    }
}

fn require(fields: &Fields, name: &str, only: &str) -> Result<()> {
    match fields.string(name)? {
        Some(found) if found != only => {
            Err(Error::input(format!("{name} is \"{found}\"; only \"{only}\" is supported")))
        }
        _ => Ok(()),
    }
}

fn round_to(format: Format, value: f32) -> f32 {
    match format {
        Format::BF16 => bf16::from_f32(value).to_f32(),
        Format::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}
