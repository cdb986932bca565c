//! `tokenizer.json` -> the arrays of a GGUF file, such that the arrays give the same ids.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::blueprint::{Blueprint, Token};
use super::pieces::PieceKind;
use super::{from_arrays, from_json, TokenizerArrays, TokenizerKind};
use crate::error::{Error, Result};

/// What llama.cpp's converter gives tokens that were added beside the vocabulary.
const ADDED_SCORE: f32 = -1000.0;

/// Reads `tokenizer.json` (and the `tokenizer_config.json` beside it) as a GGUF file holds it. Rows of the embedding
/// without a token become `[PAD<id>]`, type unused. SentencePiece scores are minus the index of a piece's first merge,
/// so that the best score merges first.
///
/// # Errors
/// As [`super::Tokenizer::from_json`]; also a SentencePiece vocabulary whose merges are not all the splits of its pieces
/// in the order of one score per piece: no list of scores gives the same ids.
pub fn arrays_from_json(path: &Path, embedding_rows: usize) -> Result<TokenizerArrays> {
    arrays(from_json::read(path, embedding_rows)?, embedding_rows).map_err(|e| e.in_file(path))
}

fn arrays(blueprint: Blueprint, embedding_rows: usize) -> Result<TokenizerArrays> {
    let sentence_piece = blueprint.kind == TokenizerKind::SentencePiece;
    let scores = if sentence_piece { scores_from_merges(&blueprint) } else { Vec::new() };
    let mut arrays = TokenizerArrays {
        kind: blueprint.kind,
        tokens: Vec::with_capacity(embedding_rows),
        scores,
        token_type: Vec::with_capacity(embedding_rows),
        merges: Vec::new(),
        bos_id: blueprint.bos_id,
        eos_id: blueprint.eos_id,
        unknown_id: blueprint.unknown_id,
        padding_id: blueprint.padding_id,
        add_bos: blueprint.add_bos,
        add_space_prefix: blueprint.add_space_prefix,
    };
    for token in &blueprint.tokens {
        match token {
            Some(token) => {
                arrays.token_type.push(type_of(token.kind));
                arrays.tokens.push(token.text.clone());
            }
            None => push_padding(&mut arrays),
        }
    }
    while arrays.tokens.len() < embedding_rows {
        push_padding(&mut arrays);
    }
    if sentence_piece {
        arrays.scores.resize(embedding_rows, ADDED_SCORE);
        check_same_merges(&blueprint, &arrays)?;
    } else {
        arrays.merges = blueprint.merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
    }
    Ok(arrays)
}

/// A row of the embedding that no token uses.
fn push_padding(arrays: &mut TokenizerArrays) {
    arrays.tokens.push(format!("[PAD{}]", arrays.tokens.len()));
    arrays.token_type.push(5);
}

/// As GGUF counts: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
fn type_of(kind: PieceKind) -> i32 {
    match kind {
        PieceKind::Normal => 1,
        PieceKind::Control => 3,
        PieceKind::Marker | PieceKind::UserText => 4,
        PieceKind::Unused => 5,
        PieceKind::Byte => 6,
    }
}

/// One score per token: minus the index of its first merge. Pieces that no merge makes (single characters) come after
/// all others, in the order of their ids; their scores are never compared.
fn scores_from_merges(blueprint: &Blueprint) -> Vec<f32> {
    let mut first = HashMap::with_capacity(blueprint.tokens.len());
    let mut joined = String::new();
    for (index, (left, right)) in blueprint.merges.iter().enumerate() {
        joined.clear();
        joined.push_str(left);
        joined.push_str(right);
        if !first.contains_key(joined.as_str()) {
            first.insert(joined.clone(), index);
        }
    }
    let mut next = blueprint.merges.len();
    let mut score = |token: &Option<Token>| {
        let Some(token) = token else { return ADDED_SCORE };
        if token.added {
            return ADDED_SCORE;
        }
        if token.kind == PieceKind::Byte {
            return 0.0;
        }
        let index = first.get(token.text.as_str()).copied().unwrap_or_else(|| {
            next += 1;
            next - 1
        });
        // Vocabularies end at 2^24 rows and a million merges: exact in f32.
        -(index as f32)
    };
    blueprint.tokens.iter().map(&mut score).collect()
}

/// Merges rebuilt from the arrays must be the file's, in the file's order. Those that make added tokens are left out:
/// added tokens are matched before any merging, so their merges are never met.
fn check_same_merges(blueprint: &Blueprint, arrays: &TokenizerArrays) -> Result<()> {
    let rebuilt = from_arrays::blueprint(arrays.clone(), arrays.tokens.len())?.merges;
    let tokens = blueprint.tokens.iter().flatten();
    let added: HashSet<&str> = tokens.filter(|t| t.added).map(|t| t.text.as_str()).collect();
    let makes_piece = |merge: &&(String, String)| !added.contains(format!("{}{}", merge.0, merge.1).as_str());
    let mut rebuilt = rebuilt.iter().filter(makes_piece);
    for merge in blueprint.merges.iter().filter(makes_piece) {
        if rebuilt.next() != Some(merge) {
            return Err(Error::input(format!(
                "the merge {:?} {:?} is out of place for a SentencePiece vocabulary: GGUF scores cannot express this \
                 order",
                merge.0, merge.1
            )));
        }
    }
    match rebuilt.next() {
        None => Ok(()),
        Some((left, right)) => Err(Error::input(format!(
            "the merge {left:?} {right:?} is missing: a SentencePiece vocabulary in GGUF merges every two pieces whose \
             join is a piece"
        ))),
    }
}
