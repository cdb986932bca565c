//! Shapes of released models, by name.

use lichen_kernels::ops::rope::RopeScaling;

use crate::error::{Error, Result};
use crate::model_config::{Architecture, ModelConfig};
use crate::setting::GEOMETRY;

/// Names [`config`] knows.
pub const NAMES: [&str; 6] =
    ["gemma-3-270m", "gemma-3-1b", "qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b", "qwen2.5-72b"];

/// The configuration of a released model, by name (config.json of its repository).
///
/// # Errors
/// No model of the list is called so.
pub fn config(name: &str) -> Result<ModelConfig> {
    let config = match name {
        "gemma-3-270m" => gemma3(18, 640, 2048, 4),
        "gemma-3-1b" => gemma3(26, 1152, 6912, 4),
        "qwen2.5-0.5b" => qwen2(24, 896, 4864, 14, 2, 151_936, true),
        "qwen2.5-1.5b" => qwen2(28, 1536, 8960, 12, 2, 151_936, true),
        "qwen2.5-7b" => qwen2(28, 3584, 18_944, 28, 4, 152_064, false),
        "qwen2.5-72b" => qwen2(80, 8192, 29_568, 64, 8, 152_064, false),
        _ => return Err(Error::usage(format!("{GEOMETRY} is \"{name}\"; known: {}", NAMES.join(", ")))),
    };
    config.check()?;
    Ok(config)
}

fn gemma3(n_layers: usize, dim: usize, hidden_dim: usize, n_heads: usize) -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Gemma3,
        block: Architecture::Gemma3.block(),
        n_layers,
        dim,
        hidden_dim,
        n_heads,
        n_kv_heads: 1,
        head_dim: 256,
        vocab_size: 262_144,
        context_length: 32_768,
        rms_eps: 1e-6,
        rope_theta: 1e6,
        rope_theta_local: 1e4,
        rope_scaling: RopeScaling::NONE,
        sliding_window: Some(512),
        is_global: (0..n_layers).map(|i| i % 6 == 5).collect(),
        query_scale: 1.0 / 16.0,
        embedding_scale: (dim as f32).sqrt(),
        tied_head: true,
    }
}

fn qwen2(
    n_layers: usize,
    dim: usize,
    hidden_dim: usize,
    n_heads: usize,
    n_kv_heads: usize,
    vocab_size: usize,
    tied_head: bool,
) -> ModelConfig {
    let head_dim = dim / n_heads;
    ModelConfig {
        architecture: Architecture::Qwen2,
        block: Architecture::Qwen2.block(),
        n_layers,
        dim,
        hidden_dim,
        n_heads,
        n_kv_heads,
        head_dim,
        vocab_size,
        context_length: 32_768,
        rms_eps: 1e-6,
        rope_theta: 1e6,
        rope_theta_local: 1e6,
        rope_scaling: RopeScaling::NONE,
        sliding_window: None,
        is_global: vec![true; n_layers],
        query_scale: 1.0 / (head_dim as f32).sqrt(),
        embedding_scale: 1.0,
        tied_head,
    }
}
