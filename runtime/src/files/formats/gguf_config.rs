//! GGUF metadata -> [`ModelConfig`]: the keys of llama.cpp's converter, and those that Ollama's writes for Gemma 3.

use lichen_kernels::ops::rope::{RopeScaling, Yarn};

use super::gguf::{GgufSet, Metadata, Value, ValueType};
use crate::error::{Error, Result};
use crate::escape::thousands;
use crate::model_config::{Architecture, ModelConfig};
use crate::setting::ADAPTER;

const MAX_POSITIONS: u64 = 1 << 24;
/// RoPE bases of Gemma 3's global and local layers, where the file does not say: all released models have these.
const GEMMA3_THETA: f32 = 1_000_000.0;
const GEMMA3_LOCAL_THETA: f32 = 10_000.0;
const GEMMA3_RMS_EPS: f32 = 1e-6;
/// Layers and width of the released Gemma 3 of 4B, 12B and 27B. Their global layers divide positions by 8, which Ollama's
/// files of them do not say.
const GEMMA3_LONG: [(usize, usize); 3] = [(34, 2560), (48, 3840), (62, 5376)];
const GEMMA3_LONG_FACTOR: f32 = 8.0;
/// The soft-capping that Ollama's converter writes where config.json has none.
const OLLAMA_SOFTCAPPING: f32 = 30.0;
/// Layers of Rnj-1, the one released model of this architecture that does cap its logits.
const RNJ_1_LAYERS: usize = 32;
/// Every sixth layer of Gemma 3 is global, where the file does not say.
const GEMMA3_PATTERN: usize = 6;
/// Gemma 3 27B alone scales queries by dim / n_heads instead of head_dim; it is known by its depth.
const GEMMA3_27B_LAYERS: usize = 62;

/// What the metadata describes.
///
/// # Errors
/// The first key that is missing, of another type or out of range, by name, without the file's name.
pub fn model_config(gguf: &GgufSet) -> Result<ModelConfig> {
    let metadata = gguf.metadata();
    let keys = Keys { metadata, architecture: architecture(metadata)? };
    let n_layers = keys.integer("block_count", 512)?;
    let dim = keys.integer("embedding_length", 65_536)?;
    let n_heads = keys.integer("attention.head_count", 1024)?;
    let n_kv_heads = keys.optional("attention.head_count_kv", 1024)?.unwrap_or(n_heads);
    let head_dim = keys.head_dim(dim, n_heads)?;
    let gemma3 = keys.architecture == Architecture::Gemma3;
    let context_length = keys.integer("context_length", MAX_POSITIONS)?;
    let rope_theta = keys.rope_base(["rope.freq_base", "rope.global.freq_base"], gemma3.then_some(GEMMA3_THETA))?;
    let rope_scaling = keys.rope_scaling(context_length, (n_layers, dim))?;
    let (sliding_window, is_global) = match gemma3 {
        true => keys.gemma3_layers(n_layers)?,
        false => (None, vec![true; n_layers]),
    };
    let query_dim = match gemma3 && n_layers == GEMMA3_27B_LAYERS {
        true => dim as f64 / n_heads as f64,
        false => head_dim as f64,
    };
    let config = ModelConfig {
        architecture: keys.architecture,
        block: keys.architecture.block(),
        n_layers,
        dim,
        hidden_dim: keys.integer("feed_forward_length", 1 << 20)?,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab_size: vocab_size(gguf)?,
        context_length: match rope_scaling {
            RopeScaling::Yarn(yarn) => yarn.context().max(context_length),
            RopeScaling::Linear(_) => context_length,
        },
        rms_eps: match keys.optional_positive("attention.layer_norm_rms_epsilon", 0.1)? {
            Some(eps) => eps,
            None if gemma3 => GEMMA3_RMS_EPS,
            None => return Err(missing(&keys.key("attention.layer_norm_rms_epsilon"))),
        },
        rope_theta,
        rope_theta_local: match gemma3 {
            true => keys.rope_base(["rope.freq_base_swa", "rope.local.freq_base"], Some(GEMMA3_LOCAL_THETA))?,
            false => rope_theta,
        },
        rope_scaling,
        sliding_window,
        is_global,
        query_scale: query_dim.powf(-0.5) as f32,
        embedding_scale: if gemma3 { (dim as f64).sqrt() as f32 } else { 1.0 },
        tied_head: gguf.tensor("output.weight").is_none(),
    };
    config.check()?;
    Ok(config)
}

fn architecture(metadata: &Metadata) -> Result<Architecture> {
    if metadata.string("general.type")? == Some("adapter") {
        return Err(Error::input(format!("is a LoRA adapter, not a model: pass it with {ADAPTER}")));
    }
    match metadata.string("general.architecture")? {
        Some("gemma3") => Ok(Architecture::Gemma3),
        Some("qwen2") => Ok(Architecture::Qwen2),
        Some(other) => {
            Err(Error::input(format!("architecture \"{other}\" is not supported (supported: gemma3, qwen2)")))
        }
        None => Err(missing("general.architecture")),
    }
}

pub(super) fn missing(key: &str) -> Error {
    Error::input(format!("\"{key}\" is missing"))
}

/// Keys of one architecture: `gemma3.block_count` is read as `block_count`.
struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: Architecture,
}

impl Keys<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.gguf_name())
    }

    fn optional(&self, name: &str, max: u64) -> Result<Option<usize>> {
        Ok(self.metadata.integer(&self.key(name), 1, max)?.map(|n| n as usize))
    }

    fn integer(&self, name: &str, max: u64) -> Result<usize> {
        self.optional(name, max)?.ok_or_else(|| missing(&self.key(name)))
    }

    fn optional_positive(&self, name: &str, max: f32) -> Result<Option<f32>> {
        let key = self.key(name);
        match self.metadata.float(&key)? {
            // Not `v <= 0.0`: NaN must be refused.
            Some(v) if !(v > 0.0 && v <= max) => {
                Err(Error::input(format!("\"{key}\" is {v}; a number above 0 and at most {max} expected")))
            }
            other => Ok(other),
        }
    }

    fn head_dim(&self, dim: usize, n_heads: usize) -> Result<usize> {
        let head_dim = match self.optional("attention.key_length", 1024)? {
            Some(n) => n,
            None if dim.is_multiple_of(n_heads) => dim / n_heads,
            None => {
                let key = self.key("attention.head_count");
                return Err(Error::input(format!("\"{key}\" is {n_heads}; it does not divide the width {dim}")));
            }
        };
        match self.optional("attention.value_length", 1024)? {
            Some(n) if n != head_dim => {
                let key = self.key("attention.value_length");
                Err(Error::input(format!("\"{key}\" is {n}, but keys are {head_dim} long: that is not supported")))
            }
            _ => Ok(head_dim),
        }
    }

    /// A RoPE base under llama.cpp's name or under Ollama's; where neither is there, the default, or it is missing.
    fn rope_base(&self, names: [&str; 2], default: Option<f32>) -> Result<f32> {
        let [ours, theirs] = names;
        match (self.optional_positive(ours, 1e12)?, self.optional_positive(theirs, 1e12)?) {
            (Some(a), Some(b)) if a != b => {
                Err(Error::input(format!("\"{}\" is {a}, but \"{}\" is {b}", self.key(ours), self.key(theirs))))
            }
            (Some(base), _) | (None, Some(base)) => Ok(base),
            (None, None) => default.ok_or_else(|| missing(&self.key(ours))),
        }
    }

    /// `released` are layers and width, which tell the models whose factor a file may leave out.
    fn rope_scaling(&self, context_length: usize, released: (usize, usize)) -> Result<RopeScaling> {
        let kind = self.metadata.string(&self.key("rope.scaling.type"))?;
        // The second name is llama.cpp's of 2023.
        let factor = match self.optional_positive("rope.scaling.factor", 1e4)? {
            Some(factor) => Some(factor),
            None => self.optional_positive("rope.scale_linear", 1e4)?,
        };
        match (kind, self.architecture) {
            (Some("none"), _) => Ok(RopeScaling::NONE),
            (None | Some("linear"), Architecture::Gemma3) if factor.is_none() && GEMMA3_LONG.contains(&released) => {
                log::info!("global layers divide positions by {GEMMA3_LONG_FACTOR}, as this Gemma 3 does; its file does not say");
                Ok(RopeScaling::Linear(GEMMA3_LONG_FACTOR))
            }
            (None | Some("linear"), _) => Ok(RopeScaling::Linear(factor.unwrap_or(1.0))),
            (Some("yarn"), Architecture::Qwen2) => self.yarn(factor, context_length).map(RopeScaling::Yarn),
            (Some(other), architecture) => Err(Error::input(format!(
                "\"{}\" is \"{other}\"; {} is supported",
                self.key("rope.scaling.type"),
                if architecture == Architecture::Qwen2 { "none, linear or yarn" } else { "none or linear" }
            ))),
        }
    }

    /// YaRN as llama.cpp computes it; what it and transformers understand differently is refused.
    fn yarn(&self, factor: Option<f32>, context_length: usize) -> Result<Yarn> {
        let scaling = |name: &str| format!("rope.scaling.{name}");
        let number = |name: &str, default| -> Result<f32> {
            Ok(self.optional_positive(&scaling(name), 1e4)?.unwrap_or(default))
        };
        let factor = factor.ok_or_else(|| missing(&self.key("rope.scaling.factor")))?;
        let whole = Yarn::default_attention_factor(factor);
        let of_one_meaning = [("yarn_ext_factor", 1.0), ("yarn_log_multiplier", 0.0), ("yarn_attn_factor", whole)];
        for (name, only) in of_one_meaning {
            let key = self.key(&scaling(name));
            if let Some(found) = self.metadata.float(&key)?.filter(|v| (v - only).abs() > 1e-4 || v.is_nan()) {
                return Err(Error::input(format!("\"{key}\" is {found}; only {only} is supported")));
            }
        }
        Ok(Yarn {
            factor,
            original_context: self
                .optional("rope.scaling.original_context_length", MAX_POSITIONS)?
                .unwrap_or(context_length),
            beta_fast: number("yarn_beta_fast", Yarn::BETA_FAST)?,
            beta_slow: number("yarn_beta_slow", Yarn::BETA_SLOW)?,
            attention_factor: whole * number("attn_factor", 1.0)?,
        })
    }

    /// The window, and which layers are global.
    fn gemma3_layers(&self, n_layers: usize) -> Result<(Option<usize>, Vec<bool>)> {
        self.refuse_softcapping(n_layers)?;
        let window = self.integer("attention.sliding_window", MAX_POSITIONS)?;
        let key = self.key("attention.sliding_window_pattern");
        let every = |pattern: usize| (0..n_layers).map(|i| (i + 1) % pattern == 0).collect::<Vec<bool>>();
        let is_global = match self.metadata.get(&key) {
            None => every(GEMMA3_PATTERN),
            Some(Value::Array(_)) => {
                let items = self.metadata.array(&key, ValueType::Bool)?.expect("it is an array");
                if items.len != n_layers {
                    return Err(Error::input(format!("{key} has {} items for {n_layers} layers", items.len)));
                }
                // The file says which layers are windowed.
                items.iter().map(|item| item == Value::Bool(false)).collect()
            }
            Some(_) => every(self.integer("attention.sliding_window_pattern", 512)?),
        };
        Ok((is_global.contains(&false).then_some(window), is_global))
    }

    /// Gemma 3 caps nothing, but Ollama's files of it say so.
    fn refuse_softcapping(&self, n_layers: usize) -> Result<()> {
        for name in ["final_logit_softcapping", "attn_logit_softcapping"] {
            let key = self.key(name);
            let Some(cap) = self.metadata.float(&key)?.filter(|cap| *cap != 0.0) else { continue };
            let is_default = name == "final_logit_softcapping" && cap == OLLAMA_SOFTCAPPING;
            if is_default && n_layers != RNJ_1_LAYERS && self.is_of_ollama() {
                log::info!(
                    "\"{key}\" is left aside: Ollama writes {cap} into files of Gemma 3, which has no soft-capping"
                );
                continue;
            }
            return Err(Error::input(format!("\"{key}\" is {cap}; soft-capping is not supported")));
        }
        Ok(())
    }

    /// Keys that Ollama's converter alone writes: its names of the RoPE bases, and images in the same file.
    fn is_of_ollama(&self) -> bool {
        let names = ["rope.global.freq_base", "rope.local.freq_base", "vision.block_count", "mm.tokens_per_image"];
        names.iter().any(|name| self.metadata.get(&self.key(name)).is_some())
    }
}

/// Number of tokens, which must be the number of rows of the embedding.
fn vocab_size(gguf: &GgufSet) -> Result<usize> {
    let n_tokens = gguf.metadata().array("tokenizer.ggml.tokens", ValueType::String)?.map_or(0, |a| a.len);
    let embedding = gguf.tensor("token_embd.weight").map(|(_, tensor)| tensor);
    let embedding = embedding.ok_or_else(|| Error::input("tensor \"token_embd.weight\" is missing"))?;
    let n_rows = embedding.shape()[0];
    if n_tokens != n_rows || n_tokens == 0 {
        return Err(Error::input(format!(
            "vocabulary has {} tokens, the embedding {} rows",
            thousands(n_tokens as u64),
            thousands(n_rows as u64)
        )));
    }
    Ok(n_tokens)
}
