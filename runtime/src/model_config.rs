//! What a model is: every number the forward pass needs, checked once.

use lichen_kernels::ops::activation::Activation;
use lichen_kernels::ops::rope::{RopeScaling, Yarn};

use crate::error::{Error, Result};

/// The families the forward pass knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Architecture {
    /// Gemma 3, text: 5:1 local/global attention, QK-norm, norms before and after, GeGLU (tanh), tied embeddings.
    Gemma3,
    /// Qwen 2 / 2.5: biases on q, k, v; SwiGLU; embeddings tied or not.
    Qwen2,
}

impl Architecture {
    /// The name GGUF files use.
    pub fn gguf_name(self) -> &'static str {
        match self {
            Architecture::Gemma3 => "gemma3",
            Architecture::Qwen2 => "qwen2",
        }
    }
}

/// What the blocks of a model have: where a block branches, it asks this, not which family the model is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockFeatures {
    /// Of the gate of the feed-forward layer.
    pub activation: Activation,
    /// Queries and keys are normed, head by head.
    pub has_qk_norm: bool,
    /// The projections of queries, keys and values have biases.
    pub has_qkv_bias: bool,
    /// The outputs of attention and of the feed-forward layer are normed before they are added.
    pub has_post_norms: bool,
    /// Hugging Face files hold `w` for a norm's factor `1 + w`.
    pub norm_is_offset: bool,
}

impl Architecture {
    pub fn block(self) -> BlockFeatures {
        match self {
            Architecture::Gemma3 => BlockFeatures {
                activation: Activation::GeluTanh,
                has_qk_norm: true,
                has_qkv_bias: false,
                has_post_norms: true,
                norm_is_offset: true,
            },
            Architecture::Qwen2 => BlockFeatures {
                activation: Activation::Silu,
                has_qk_norm: false,
                has_qkv_bias: true,
                has_post_norms: false,
                norm_is_offset: false,
            },
        }
    }
}

/// Shapes and constants of one model. Field names are the glossary's (ARCHITECTURE.md).
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub architecture: Architecture,
    pub block: BlockFeatures,
    pub n_layers: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward layer.
    pub hidden_dim: usize,
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Positions the model was trained for.
    pub context_length: usize,
    pub rms_eps: f32,
    /// RoPE base of global layers (of all layers where none is local).
    pub rope_theta: f32,
    /// RoPE base of local layers.
    pub rope_theta_local: f32,
    /// How the rotations of global layers are stretched: not at all on Gemma 3 1B, linearly by 8 on 4B and up, by YaRN
    /// where Qwen 2.5 is set up for long contexts.
    pub rope_scaling: RopeScaling,
    /// Positions a local layer sees, the current one included; `None` when every layer is global.
    pub sliding_window: Option<usize>,
    /// One entry per layer: true when it attends to the whole context.
    pub is_global: Vec<bool>,
    /// Scores are `q . k * query_scale`.
    pub query_scale: f32,
    /// Embeddings are multiplied by this (sqrt(dim) for Gemma).
    pub embedding_scale: f32,
    /// The head is the embedding matrix.
    pub tied_head: bool,
}

impl ModelConfig {
    /// Rows of the query projection.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Rows of the key and of the value projection.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Refuses values no real model has, before anything is sized by them. Names are the fields of this struct.
    pub fn check(&self) -> Result<()> {
        let range = |name: &str, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::input(format!("{name} is {value}; {min} to {max} expected")))
        };
        range("n_layers", self.n_layers, 1, 512)?;
        range("dim", self.dim, 1, 65_536)?;
        range("hidden_dim", self.hidden_dim, 1, 1 << 20)?;
        range("n_heads", self.n_heads, 1, 1024)?;
        range("n_kv_heads", self.n_kv_heads, 1, 1024)?;
        range("head_dim", self.head_dim, 2, 1024)?;
        range("vocab_size", self.vocab_size, 1, 1 << 24)?;
        range("context_length", self.context_length, 1, 1 << 24)?;
        if let Some(window) = self.sliding_window {
            range("sliding_window", window, 1, 1 << 24)?;
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(Error::input(format!("head_dim is {}; RoPE needs an even number", self.head_dim)));
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(Error::input(format!(
                "{} query heads do not divide over {} key/value heads",
                self.n_heads, self.n_kv_heads
            )));
        }
        if self.is_global.len() != self.n_layers {
            return Err(Error::input(format!("{} layer types for {} layers", self.is_global.len(), self.n_layers)));
        }
        let positive = |name: &str, value: f32, max: f32| {
            if value > 0.0 && value <= max {
                return Ok(());
            }
            Err(Error::input(format!("{name} is {value}; a number above 0 and at most {max} expected")))
        };
        positive("rms_eps", self.rms_eps, 0.1)?;
        positive("rope_theta", self.rope_theta, 1e12)?;
        positive("rope_theta_local", self.rope_theta_local, 1e12)?;
        match self.rope_scaling {
            RopeScaling::Linear(factor) => positive("rope_scaling.factor", factor, 1e4)?,
            RopeScaling::Yarn(yarn) => check_yarn(&yarn)?,
        }
        positive("query_scale", self.query_scale, 1e3)?;
        positive("embedding_scale", self.embedding_scale, 1e6)
    }
}

fn check_yarn(yarn: &Yarn) -> Result<()> {
    // Written so that NaN is refused.
    let wrong = |what: String| Err(Error::input(format!("rope_scaling.{what} expected for YaRN")));
    if !(yarn.factor >= 1.0 && yarn.factor <= 1e4) {
        return wrong(format!("factor is {}; 1 to 10000", yarn.factor));
    }
    if !(1..=1 << 24).contains(&yarn.original_context) {
        return wrong(format!("original_context is {}; 1 to 16777216", yarn.original_context));
    }
    if !(yarn.beta_slow > 0.0 && yarn.beta_slow <= yarn.beta_fast && yarn.beta_fast <= 1e4) {
        return wrong(format!("beta_slow is {}; above 0 and at most beta_fast {}", yarn.beta_slow, yarn.beta_fast));
    }
    if !(yarn.attention_factor > 0.0 && yarn.attention_factor <= 100.0) {
        return wrong(format!("attention_factor is {}; above 0 and at most 100", yarn.attention_factor));
    }
    Ok(())
}
