//! The two pipelines between text and merged pieces: SentencePiece (Gemma) and byte-level (Qwen).

use std::borrow::Cow;
use std::collections::HashMap;

use tokenizers::models::bpe::{Vocab, BPE};
use tokenizers::utils::SysRegex;
use tokenizers::{Model, NormalizedString};

use super::blueprint::Token;
use super::pieces::{byte_level_chars, byte_of, PieceKind};
use super::quiet::guarded;
use super::{TokenizerKind, SPACE_MARK};
use crate::error::{Error, Result};

/// How Qwen 2 cuts text into words before merging. Its `\p{L}` leaves out vowel signs, so Hindi and Kannada words are
/// cut inside syllables: that is how the models were trained.
pub(super) const QWEN2_SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
);

#[derive(Debug)]
enum Pipeline {
    /// Space becomes U+2581, characters without a piece become byte tokens.
    SentencePiece,
    /// NFC, words by [`QWEN2_SPLIT`], bytes as printable characters.
    ByteLevel { split: SysRegex, chars: Box<[char; 256]>, bytes: HashMap<char, u8> },
}

/// Merging by the crate's BPE over the tokens that text may produce, and no others.
#[derive(Debug)]
pub(super) struct Bpe {
    model: BPE,
    pipeline: Pipeline,
}

impl Bpe {
    pub fn new(
        kind: TokenizerKind,
        text_ids: &HashMap<&str, u32>,
        merges: Vec<(String, String)>,
        ignore_merges: bool,
    ) -> Result<Self> {
        let vocab: Vocab = text_ids.iter().map(|(text, &id)| (String::from(*text), id)).collect();
        let sentence_piece = kind == TokenizerKind::SentencePiece;
        let built = guarded("the vocabulary cannot be built from these merges", || {
            // No cache: it would keep every prompt's words for the life of the thread.
            let builder = BPE::builder().vocab_and_merges(vocab, merges).cache_capacity(0);
            builder.byte_fallback(sentence_piece).fuse_unk(sentence_piece).ignore_merges(ignore_merges).build()
        })?;
        let model = built.map_err(|e| Error::input(format!("merges: {e}")))?;
        let pipeline = match kind {
            TokenizerKind::SentencePiece => Pipeline::SentencePiece,
            TokenizerKind::ByteLevel => {
                let split = SysRegex::new(QWEN2_SPLIT).map_err(|e| Error::input(format!("word pattern: {e}")))?;
                let chars = Box::new(byte_level_chars());
                let bytes = chars.iter().zip(0..=255u8).map(|(&c, byte)| (c, byte)).collect();
                Pipeline::ByteLevel { split, chars, bytes }
            }
        };
        Ok(Bpe { model, pipeline })
    }

    /// Appends the ids of `text`, which holds no added token. `prefix` puts a space in front (SentencePiece only).
    pub fn encode(&self, text: &str, prefix: bool, ids: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        match &self.pipeline {
            Pipeline::SentencePiece => {
                let mut marked = text.replace(' ', SPACE_MARK);
                if prefix {
                    marked.insert_str(0, SPACE_MARK);
                }
                self.merge(&marked, ids)
            }
            Pipeline::ByteLevel { split, chars, .. } => {
                let mut word = String::new();
                let normal = nfc(text);
                for chunk in chunks(&normal) {
                    for range in words(split, chunk)? {
                        word.clear();
                        word.extend(chunk[range].bytes().map(|byte| chars[byte as usize]));
                        self.check_alphabet(&word)?;
                        self.merge(&word, ids)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Text as the ids stand for it, byte by byte.
    pub fn normal<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.pipeline {
            Pipeline::SentencePiece if text.contains(SPACE_MARK) => Cow::Owned(text.replace(SPACE_MARK, " ")),
            Pipeline::SentencePiece => Cow::Borrowed(text),
            Pipeline::ByteLevel { .. } => nfc(text),
        }
    }

    fn merge(&self, word: &str, ids: &mut Vec<u32>) -> Result<()> {
        let tokens = guarded("the text cannot be encoded with this vocabulary", || self.model.tokenize(word))?;
        let tokens = tokens.map_err(|e| Error::input(format!("the text cannot be encoded: {e}")))?;
        ids.extend(tokens.iter().map(|token| token.id));
        Ok(())
    }

    /// A byte without a token would vanish from the text in silence.
    fn check_alphabet(&self, word: &str) -> Result<()> {
        let mut buffer = [0; 4];
        for c in word.chars() {
            if self.model.token_to_id(c.encode_utf8(&mut buffer)).is_none() {
                return Err(Error::input(format!("the vocabulary has no token for the byte written {c:?}")));
            }
        }
        Ok(())
    }

    /// The id of a token that text may produce.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.model.token_to_id(text)
    }

    /// What a token stands for in running text.
    pub fn decoded(&self, token: &Token) -> Vec<u8> {
        match &self.pipeline {
            Pipeline::SentencePiece => match byte_of(&token.text).filter(|_| token.kind == PieceKind::Byte) {
                Some(byte) => vec![byte],
                None => token.text.replace(SPACE_MARK, " ").into_bytes(),
            },
            Pipeline::ByteLevel { .. } if token.added => token.text.clone().into_bytes(),
            Pipeline::ByteLevel { bytes, .. } => {
                let decoded: Option<Vec<u8>> = token.text.chars().map(|c| bytes.get(&c).copied()).collect();
                decoded.unwrap_or_else(|| token.text.clone().into_bytes())
            }
        }
    }
}

/// Text in normal form C. ASCII is in it already.
fn nfc(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut normalized = NormalizedString::from(text);
    normalized.nfc();
    Cow::Owned(normalized.get().to_string())
}

/// Cuts long text where the pattern always cuts: between a newline and a character that is not white space. Keeps the
/// word list of a long document small.
fn chunks(text: &str) -> impl Iterator<Item = &str> {
    const CHUNK_BYTES: usize = 64 << 10;
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let bytes = rest.as_bytes();
        let mut end = rest.len();
        for at in CHUNK_BYTES.min(rest.len())..rest.len() {
            let next_is_text = || rest[at..].chars().next().is_some_and(|c| !c.is_whitespace());
            if bytes[at - 1] == b'\n' && next_is_text() {
                end = at;
                break;
            }
        }
        let (chunk, tail) = rest.split_at(end);
        rest = tail;
        Some(chunk)
    })
}

/// The words of `text`. The pattern covers every character, so a gap means that the matcher gave up (it stops in
/// silence at its backtracking limit).
fn words(split: &SysRegex, text: &str) -> Result<Vec<std::ops::Range<usize>>> {
    let mut words = Vec::with_capacity(text.len() / 4 + 1);
    let mut end = 0;
    for (from, to) in split.find_iter(text) {
        if from != end {
            break;
        }
        words.push(from..to);
        end = to;
    }
    if end != text.len() {
        return Err(Error::limit(format!("the text has a run of white space too long to split, at byte {end}")));
    }
    Ok(words)
}
