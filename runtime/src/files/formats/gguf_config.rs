//! GGUF metadata -> [`ModelConfig`], the tokenizer's arrays, stop tokens and the chat template.

use super::gguf::{Array, Gguf, Metadata, Value, ValueType};
use crate::error::{Error, Result};
use crate::escape::thousands;
use crate::model_config::{Architecture, ModelConfig};
use crate::setting::ADAPTER;
use crate::text::tokenizer::{TokenizerArrays, TokenizerKind};

const MAX_POSITIONS: u64 = 1 << 24;
/// Gemma 3's local layers, where the file does not say (`rope.freq_base_swa` is recent).
const GEMMA3_LOCAL_THETA: f32 = 10_000.0;
/// Every sixth layer of Gemma 3 is global, where the file does not say.
const GEMMA3_PATTERN: usize = 6;
/// Gemma 3 27B alone scales queries by dim / n_heads instead of head_dim; it is known by its depth.
const GEMMA3_27B_LAYERS: usize = 62;

/// What the metadata describes.
///
/// # Errors
/// The first key that is missing, of another type or out of range, by name, without the file's name.
pub fn model_config(gguf: &Gguf) -> Result<ModelConfig> {
    let metadata = gguf.metadata();
    let keys = Keys { metadata, architecture: architecture(metadata)? };
    let n_layers = keys.integer("block_count", 512)?;
    let dim = keys.integer("embedding_length", 65_536)?;
    let n_heads = keys.integer("attention.head_count", 1024)?;
    let n_kv_heads = keys.optional("attention.head_count_kv", 1024)?.unwrap_or(n_heads);
    let head_dim = keys.head_dim(dim, n_heads)?;
    let rope_theta = keys.rope_base()?;
    let gemma3 = keys.architecture == Architecture::Gemma3;
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
        context_length: keys.integer("context_length", MAX_POSITIONS)?,
        rms_eps: keys.positive("attention.layer_norm_rms_epsilon", 0.1)?,
        rope_theta,
        rope_theta_local: match gemma3 {
            true => keys.optional_positive("rope.freq_base_swa", 1e12)?.unwrap_or(GEMMA3_LOCAL_THETA),
            false => rope_theta,
        },
        rope_scale: keys.rope_scale()?,
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
    let parts = metadata.integer("split.count", 0, u16::MAX as u64)?.unwrap_or(1);
    if parts > 1 {
        let number = metadata.integer("split.no", 0, u16::MAX as u64)?.unwrap_or(0) + 1;
        return Err(Error::input(format!(
            "is part {number} of {parts} of a split model: join them first (llama-gguf-split --merge)"
        )));
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

fn missing(key: &str) -> Error {
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

    fn positive(&self, name: &str, max: f32) -> Result<f32> {
        self.optional_positive(name, max)?.ok_or_else(|| missing(&self.key(name)))
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

    fn rope_base(&self) -> Result<f32> {
        self.positive("rope.freq_base", 1e12)
    }

    fn rope_scale(&self) -> Result<f32> {
        let kind = self.metadata.string(&self.key("rope.scaling.type"))?;
        let factor = self.optional_positive("rope.scaling.factor", 1e4)?;
        match kind {
            Some("none") => Ok(1.0),
            None | Some("linear") => Ok(factor.unwrap_or(1.0)),
            Some(other) => Err(Error::input(format!(
                "\"{}\" is \"{other}\"; none or linear is supported",
                self.key("rope.scaling.type")
            ))),
        }
    }

    /// The window, and which layers are global.
    fn gemma3_layers(&self, n_layers: usize) -> Result<(Option<usize>, Vec<bool>)> {
        for name in ["final_logit_softcapping", "attn_logit_softcapping"] {
            let key = self.key(name);
            if let Some(cap) = self.metadata.float(&key)?.filter(|cap| *cap != 0.0) {
                return Err(Error::input(format!("\"{key}\" is {cap}; soft-capping is not supported")));
            }
        }
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
}

/// Number of tokens, which must be the number of rows of the embedding.
fn vocab_size(gguf: &Gguf) -> Result<usize> {
    let n_tokens = gguf.metadata().array("tokenizer.ggml.tokens", ValueType::String)?.map_or(0, |a| a.len);
    let embedding =
        gguf.tensor("token_embd.weight").ok_or_else(|| Error::input("tensor \"token_embd.weight\" is missing"))?;
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

/// The tokenizer keys, checked against each other but not yet copied.
pub struct TokenizerKeys<'a> {
    kind: TokenizerKind,
    tokens: Array<'a>,
    scores: Option<Array<'a>>,
    token_type: Option<Array<'a>>,
    merges: Option<Array<'a>>,
    metadata: &'a Metadata,
}

impl<'a> TokenizerKeys<'a> {
    /// # Errors: a tokenizer of another kind; arrays of another type or length; special ids outside the vocabulary.
    pub fn read(metadata: &'a Metadata) -> Result<Self> {
        let kind = match metadata.string("tokenizer.ggml.model")? {
            Some("llama") => TokenizerKind::SentencePiece,
            Some("gpt2") => TokenizerKind::ByteLevel,
            Some(other) => {
                return Err(Error::input(format!("tokenizer \"{other}\" is not supported (supported: llama, gpt2)")));
            }
            None => return Err(missing("tokenizer.ggml.model")),
        };
        let pre = metadata.string("tokenizer.ggml.pre")?.unwrap_or("default");
        if kind == TokenizerKind::ByteLevel && pre != "qwen2" {
            return Err(Error::input(format!("tokenizer.ggml.pre \"{pre}\" is not supported (supported: qwen2)")));
        }
        let tokens = metadata.array("tokenizer.ggml.tokens", ValueType::String)?;
        let tokens = tokens.ok_or_else(|| missing("tokenizer.ggml.tokens"))?;
        let keys = TokenizerKeys {
            kind,
            tokens,
            scores: metadata.array("tokenizer.ggml.scores", ValueType::F32)?,
            token_type: metadata.array("tokenizer.ggml.token_type", ValueType::I32)?,
            merges: metadata.array("tokenizer.ggml.merges", ValueType::String)?,
            metadata,
        };
        keys.check_lengths()?;
        for name in ["bos", "eos", "eot", "eom", "unknown", "padding"] {
            keys.special(name)?;
        }
        metadata.string("tokenizer.chat_template")?;
        Ok(keys)
    }

    fn check_lengths(&self) -> Result<()> {
        for (name, array) in [("scores", self.scores), ("token_type", self.token_type)] {
            let Some(array) = array.filter(|a| a.len != self.tokens.len) else { continue };
            return Err(Error::input(format!(
                "tokenizer.ggml.{name} has {} items for {} tokens",
                thousands(array.len as u64),
                thousands(self.tokens.len as u64)
            )));
        }
        if self.kind == TokenizerKind::SentencePiece && self.scores.is_none() {
            return Err(missing("tokenizer.ggml.scores"));
        }
        if self.kind == TokenizerKind::ByteLevel && self.merges.is_none() {
            return Err(missing("tokenizer.ggml.merges"));
        }
        Ok(())
    }

    /// `tokenizer.ggml.<name>_token_id`. # Errors: not an id of the vocabulary.
    fn special(&self, name: &str) -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        let Some(id) = value.as_integer() else {
            return Err(Error::input(format!("\"{key}\" is a {}; an integer is needed", value.value_type().name())));
        };
        if !(0..self.tokens.len as i128).contains(&id) {
            return Err(Error::input(format!(
                "{name} token id {id} is outside the vocabulary of {}",
                thousands(self.tokens.len as u64)
            )));
        }
        Ok(Some(id as u32))
    }

    pub fn bos_id(&self) -> Option<u32> {
        self.special("bos").expect("checked by read")
    }

    /// Every token that ends an answer: the ids the file names (eos, eot, eom), and the end markers of both families by
    /// their text, since files name one of them at most.
    pub fn stop_ids(&self) -> Vec<u32> {
        let named = ["eos", "eot", "eom"].into_iter().filter_map(|name| self.special(name).expect("checked by read"));
        let markers: [&[u8]; 4] = [b"<eos>", b"<end_of_turn>", b"<|im_end|>", b"<|endoftext|>"];
        let by_text = self.tokens.iter().zip(0u32..).filter_map(|(token, id)| match token {
            Value::String(text) if markers.contains(&text) => Some(id),
            _ => None,
        });
        let mut ids: Vec<u32> = named.chain(by_text).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    pub fn chat_template(&self) -> Option<&'a str> {
        self.metadata.string("tokenizer.chat_template").expect("checked by read")
    }

    /// Copies everything out of the file.
    ///
    /// # Errors
    /// A token or merge is not UTF-8.
    pub fn arrays(&self) -> Result<TokenizerArrays> {
        let n = self.tokens.len;
        let token_type = match self.token_type {
            Some(types) => types.iter().map(|t| t.as_integer().expect("i32") as i32).collect(),
            // Absent in old files: every token is a normal one.
            None => vec![1; n],
        };
        let scores = match (self.kind, self.scores) {
            (TokenizerKind::SentencePiece, Some(scores)) => scores.iter().map(as_f32).collect(),
            _ => Vec::new(),
        };
        let sentence_piece = self.kind == TokenizerKind::SentencePiece;
        let flag = |key: &str| self.metadata.boolean(key);
        Ok(TokenizerArrays {
            kind: self.kind,
            tokens: strings(self.tokens, "token")?,
            scores,
            token_type,
            merges: match self.merges {
                Some(merges) if !sentence_piece => strings(merges, "merge")?,
                _ => Vec::new(),
            },
            bos_id: self.bos_id(),
            eos_id: self.special("eos")?,
            unknown_id: self.special("unknown")?,
            padding_id: self.special("padding")?,
            // llama.cpp's defaults for the two kinds.
            add_bos: flag("tokenizer.ggml.add_bos_token")?.unwrap_or(sentence_piece),
            add_space_prefix: flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(sentence_piece),
        })
    }
}

fn as_f32(value: Value) -> f32 {
    match value {
        Value::F32(v) => v,
        _ => unreachable!("the array's type was checked"),
    }
}

fn strings(array: Array, what: &str) -> Result<Vec<String>> {
    array
        .iter()
        .enumerate()
        .map(|(index, item)| match item {
            Value::String(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(text.to_string()),
                Err(_) => Err(Error::input(format!("{what} {index} is not UTF-8"))),
            },
            _ => unreachable!("the array's type was checked"),
        })
        .collect()
}
