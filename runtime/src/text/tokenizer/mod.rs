//! Text to token ids and back.
//!
//! Two routes lead to the same ids: the arrays of a GGUF file ([`Tokenizer::from_arrays`], what a board uses) and a
//! `tokenizer.json` ([`Tokenizer::from_json`]). Merging is done by the crate `tokenizers`; finding added tokens and
//! decoding are ours, because what text may become must be decided here:
//!
//! - [`Tokenizer::encode`] is for text that a person, a file or a model wrote. No control token can come out of it
//!   ([`PieceKind::is_control`] is the definition); `<start_of_turn>` typed by a user becomes ordinary pieces.
//! - [`Tokenizer::encode_with_markers`] is for the scaffolding of a chat template, and for nothing else.

mod arrays;
mod blueprint;
mod bpe;
mod from_arrays;
mod from_json;
mod json_parts;
mod json_vocab;
mod matcher;
mod pieces;
mod quiet;
mod stream;
mod to_arrays;

use std::path::Path;

pub use arrays::{TokenizerArrays, TokenizerKind};
pub use pieces::PieceKind;
pub use stream::StreamDecoder;
pub use to_arrays::arrays_from_json;

use crate::error::{Error, Result};
use blueprint::{grouped, Blueprint};
use bpe::Bpe;
use matcher::Matcher;
use pieces::Pieces;

/// U+2581, SentencePiece's visible space.
const SPACE_MARK: &str = "\u{2581}";

/// Longest text encoded in one call. Merging holds some 100 to 180 bytes per character while it works, most for spaces
/// (4 MiB of them: 720 MB), so a program with a memory budget refuses earlier.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// A vocabulary, ready to encode and decode. Immutable, shared between sessions.
#[derive(Debug)]
pub struct Tokenizer {
    kind: TokenizerKind,
    pieces: Pieces,
    bpe: Bpe,
    /// Every added token: for scaffolding.
    markers: Matcher,
    /// Those that no text may become.
    control: Matcher,
    /// Those that are plain text.
    user_text: Matcher,
    bos_id: Option<u32>,
    eos_id: Option<u32>,
    add_bos: bool,
    add_space_prefix: bool,
}

impl Tokenizer {
    /// From the arrays of a GGUF file, which are checked here. `embedding_rows` is what the model has room for.
    pub fn from_arrays(arrays: TokenizerArrays, embedding_rows: usize) -> Result<Self> {
        Tokenizer::build(from_arrays::blueprint(arrays, embedding_rows)?)
    }

    /// From `tokenizer.json`, with begin and end of sequence from the `tokenizer_config.json` beside it, if any. Only
    /// the components that Gemma and Qwen use are accepted.
    pub fn from_json(path: &Path, embedding_rows: usize) -> Result<Self> {
        let blueprint = from_json::read(path, embedding_rows)?;
        Tokenizer::build(blueprint).map_err(|e| e.in_file(path))
    }

    /// From the bytes of a `tokenizer.json`.
    pub fn from_json_bytes(bytes: &[u8], embedding_rows: usize) -> Result<Self> {
        Tokenizer::build(from_json::blueprint(bytes, embedding_rows)?)
    }

    fn build(mut blueprint: Blueprint) -> Result<Self> {
        let merges = std::mem::take(&mut blueprint.merges);
        let bpe = Bpe::new(blueprint.kind, &blueprint.text_ids(), merges, blueprint.ignore_merges)?;
        let mut pieces = Pieces::with_capacity(blueprint.tokens.len());
        for token in &blueprint.tokens {
            match token {
                Some(token) => pieces.push(&bpe.decoded(token), token.kind),
                None => pieces.push(&[], PieceKind::Unused),
            }
        }
        let added = |wanted: fn(PieceKind) -> bool| {
            let tokens = blueprint.tokens.iter().enumerate();
            tokens.filter_map(move |(id, token)| {
                let token = token.as_ref().filter(|token| token.added && wanted(token.kind))?;
                Some((token.text.as_str(), id as u32))
            })
        };
        Ok(Tokenizer {
            kind: blueprint.kind,
            pieces,
            bpe,
            markers: Matcher::new(added(|_| true)),
            control: Matcher::new(added(PieceKind::is_control)),
            user_text: Matcher::new(added(|kind| !kind.is_control())),
            bos_id: blueprint.bos_id,
            eos_id: blueprint.eos_id,
            add_bos: blueprint.add_bos,
            add_space_prefix: blueprint.add_space_prefix,
        })
    }

    /// Ids of text that a person, a file or a model wrote. Never contains a control token, never adds BOS.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_by(&self.user_text, text)
    }

    /// Ids of template scaffolding: control tokens in it are recognised. Never adds BOS.
    pub fn encode_with_markers(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_by(&self.markers, text)
    }

    fn encode_by(&self, added: &Matcher, text: &str) -> Result<Vec<u32>> {
        if text.len() > TEXT_BYTES_MAX {
            let (length, limit) = (grouped(text.len()), grouped(TEXT_BYTES_MAX));
            return Err(Error::limit(format!("the text is {length} bytes long; at most {limit} are encoded at once")));
        }
        let mut ids = Vec::with_capacity(text.len() / 3 + 4);
        let mut from = 0;
        // SentencePiece models that want it get one space in front of the text, and after each control token.
        let mut prefix = self.add_space_prefix;
        while let Some((start, end, id)) = added.find(text, from) {
            self.bpe.encode(&text[from..start], prefix, &mut ids)?;
            ids.push(id);
            prefix = self.add_space_prefix && self.is_control(id);
            from = end;
        }
        self.bpe.encode(&text[from..], prefix, &mut ids)?;
        Ok(ids)
    }

    /// Ids of a rendered conversation: control tokens are found in `text` as it is, everything between them is passed
    /// through `reveal` and encoded as ordinary text.
    pub(crate) fn encode_around_markers(&self, text: &str, reveal: &dyn Fn(&str) -> String) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 3 + 4);
        self.encode_stretches(text, reveal, &mut |_, part, _| ids.extend(part))?;
        Ok(ids)
    }

    /// The same, stretch by stretch: `take` gets the text of each, its ids, and whether it is a control token.
    pub(crate) fn encode_stretches(
        &self,
        text: &str,
        reveal: &dyn Fn(&str) -> String,
        take: &mut dyn FnMut(&str, Vec<u32>, bool),
    ) -> Result<()> {
        let plain = |text: &str, take: &mut dyn FnMut(&str, Vec<u32>, bool)| {
            let text = reveal(text);
            self.encode(&text).map(|ids| take(&text, ids, false))
        };
        let mut from = 0;
        while let Some((start, end, id)) = self.control.find(text, from) {
            plain(&text[from..start], take)?;
            take(&text[start..end], vec![id], true);
            from = end;
        }
        plain(&text[from..], take)
    }

    /// How many of `ids`, which `text` was encoded to, hold nothing but its first `n` bytes. An id that holds bytes on both
    /// sides of that border is not counted.
    ///
    /// # Errors
    /// The ids do not stand for the text byte by byte.
    pub(crate) fn n_ids_within(&self, text: &str, ids: &[u32], n: usize) -> Result<usize> {
        let lengths = || ids.iter().map(|&id| self.pieces.bytes(id).len());
        let added = match lengths().sum::<usize>().checked_sub(self.bpe.normal(text).len()) {
            Some(0) => 0,
            Some(1) if self.add_space_prefix => 1,
            _ => return Err(Error::input("the tokens cannot be matched with the text they stand for")),
        };
        let border = self.bpe.normal(&text[..n]).len() + if n > 0 { added } else { 0 };
        let mut end = 0;
        let within = lengths().take_while(|length| {
            end += length;
            end <= border
        });
        Ok(within.count())
    }

    /// The first control token that is written out in `text`: [`Tokenizer::encode`] reads it as ordinary characters.
    pub fn written_control_token<'a>(&self, text: &'a str) -> Option<&'a str> {
        self.control.find(text, 0).map(|(start, end, _)| &text[start..end])
    }

    /// The text of `ids`: control tokens and unknown ids are left out, bytes that are not UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut stream = StreamDecoder::new(self);
        let mut text = String::new();
        for &id in ids {
            stream.push_into(id, &mut text);
        }
        text.push_str(&stream.finish());
        text
    }

    /// The same with control tokens spelled out: for people who look at a prompt, never for encoding again.
    pub fn decode_with_markers(&self, ids: &[u32]) -> String {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| self.pieces.bytes(id)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes `id` stands for in running text, control tokens included; empty for an id outside the vocabulary.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.pieces.bytes(id)
    }

    /// The id of exactly this token, as the vocabulary spells it.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.markers.id(text).or_else(|| self.bpe.id(text))
    }

    /// Whether no text may become `id`; true for ids outside the vocabulary.
    pub fn is_control(&self, id: u32) -> bool {
        self.pieces.kind(id).is_none_or(PieceKind::is_control)
    }

    /// Whether decoding leaves `id` out.
    fn is_hidden(&self, id: u32) -> bool {
        !matches!(
            self.pieces.kind(id),
            Some(PieceKind::Normal | PieceKind::Byte | PieceKind::UserText | PieceKind::Marker)
        )
    }

    /// The control tokens that are written out in `text`, each once, as the vocabulary spells them.
    pub fn control_texts(&self, text: &str) -> Vec<String> {
        self.written_out(text, &|_| true)
    }

    /// Those among them that decoding leaves out, so that no text of a model holds them.
    pub(crate) fn hidden_texts(&self, text: &str) -> Vec<String> {
        self.written_out(text, &|id| self.is_hidden(id))
    }

    fn written_out(&self, text: &str, is_wanted: &dyn Fn(u32) -> bool) -> Vec<String> {
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some((start, end, id)) = self.control.find(text, from) {
            let token = &text[start..end];
            if is_wanted(id) && !found.iter().any(|other| other == token) {
                found.push(token.to_string());
            }
            from = end;
        }
        found
    }

    /// What `id` is; `None` outside the vocabulary.
    pub fn piece_kind(&self, id: u32) -> Option<PieceKind> {
        self.pieces.kind(id)
    }

    /// Highest id plus one. A model may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.pieces.len()
    }

    pub fn kind(&self) -> TokenizerKind {
        self.kind
    }

    /// Begin of sequence, if the model has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// End of sequence as the tokenizer's file names it; models stop on more than this one.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// Whether a prompt starts with BOS.
    pub fn add_bos(&self) -> bool {
        self.add_bos && self.bos_id.is_some()
    }

    /// What the vocabulary holds on the heap, for the memory plan: measured for our own tables, and for the merge
    /// tables of `tokenizers` the measured 230 bytes per token (262,144 pieces: 64 MB in all). While it is built, some
    /// 95 MB more than the arrays are held for a moment.
    pub fn memory_bytes(&self) -> usize {
        const MERGE_TABLE_BYTES_PER_TOKEN: usize = 230;
        self.pieces.memory_bytes() + MERGE_TABLE_BYTES_PER_TOKEN * self.pieces.len()
    }
}
