//! GGUF metadata -> the tokenizer's arrays, stop tokens and the chat template.

use super::gguf::{Array, Metadata, Value, ValueType};
use super::gguf_config::missing;
use crate::error::{Error, Result};
use crate::escape::thousands;
use crate::text::tokenizer::{TokenizerArrays, TokenizerKind};

/// Names under which llama.cpp splits text as it does for Qwen 2 (its `llama-vocab.cpp`, `LLAMA_VOCAB_PRE_TYPE_QWEN2`, build
/// 9993): the tokenizers differ in their tokens alone.
const QWEN2_PRE: [&str; 5] = ["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"];
/// Ids of which a file may name several (Ollama's converter).
const EOS_IDS: &str = "tokenizer.ggml.eos_token_ids";

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
        if kind == TokenizerKind::ByteLevel && !QWEN2_PRE.contains(&pre) {
            let supported = QWEN2_PRE.join(", ");
            return Err(Error::input(format!(
                "tokenizer.ggml.pre \"{pre}\" is not supported (supported: {supported})"
            )));
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
        for name in ["bos", "eos", "eot", "eom", "unknown"] {
            keys.special(name)?;
        }
        keys.eos_ids()?;
        keys.padding_id()?;
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
        self.id_of_vocabulary(name, id).map(Some)
    }

    /// The list that some writers have beside, or instead of, the one id.
    fn eos_ids(&self) -> Result<Vec<u32>> {
        match self.metadata.get(EOS_IDS) {
            None => Ok(Vec::new()),
            Some(Value::Array(array)) => {
                let id = |item: Value| match item.as_integer() {
                    Some(id) => self.id_of_vocabulary("eos", id),
                    None => Err(Error::input(format!("{EOS_IDS} holds {}; integers are needed", array.item.name()))),
                };
                array.iter().map(id).collect()
            }
            Some(other) => Err(Error::input(format!(
                "\"{EOS_IDS}\" is a {}; an array of integers is needed",
                other.value_type().name()
            ))),
        }
    }

    /// Nothing is ever padded here: an id that the vocabulary does not have, as fine-tuners leave behind, is none.
    ///
    /// # Errors
    /// Not an integer.
    fn padding_id(&self) -> Result<Option<u32>> {
        let key = "tokenizer.ggml.padding_token_id";
        let Some(value) = self.metadata.get(key) else { return Ok(None) };
        match value.as_integer() {
            Some(id) => Ok(self.id_of_vocabulary("padding", id).ok()),
            None => Err(Error::input(format!("\"{key}\" is a {}; an integer is needed", value.value_type().name()))),
        }
    }

    fn id_of_vocabulary(&self, name: &str, id: i128) -> Result<u32> {
        match (0..self.tokens.len as i128).contains(&id) {
            true => Ok(id as u32),
            false => Err(Error::input(format!(
                "{name} token id {id} is outside the vocabulary of {}",
                thousands(self.tokens.len as u64)
            ))),
        }
    }

    pub fn bos_id(&self) -> Option<u32> {
        self.special("bos").expect("checked by read")
    }

    /// Every token that ends an answer: the ids the file names (eos, one or several, eot, eom), and the end markers of both families by
    /// their text, since files name one of them at most.
    pub fn stop_ids(&self) -> Vec<u32> {
        let named = ["eos", "eot", "eom"].into_iter().filter_map(|name| self.special(name).expect("checked by read"));
        let markers: [&[u8]; 4] = [b"<eos>", b"<end_of_turn>", b"<|im_end|>", b"<|endoftext|>"];
        let by_text = self.tokens.iter().zip(0u32..).filter_map(|(token, id)| match token {
            Value::String(text) if markers.contains(&text) => Some(id),
            _ => None,
        });
        let listed = self.eos_ids().expect("checked by read");
        let mut ids: Vec<u32> = named.chain(listed).chain(by_text).collect();
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
            padding_id: self.padding_id()?,
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
