//! The weights a model is made of, and what each file format calls them.

use crate::model_config::{Architecture, ModelConfig};

/// One weight of a model; those of a layer exist once per layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    TokenEmbedding,
    OutputNorm,
    /// The head; absent when it is tied to the embedding.
    Output,
    /// Before attention.
    AttnNorm,
    AttnQ,
    AttnK,
    AttnV,
    AttnQBias,
    AttnKBias,
    AttnVBias,
    AttnQNorm,
    AttnKNorm,
    AttnOutput,
    /// After attention, before its residual sum (Gemma 3).
    PostAttnNorm,
    /// Before the feed-forward layer. Gemma's files call it `pre_feedforward_layernorm`, Qwen's
    /// `post_attention_layernorm`, which in Gemma is [`Part::PostAttnNorm`].
    FfnNorm,
    FfnGate,
    FfnUp,
    FfnDown,
    /// After the feed-forward layer, before its residual sum (Gemma 3).
    PostFfnNorm,
}

/// Shape of a weight, row-major.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartShape {
    /// Norms and biases.
    Vector(usize),
    /// `(rows, cols)`: one row per output.
    Matrix(usize, usize),
}

const GEMMA3_LAYER: [Part; 13] = [
    Part::AttnNorm,
    Part::AttnQ,
    Part::AttnK,
    Part::AttnV,
    Part::AttnQNorm,
    Part::AttnKNorm,
    Part::AttnOutput,
    Part::PostAttnNorm,
    Part::FfnNorm,
    Part::FfnGate,
    Part::FfnUp,
    Part::FfnDown,
    Part::PostFfnNorm,
];

const QWEN2_LAYER: [Part; 12] = [
    Part::AttnNorm,
    Part::AttnQ,
    Part::AttnK,
    Part::AttnV,
    Part::AttnQBias,
    Part::AttnKBias,
    Part::AttnVBias,
    Part::AttnOutput,
    Part::FfnNorm,
    Part::FfnGate,
    Part::FfnUp,
    Part::FfnDown,
];

impl Part {
    /// The weights of one layer.
    pub fn of_layer(architecture: Architecture) -> &'static [Part] {
        match architecture {
            Architecture::Gemma3 => &GEMMA3_LAYER,
            Architecture::Qwen2 => &QWEN2_LAYER,
        }
    }

    /// Every weight of a model, with its layer, in the order the forward pass meets them.
    pub fn of_model(config: &ModelConfig) -> impl Iterator<Item = (Part, Option<usize>)> + use<> {
        let architecture = config.architecture;
        let layers = (0..config.n_layers)
            .flat_map(move |layer| Part::of_layer(architecture).iter().map(move |part| (*part, Some(layer))));
        let head = (!config.tied_head).then_some((Part::Output, None));
        std::iter::once((Part::TokenEmbedding, None)).chain(layers).chain([(Part::OutputNorm, None)]).chain(head)
    }

    pub fn shape(self, config: &ModelConfig) -> PartShape {
        let ModelConfig { dim, hidden_dim, head_dim, vocab_size, .. } = *config;
        match self {
            Part::TokenEmbedding | Part::Output => PartShape::Matrix(vocab_size, dim),
            Part::AttnQ => PartShape::Matrix(config.q_dim(), dim),
            Part::AttnK | Part::AttnV => PartShape::Matrix(config.kv_dim(), dim),
            Part::AttnOutput => PartShape::Matrix(dim, config.q_dim()),
            Part::FfnGate | Part::FfnUp => PartShape::Matrix(hidden_dim, dim),
            Part::FfnDown => PartShape::Matrix(dim, hidden_dim),
            Part::AttnQBias => PartShape::Vector(config.q_dim()),
            Part::AttnKBias | Part::AttnVBias => PartShape::Vector(config.kv_dim()),
            Part::AttnQNorm | Part::AttnKNorm => PartShape::Vector(head_dim),
            Part::OutputNorm | Part::AttnNorm | Part::PostAttnNorm | Part::FfnNorm | Part::PostFfnNorm => {
                PartShape::Vector(dim)
            }
        }
    }

    pub fn is_norm(self) -> bool {
        matches!(
            self,
            Part::OutputNorm
                | Part::AttnNorm
                | Part::AttnQNorm
                | Part::AttnKNorm
                | Part::PostAttnNorm
                | Part::FfnNorm
                | Part::PostFfnNorm
        )
    }

    /// The tensor in a GGUF file: `blk.7.attn_q.weight`.
    pub fn gguf_name(self, layer: Option<usize>) -> String {
        let name = match self {
            Part::TokenEmbedding => "token_embd.weight",
            Part::OutputNorm => "output_norm.weight",
            Part::Output => "output.weight",
            Part::AttnNorm => "attn_norm.weight",
            Part::AttnQ => "attn_q.weight",
            Part::AttnK => "attn_k.weight",
            Part::AttnV => "attn_v.weight",
            Part::AttnQBias => "attn_q.bias",
            Part::AttnKBias => "attn_k.bias",
            Part::AttnVBias => "attn_v.bias",
            Part::AttnQNorm => "attn_q_norm.weight",
            Part::AttnKNorm => "attn_k_norm.weight",
            Part::AttnOutput => "attn_output.weight",
            Part::PostAttnNorm => "post_attention_norm.weight",
            Part::FfnNorm => "ffn_norm.weight",
            Part::FfnGate => "ffn_gate.weight",
            Part::FfnUp => "ffn_up.weight",
            Part::FfnDown => "ffn_down.weight",
            Part::PostFfnNorm => "post_ffw_norm.weight",
        };
        match layer {
            Some(layer) => format!("blk.{layer}.{name}"),
            None => name.to_string(),
        }
    }

    /// The tensor in a Hugging Face file, below the model's prefix (`model.`, or another for multimodal files):
    /// `layers.7.self_attn.q_proj.weight`. The head's name has no prefix.
    pub fn hf_name(self, architecture: Architecture, layer: Option<usize>) -> String {
        let name = match self {
            Part::TokenEmbedding => "embed_tokens.weight",
            Part::OutputNorm => "norm.weight",
            Part::Output => "lm_head.weight",
            Part::AttnNorm => "input_layernorm.weight",
            Part::AttnQ => "self_attn.q_proj.weight",
            Part::AttnK => "self_attn.k_proj.weight",
            Part::AttnV => "self_attn.v_proj.weight",
            Part::AttnQBias => "self_attn.q_proj.bias",
            Part::AttnKBias => "self_attn.k_proj.bias",
            Part::AttnVBias => "self_attn.v_proj.bias",
            Part::AttnQNorm => "self_attn.q_norm.weight",
            Part::AttnKNorm => "self_attn.k_norm.weight",
            Part::AttnOutput => "self_attn.o_proj.weight",
            Part::PostAttnNorm => "post_attention_layernorm.weight",
            Part::FfnNorm => match architecture {
                Architecture::Gemma3 => "pre_feedforward_layernorm.weight",
                Architecture::Qwen2 => "post_attention_layernorm.weight",
            },
            Part::FfnGate => "mlp.gate_proj.weight",
            Part::FfnUp => "mlp.up_proj.weight",
            Part::FfnDown => "mlp.down_proj.weight",
            Part::PostFfnNorm => "post_feedforward_layernorm.weight",
        };
        match layer {
            Some(layer) => format!("layers.{layer}.{name}"),
            None => name.to_string(),
        }
    }
}
