//! What both routes (`tokenizer.json` and GGUF arrays) are reduced to, checked, before anything is built from it.

use std::collections::HashMap;

use super::pieces::{byte_of, is_turn_marker, PieceKind, PIECE_BYTES_MAX};
use super::TokenizerKind;
use crate::error::{Error, Result};

/// One token: its text as the vocabulary spells it.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub text: String,
    pub kind: PieceKind,
    /// Matched whole before the text is cut into pieces.
    pub added: bool,
}

/// A checked vocabulary with its merges, most important first.
#[derive(Debug)]
pub(super) struct Blueprint {
    pub kind: TokenizerKind,
    /// By id; `None` where a `tokenizer.json` leaves a row without a name.
    pub tokens: Vec<Option<Token>>,
    /// Second spellings of byte tokens (Gemma gives "\t" the id of `<0x09>`).
    pub aliases: Vec<(String, u32)>,
    pub merges: Vec<(String, String)>,
    /// Whole words that are pieces skip merging.
    pub ignore_merges: bool,
    pub bos_id: Option<u32>,
    pub eos_id: Option<u32>,
    pub unknown_id: Option<u32>,
    pub padding_id: Option<u32>,
    pub add_bos: bool,
    pub add_space_prefix: bool,
}

impl Blueprint {
    /// Begin and end of sequence, unknown and padding steer the model: control tokens whatever the file calls them.
    pub fn make_control(&mut self, ids: [Option<u32>; 4]) {
        for id in ids.into_iter().flatten() {
            if let Some(Some(token)) = self.tokens.get_mut(id as usize) {
                if token.kind != PieceKind::Byte {
                    token.kind = PieceKind::Control;
                    token.added = true;
                }
            }
        }
    }

    /// The rules that hold for every vocabulary: a SentencePiece one can spell every byte, and what looks like a turn
    /// marker is one.
    pub fn check(&mut self) -> Result<()> {
        let mut has_byte = [false; 256];
        for token in self.tokens.iter_mut().flatten() {
            if token.kind == PieceKind::Byte {
                if let Some(byte) = byte_of(&token.text) {
                    has_byte[byte as usize] = true;
                }
            }
            if is_turn_marker(&token.text) && token.kind != PieceKind::Unused {
                token.kind = PieceKind::Control;
                token.added = true;
            }
        }
        if self.kind == TokenizerKind::SentencePiece {
            if let Some(byte) = has_byte.iter().position(|&has| !has) {
                return Err(Error::input(format!("the byte token <0x{byte:02X}> is missing")));
            }
        }
        Ok(())
    }

    /// Ids that text may produce, by spelling.
    pub fn text_ids(&self) -> HashMap<&str, u32> {
        let tokens = self.tokens.iter().enumerate().filter_map(|(id, token)| {
            let token = token.as_ref().filter(|token| !token.kind.is_control())?;
            Some((token.text.as_str(), id as u32))
        });
        tokens.chain(self.aliases.iter().map(|(text, id)| (text.as_str(), *id))).collect()
    }

    /// Every merge must join two tokens into a third. Merges that touch a control token are left out: they could only
    /// build one from text.
    pub fn check_merges(&mut self) -> Result<()> {
        let all: HashMap<&str, bool> = {
            let tokens = self.tokens.iter().flatten().map(|token| (token.text.as_str(), token.kind.is_control()));
            tokens.chain(self.aliases.iter().map(|(text, _)| (text.as_str(), false))).collect()
        };
        let mut joined = String::new();
        let mut keep = Vec::with_capacity(self.merges.len());
        for (index, (left, right)) in self.merges.iter().enumerate() {
            let mut touches_control = false;
            for part in [left, right] {
                match all.get(part.as_str()) {
                    Some(is_control) => touches_control |= is_control,
                    None => return Err(Error::input(format!("merge {index}: {part:?} is not a token"))),
                }
            }
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            match all.get(joined.as_str()) {
                Some(is_control) => touches_control |= is_control,
                None => {
                    return Err(Error::input(format!("merge {index} \"{left} {right}\": no token {joined:?}")));
                }
            }
            keep.push(!touches_control);
        }
        let mut keep = keep.into_iter();
        self.merges.retain(|_| keep.next().unwrap_or(false));
        Ok(())
    }
}

/// `"left right"`, as GGUF and older `tokenizer.json` files spell a merge.
pub(super) fn split_merge(index: usize, text: &str) -> Result<(String, String)> {
    match text.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
            Ok((left.to_string(), right.to_string()))
        }
        _ => Err(Error::input(format!("merge {index} {}: two tokens with a space between expected", quoted(text)))),
    }
}

/// Refuses texts that no vocabulary has and that would cost time or memory.
pub(super) fn check_text(id: usize, text: &str) -> Result<()> {
    if text.is_empty() {
        return Err(Error::input(format!("token {id} is empty")));
    }
    if text.len() > PIECE_BYTES_MAX {
        return Err(Error::input(format!(
            "token {id} is {} bytes long; at most {}",
            grouped(text.len()),
            grouped(PIECE_BYTES_MAX)
        )));
    }
    Ok(())
}

/// In quotes and cut to what fits in a message.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 60;
    if text.chars().count() <= SHOWN_CHARS_MAX {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    format!("{head:?}..")
}

/// 262144 as `262,144`.
pub(super) fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
