//! The metadata of the GGUF file: what llama.cpp's converter writes for these two families.

use std::path::Path;

use lichen_kernels::ops::rope::{RopeScaling, Yarn};
use lichen_runtime::files::formats::gguf::Metadata;
use lichen_runtime::files::formats::gguf_write::{Head, NewValue};
use lichen_runtime::files::model_source::{folder_name, Origin};
use lichen_runtime::sampler::SamplingOverrides;
use lichen_runtime::text::tokenizer::{arrays_from_json, TokenizerArrays, TokenizerKind};
use lichen_runtime::{Architecture, Error, ModelConfig, ModelSource, Result};

use super::{sentencepiece, Options, Target};

/// What readers take for Gemma 3 where the file does not say.
const GEMMA3_PATTERN: usize = 6;
const GEMMA3_LOCAL_THETA: f32 = 10_000.0;
/// Gemma 3 27B alone scales queries by dim / n_heads; readers know it by its depth.
const GEMMA3_27B_LAYERS: usize = 62;

/// Adds everything; `notes` hears what a person should know.
///
/// # Errors
/// The model has a property that GGUF has no key for, or a tokenizer that GGUF cannot express.
pub fn add(head: &mut Head, source: &ModelSource, options: &Options, notes: &mut Vec<String>) -> Result<()> {
    match source.origin() {
        Origin::Gguf(metadata) => {
            copy(head, metadata, options);
            Ok(())
        }
        Origin::HuggingFace(dir) => {
            let config = source.config();
            let name = options.name.clone().unwrap_or_else(|| folder_name(dir));
            head.entry("general.architecture", NewValue::String(config.architecture.gguf_name()));
            head.entry("general.type", NewValue::String("model"));
            head.entry("general.name", NewValue::String(&name));
            add_quantization(head, options.target);
            add_config(head, config)?;
            add_tokenizer(head, source, dir, notes)
        }
    }
}

/// A GGUF source says all there is to say; only what describes its weights is replaced.
fn copy(head: &mut Head, metadata: &Metadata, options: &Options) {
    const REPLACED: [&str; 3] = ["general.file_type", "general.quantization_version", "general.alignment"];
    for (key, value) in metadata.iter() {
        let about_weights = REPLACED.contains(&key) || key.starts_with("quantize.") || key.starts_with("split.");
        if about_weights || (key == "general.name" && options.name.is_some()) {
            continue;
        }
        head.entry(key, NewValue::Copy(value));
    }
    if let Some(name) = &options.name {
        head.entry("general.name", NewValue::String(name));
    }
    add_quantization(head, options.target);
}

fn add_quantization(head: &mut Head, target: Target) {
    // ggml's LLAMA_FTYPE of "mostly" this format, and the version of its block layouts.
    let (file_type, is_quantised) = match target {
        Target::F32 => (0, false),
        Target::F16 => (1, false),
        Target::Q4_0 => (2, true),
        Target::Q8_0 => (7, true),
        Target::Q5_0 => (8, true),
        Target::Bf16 => (32, false),
        Target::Nf4 => unreachable!("GGUF has no NF4"),
    };
    head.entry("general.file_type", NewValue::U32(file_type));
    if is_quantised {
        head.entry("general.quantization_version", NewValue::U32(2));
    }
}

fn add_config(head: &mut Head, config: &ModelConfig) -> Result<()> {
    let gemma3 = config.architecture == Architecture::Gemma3;
    check_expressible(config)?;
    let is_local: Vec<bool> = config.is_global.iter().map(|global| !global).collect();
    let mut put = |name: &str, value| head.entry(&format!("{}.{name}", config.architecture.gguf_name()), value);
    let u32_of = |n: usize| NewValue::U32(n as u32);
    put("context_length", u32_of(config.context_length));
    put("embedding_length", u32_of(config.dim));
    put("block_count", u32_of(config.n_layers));
    put("feed_forward_length", u32_of(config.hidden_dim));
    put("attention.head_count", u32_of(config.n_heads));
    put("attention.head_count_kv", u32_of(config.n_kv_heads));
    put("attention.layer_norm_rms_epsilon", NewValue::F32(config.rms_eps));
    put("rope.freq_base", NewValue::F32(config.rope_theta));
    match config.rope_scaling {
        RopeScaling::NONE => {}
        RopeScaling::Linear(factor) => {
            put("rope.scaling.type", NewValue::String("linear"));
            put("rope.scaling.factor", NewValue::F32(factor));
        }
        RopeScaling::Yarn(yarn) => {
            put("rope.scaling.type", NewValue::String("yarn"));
            put("rope.scaling.factor", NewValue::F32(yarn.factor));
            put("rope.scaling.original_context_length", u32_of(yarn.original_context));
            put("rope.scaling.yarn_beta_fast", NewValue::F32(yarn.beta_fast));
            put("rope.scaling.yarn_beta_slow", NewValue::F32(yarn.beta_slow));
        }
    }
    if gemma3 || config.head_dim * config.n_heads != config.dim {
        put("attention.key_length", u32_of(config.head_dim));
        put("attention.value_length", u32_of(config.head_dim));
    }
    if !gemma3 {
        return Ok(());
    }
    put("attention.sliding_window", u32_of(config.sliding_window.unwrap_or(config.context_length)));
    let has_pattern = |n: usize| config.is_global.iter().enumerate().all(|(i, global)| *global == ((i + 1) % n == 0));
    if !has_pattern(GEMMA3_PATTERN) {
        match (1..=config.n_layers + 1).find(|n| has_pattern(*n)) {
            Some(n) => put("attention.sliding_window_pattern", u32_of(n)),
            None => put("attention.sliding_window_pattern", NewValue::Bools(&is_local)),
        }
    }
    if config.rope_theta_local != GEMMA3_LOCAL_THETA {
        put("rope.freq_base_swa", NewValue::F32(config.rope_theta_local));
    }
    Ok(())
}

/// Readers of GGUF derive the scale of the queries; a model with another one would run, and answer wrongly.
fn check_expressible(config: &ModelConfig) -> Result<()> {
    let divisor = match config.architecture {
        Architecture::Gemma3 if config.n_layers == GEMMA3_27B_LAYERS => config.dim as f64 / config.n_heads as f64,
        _ => config.head_dim as f64,
    };
    let implied = divisor.powf(-0.5) as f32;
    if (config.query_scale - implied).abs() > 1e-6 * implied {
        return Err(Error::input(format!(
            "queries are scaled by {}; GGUF has no key for that and its readers take {implied}",
            config.query_scale
        )));
    }
    if let RopeScaling::Yarn(yarn) = config.rope_scaling {
        let implied = Yarn::default_attention_factor(yarn.factor);
        if (yarn.attention_factor - implied).abs() > 1e-6 * implied {
            return Err(Error::input(format!(
                "YaRN's attention_factor is {}; GGUF has no key for that and its readers take {implied}",
                yarn.attention_factor
            )));
        }
    }
    Ok(())
}

fn add_tokenizer(head: &mut Head, source: &ModelSource, dir: &Path, notes: &mut Vec<String>) -> Result<()> {
    let mut arrays = arrays_from_json(&dir.join("tokenizer.json"), source.config().vocab_size)?;
    arrays.bos_id = arrays.bos_id.or(source.bos_id());
    arrays.eos_id = arrays.eos_id.or(source.stop_ids().first().copied());
    if arrays.kind == TokenizerKind::SentencePiece {
        let original = dir.join("tokenizer.model");
        if original.exists() {
            notes.extend(sentencepiece::take_scores(&mut arrays, &original)?);
        }
    }
    let n_padding = arrays.token_type.iter().filter(|t| **t == 5).count();
    if n_padding > 0 {
        notes.push(format!("{n_padding} rows of the embedding have no token: written as [PAD<id>]"));
    }
    add_arrays(head, &arrays);
    add_turn_end(head, &arrays, source);
    add_sampling(head, source.sampling());
    match source.chat_template() {
        Some(template) => head.entry("tokenizer.chat_template", NewValue::String(&template)),
        None => notes.push("the model has no chat template".into()),
    }
    Ok(())
}

/// How the model's makers sample from it, in the keys that llama.cpp reads.
fn add_sampling(head: &mut Head, sampling: SamplingOverrides) {
    let mut put = |name: &str, value: Option<NewValue>| {
        if let Some(value) = value {
            head.entry(&format!("general.sampling.{name}"), value);
        }
    };
    put("temp", sampling.temperature.map(NewValue::F32));
    put("top_k", sampling.top_k.and_then(|k| i32::try_from(k).ok()).map(NewValue::I32));
    put("top_p", sampling.top_p.map(NewValue::F32));
    put("min_p", sampling.min_p.map(NewValue::F32));
    put("penalty_repeat", sampling.repeat_penalty.map(NewValue::F32));
}

fn add_arrays(head: &mut Head, arrays: &TokenizerArrays) {
    let mut put = |name: &str, value| head.entry(&format!("tokenizer.ggml.{name}"), value);
    let (model, pre) = match arrays.kind {
        TokenizerKind::SentencePiece => ("llama", "default"),
        TokenizerKind::ByteLevel => ("gpt2", "qwen2"),
    };
    put("model", NewValue::String(model));
    put("pre", NewValue::String(pre));
    put("tokens", NewValue::Strings(&arrays.tokens));
    if arrays.kind == TokenizerKind::SentencePiece {
        put("scores", NewValue::F32s(&arrays.scores));
    }
    put("token_type", NewValue::I32s(&arrays.token_type));
    if arrays.kind == TokenizerKind::ByteLevel {
        put("merges", NewValue::Strings(&arrays.merges));
    }
    let ids = [
        ("bos", arrays.bos_id),
        ("eos", arrays.eos_id),
        ("unknown", arrays.unknown_id),
        ("padding", arrays.padding_id),
    ];
    for (name, id) in ids {
        if let Some(id) = id {
            put(&format!("{name}_token_id"), NewValue::U32(id));
        }
    }
    put("add_bos_token", NewValue::Bool(arrays.add_bos));
    if arrays.kind == TokenizerKind::SentencePiece {
        put("add_eos_token", NewValue::Bool(false));
        put("add_space_prefix", NewValue::Bool(arrays.add_space_prefix));
    }
}

/// The end of a turn beside the end of a text: a reader that stops on one id alone would let Gemma talk on.
fn add_turn_end(head: &mut Head, arrays: &TokenizerArrays, source: &ModelSource) {
    let is_turn_end = |id: &u32| matches!(arrays.tokens[*id as usize].as_str(), "<end_of_turn>" | "<|im_end|>");
    let id = source.stop_ids().into_iter().find(is_turn_end).filter(|id| Some(*id) != arrays.eos_id);
    if let Some(id) = id {
        head.entry("tokenizer.ggml.eot_token_id", NewValue::U32(id));
    }
}
