//! A vocabulary from the arrays of a GGUF file.

use std::collections::HashMap;

use super::blueprint::{check_text, grouped, quoted, split_merge, Blueprint, Token};
use super::pieces::{byte_of, classify_added, PieceKind};
use super::{TokenizerArrays, TokenizerKind};
use crate::error::{Error, Result};

/// Checks the arrays against each other and against the embedding.
pub(super) fn blueprint(arrays: TokenizerArrays, embedding_rows: usize) -> Result<Blueprint> {
    check_lengths(&arrays, embedding_rows)?;
    let n_tokens = arrays.tokens.len();
    let special = [
        ("bos", arrays.bos_id),
        ("eos", arrays.eos_id),
        ("unknown", arrays.unknown_id),
        ("padding", arrays.padding_id),
    ];
    for (name, id) in special {
        if let Some(id) = id.filter(|&id| id as usize >= n_tokens) {
            let size = grouped(n_tokens);
            return Err(Error::input(format!("{name} token id {id} is outside the vocabulary of {size}")));
        }
    }
    check_unique(&arrays.tokens)?;
    let mut tokens = Vec::with_capacity(n_tokens);
    for (id, (text, &token_type)) in arrays.tokens.into_iter().zip(&arrays.token_type).enumerate() {
        tokens.push(Some(typed_token(arrays.kind, id, text, token_type)?));
    }
    let mut blueprint = Blueprint {
        kind: arrays.kind,
        tokens,
        aliases: Vec::new(),
        merges: Vec::new(),
        ignore_merges: false,
        bos_id: arrays.bos_id,
        eos_id: arrays.eos_id,
        unknown_id: arrays.unknown_id,
        padding_id: arrays.padding_id,
        add_bos: arrays.add_bos,
        add_space_prefix: arrays.add_space_prefix && arrays.kind == TokenizerKind::SentencePiece,
    };
    blueprint.make_control(special.map(|(_, id)| id));
    blueprint.check()?;
    match arrays.kind {
        TokenizerKind::SentencePiece => {
            alias_tab(&mut blueprint);
            blueprint.merges = merges_from_scores(&blueprint, &arrays.scores);
        }
        TokenizerKind::ByteLevel => {
            let merges = arrays.merges.iter().enumerate().map(|(index, text)| split_merge(index, text));
            blueprint.merges = merges.collect::<Result<_>>()?;
            blueprint.check_merges()?;
        }
    }
    Ok(blueprint)
}

fn check_lengths(arrays: &TokenizerArrays, embedding_rows: usize) -> Result<()> {
    let n_tokens = arrays.tokens.len();
    if n_tokens == 0 || n_tokens != embedding_rows {
        return Err(Error::input(format!(
            "vocabulary has {} tokens, the embedding {} rows",
            grouped(n_tokens),
            grouped(embedding_rows)
        )));
    }
    let same = |name: &str, length: usize| {
        if length == n_tokens {
            return Ok(());
        }
        let (length, n_tokens) = (grouped(length), grouped(n_tokens));
        Err(Error::input(format!("tokenizer.ggml.{name} has {length} items for {n_tokens} tokens")))
    };
    same("token_type", arrays.token_type.len())?;
    if arrays.kind == TokenizerKind::SentencePiece {
        same("scores", arrays.scores.len())?;
        if let Some(id) = arrays.scores.iter().position(|score| !score.is_finite()) {
            return Err(Error::input(format!("tokenizer.ggml.scores[{id}] is {}", arrays.scores[id])));
        }
    }
    Ok(())
}

fn check_unique(tokens: &[String]) -> Result<()> {
    let mut first_id = HashMap::with_capacity(tokens.len());
    for (id, text) in tokens.iter().enumerate() {
        check_text(id, text)?;
        if let Some(first) = first_id.insert(text.as_str(), id) {
            return Err(Error::input(format!("token {id} equals token {first} ({})", quoted(text))));
        }
    }
    Ok(())
}

/// `token_type` as GGUF counts it: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
fn typed_token(tokenizer: TokenizerKind, id: usize, text: String, token_type: i32) -> Result<Token> {
    let (kind, added) = match token_type {
        1 => (PieceKind::Normal, false),
        2 | 3 => (PieceKind::Control, true),
        4 => (classify_added(&text, false), true),
        5 => (PieceKind::Unused, false),
        6 if tokenizer == TokenizerKind::SentencePiece => {
            if byte_of(&text).is_none() {
                let text = quoted(&text);
                return Err(Error::input(format!("token {id} {text} is marked as a byte but is not <0xHH>")));
            }
            (PieceKind::Byte, false)
        }
        other => return Err(Error::input(format!("token {id} has type {other}; 1 to 6 are known"))),
    };
    // Converters write runs of spaces either way; the model sees U+2581.
    let all_spaces = tokenizer == TokenizerKind::SentencePiece && text.bytes().all(|b| b == b' ');
    let text = if all_spaces { text.replace(' ', super::SPACE_MARK) } else { text };
    Ok(Token { text, kind, added })
}

/// Gemma's merges of tabs start from a piece "\t" that the vocabulary spells `<0x09>`.
fn alias_tab(blueprint: &mut Blueprint) {
    let find = |text: &str| blueprint.tokens.iter().position(|t| t.as_ref().is_some_and(|t| t.text == text));
    if find("\t").is_none() {
        if let Some(id) = find("<0x09>") {
            blueprint.aliases.push(("\t".to_string(), id as u32));
        }
    }
}

/// One way to cut a piece in two.
#[derive(Clone, Copy)]
struct Cut {
    score: f32,
    left_chars: u16,
    right_chars: u16,
    left_id: u32,
    right_id: u32,
    /// The piece, and the bytes of its left part.
    id: u32,
    at: u16,
}

/// SentencePiece merges any adjacent pair whose join is a piece, best score first. As merge rules: every cut of every
/// piece into two pieces, by score, then the longer left part, then the longer right part (Hugging Face's order, ties
/// in vocabulary order). Pieces added by users come first: their score is 0 in SentencePiece, but converters write
/// -1000.
fn merges_from_scores(blueprint: &Blueprint, scores: &[f32]) -> Vec<(String, String)> {
    let ids = blueprint.text_ids();
    let mut cuts: Vec<Cut> = Vec::with_capacity(2 * blueprint.tokens.len());
    for (id, token) in blueprint.tokens.iter().enumerate() {
        let Some(token) = token else { continue };
        let score = match token.kind {
            // Adding 0.0 turns -0.0 into 0.0: the two must compare equal.
            PieceKind::Normal => scores[id] + 0.0,
            PieceKind::UserText => 0.0,
            _ => continue,
        };
        let n_chars = token.text.chars().count();
        let first = cuts.len();
        for (left_chars, (at, _)) in token.text.char_indices().enumerate().skip(1) {
            let (left, right) = token.text.split_at(at);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                let (left_chars, right_chars) = (left_chars as u16, (n_chars - left_chars) as u16);
                cuts.push(Cut { score, left_chars, right_chars, left_id, right_id, id: id as u32, at: at as u16 });
            }
        }
        cuts[first..].sort_by_key(|cut| (cut.left_id, cut.right_id));
    }
    // Stable: equal keys keep the order of the vocabulary.
    cuts.sort_by(|a, b| {
        let by_score = b.score.total_cmp(&a.score);
        by_score.then(b.left_chars.cmp(&a.left_chars)).then(b.right_chars.cmp(&a.right_chars))
    });
    let halves = cuts.into_iter().filter_map(|cut| {
        let (left, right) = blueprint.tokens[cut.id as usize].as_ref()?.text.split_at(cut.at as usize);
        Some((left.to_string(), right.to_string()))
    });
    halves.collect()
}
