//! The tokenizer as GGUF metadata holds it: plain arrays, types already checked by the reader.

/// `tokenizer.ggml.model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenizerKind {
    /// `llama`: SentencePiece BPE by scores (Gemma).
    SentencePiece,
    /// `gpt2` with pre-tokeniser `qwen2`: byte-level BPE by merges.
    ByteLevel,
}

/// Contents of the `tokenizer.ggml.*` keys. Lengths against each other are checked by the tokenizer, not here.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenizerArrays {
    pub kind: TokenizerKind,
    pub tokens: Vec<String>,
    /// One per token for `SentencePiece`; empty for `ByteLevel`.
    pub scores: Vec<f32>,
    /// 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
    pub token_type: Vec<i32>,
    /// `"left right"` strings, most important first; `ByteLevel` only.
    pub merges: Vec<String>,
    pub bos_id: Option<u32>,
    pub eos_id: Option<u32>,
    pub unknown_id: Option<u32>,
    pub padding_id: Option<u32>,
    pub add_bos: bool,
    pub add_space_prefix: bool,
}
