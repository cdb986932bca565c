//! A vocabulary from `tokenizer.json`: the file is checked whole, against a list of what Gemma and Qwen use, before
//! anything is built from it. The crate's own loader panics on crafted files, so it is never shown one.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::blueprint::{check_text, grouped, quoted, split_merge, Blueprint, Token};
use super::json_parts::{check_components, Components};
use super::json_vocab::{AddedToken, Body, Merge};
use super::pieces::{byte_of, classify_added, PieceKind};
use super::TokenizerKind;
use crate::error::{Error, Result};
use crate::files::formats::json_file::without_bom;

/// Gemma 3's file has 33 MB.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Real files nest 6 deep.
const DEPTH_MAX: usize = 64;
/// The one added token that released Gemma 3 1B and 270M files hold beyond their embedding: a text model has no row
/// for images.
const IMAGE_TOKEN: &str = "<image_soft_token>";

/// Reads the file and the `tokenizer_config.json` beside it.
pub(super) fn read(path: &Path, embedding_rows: usize) -> Result<Blueprint> {
    let bytes = read_bounded(path)?;
    let mut blueprint = blueprint(without_bom(&bytes), embedding_rows).map_err(|e| e.in_file(path))?;
    let config_path = path.with_file_name("tokenizer_config.json");
    if config_path.exists() {
        let config = read_bounded(&config_path)?;
        apply_config(&mut blueprint, without_bom(&config)).map_err(|e| e.in_file(&config_path))?;
    }
    Ok(blueprint)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let io = |e: std::io::Error| Error::io(path, &e);
    let metadata = std::fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(Error::input("is not a regular file").in_file(path));
    }
    if metadata.len() > FILE_BYTES_MAX {
        let mb = metadata.len() >> 20;
        return Err(Error::limit(format!("is {mb} MB; at most {} MB", FILE_BYTES_MAX >> 20)).in_file(path));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    File::open(path).map_err(io)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io)?;
    Ok(bytes)
}

/// Checks the bytes of a `tokenizer.json`.
pub(super) fn blueprint(bytes: &[u8], embedding_rows: usize) -> Result<Blueprint> {
    check_json(bytes)?;
    let components: Components = parse(bytes)?;
    let kind = check_components(&components, embedding_rows)?;
    let body: Body = parse(bytes)?;
    let mut blueprint = Blueprint {
        kind,
        tokens: Vec::new(),
        aliases: Vec::new(),
        merges: Vec::new(),
        ignore_merges: components.model.ignore_merges.unwrap_or(false),
        bos_id: None,
        eos_id: None,
        unknown_id: None,
        padding_id: None,
        add_bos: false,
        add_space_prefix: false,
    };
    place_vocab(&mut blueprint, body.model.vocab, embedding_rows)?;
    place_added(&mut blueprint, body.added_tokens, embedding_rows)?;
    blueprint.unknown_id = components.model.unk_token.as_deref().and_then(|text| id_of(&blueprint, text));
    blueprint.bos_id = components.leading_special().and_then(|text| id_of(&blueprint, text));
    blueprint.add_bos = blueprint.bos_id.is_some();
    blueprint.make_control([blueprint.bos_id, blueprint.unknown_id, None, None]);
    blueprint.check()?;
    let merges = body.model.merges.into_iter().enumerate().map(|(index, merge)| match merge {
        Merge::Pair(left, right) => Ok((left, right)),
        Merge::Text(text) => split_merge(index, &text),
    });
    blueprint.merges = merges.collect::<Result<_>>()?;
    blueprint.check_merges()?;
    Ok(blueprint)
}

/// What people find in place of the file, and what would overflow a parser's stack.
fn check_json(bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let mb = bytes.len() >> 20;
        return Err(Error::limit(format!("is {mb} MB; at most {} MB", FILE_BYTES_MAX >> 20)));
    }
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::input("is a Git LFS pointer, not the file itself: run git lfs pull"));
    }
    if bytes.trim_ascii_start().starts_with(b"<") {
        return Err(Error::input("is a web page, not the file itself: download it again"));
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(Error::input(format!("is nested deeper than {DEPTH_MAX}")));
        }
    }
    Ok(())
}

fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let reason = error.to_string();
        let reason = reason.strip_suffix(&place).unwrap_or(&reason);
        let what = if error.is_data() { "is not a tokenizer" } else { "is not JSON" };
        Error::input(format!("{what}: line {} column {}: {reason}", error.line(), error.column()))
    })
}

fn id_of(blueprint: &Blueprint, text: &str) -> Option<u32> {
    let at = blueprint.tokens.iter().position(|token| token.as_ref().is_some_and(|token| token.text == text));
    at.map(|id| id as u32)
}

/// The model's vocabulary by id. Two spellings of one id are accepted for byte tokens only.
fn place_vocab(blueprint: &mut Blueprint, vocab: Vec<(String, u32)>, embedding_rows: usize) -> Result<()> {
    if vocab.is_empty() {
        return Err(Error::input(format!("vocabulary has 0 tokens, the embedding {} rows", grouped(embedding_rows))));
    }
    let byte_fallback = blueprint.kind == TokenizerKind::SentencePiece;
    for (text, id) in vocab {
        let id_usize = id as usize;
        if id_usize >= embedding_rows {
            if text == IMAGE_TOKEN {
                continue;
            }
            return Err(out_of_rows("token", &text, id, embedding_rows));
        }
        check_text(id_usize, &text)?;
        if blueprint.tokens.len() <= id_usize {
            blueprint.tokens.resize(id_usize + 1, None);
        }
        let byte = byte_of(&text).filter(|_| byte_fallback);
        let kind = if byte.is_some() { PieceKind::Byte } else { PieceKind::Normal };
        match &mut blueprint.tokens[id_usize] {
            empty @ None => *empty = Some(Token { text, kind, added: false }),
            Some(first) if byte_fallback && same_byte(&first.text, &text) => {
                let alias = if kind == PieceKind::Byte { std::mem::replace(&mut first.text, text) } else { text };
                first.kind = PieceKind::Byte;
                blueprint.aliases.push((alias, id));
            }
            Some(first) => {
                let (a, b) = (quoted(&first.text), quoted(&text));
                return Err(Error::input(format!("tokens {a} and {b} share the id {id}")));
            }
        }
    }
    Ok(())
}

/// Whether one of the two is `<0xHH>` and the other that one ASCII character.
fn same_byte(a: &str, b: &str) -> bool {
    let is =
        |byte_text: &str, text: &str| byte_of(byte_text).is_some_and(|byte| byte < 128 && text.as_bytes() == [byte]);
    is(a, b) || is(b, a)
}

fn out_of_rows(what: &str, text: &str, id: u32, embedding_rows: usize) -> Error {
    let (text, rows) = (quoted(text), grouped(embedding_rows));
    Error::input(format!("{what} {text} has id {id}; the model has {rows}"))
}

fn place_added(blueprint: &mut Blueprint, added: Vec<AddedToken>, embedding_rows: usize) -> Result<()> {
    let ids: HashMap<String, u32> = {
        let tokens = blueprint.tokens.iter().enumerate();
        tokens.filter_map(|(id, token)| Some((token.as_ref()?.text.clone(), id as u32))).collect()
    };
    for token in added {
        if token.id as usize >= embedding_rows {
            if token.content == IMAGE_TOKEN {
                continue;
            }
            return Err(out_of_rows("added token", &token.content, token.id, embedding_rows));
        }
        check_added(&token)?;
        let text = quoted(&token.content);
        if let Some(id) = ids.get(&token.content).filter(|&&id| id != token.id) {
            let wanted = token.id;
            return Err(Error::input(format!("added token {text} has id {wanted}; the vocabulary gives it {id}")));
        }
        let id = token.id as usize;
        if blueprint.tokens.len() <= id {
            blueprint.tokens.resize(id + 1, None);
        }
        if let Some(other) = blueprint.tokens[id].as_ref().filter(|other| other.text != token.content || other.added) {
            let other = quoted(&other.text);
            return Err(Error::input(format!("added token {text} has id {id}, which is {other}")));
        }
        let kind = classify_added(&token.content, token.special);
        blueprint.tokens[id] = Some(Token { text: token.content, kind, added: true });
    }
    Ok(())
}

/// Flags that change where an added token matches: no Gemma or Qwen token has them.
fn check_added(token: &AddedToken) -> Result<()> {
    check_text(token.id as usize, &token.content)?;
    let text = quoted(&token.content);
    for (name, is_set) in [("single_word", token.single_word), ("lstrip", token.lstrip), ("rstrip", token.rstrip)] {
        if is_set {
            return Err(Error::input(format!("added token {text}: {name:?} is not supported")));
        }
    }
    if token.normalized && token.content.contains(' ') {
        return Err(Error::input(format!("added token {text}: \"normalized\" with a space is not supported")));
    }
    Ok(())
}

/// `bos_token`, `eos_token`, `pad_token` and `add_bos_token` of `tokenizer_config.json`.
fn apply_config(blueprint: &mut Blueprint, bytes: &[u8]) -> Result<()> {
    check_json(bytes)?;
    let config: Value = parse(bytes)?;
    let token = |name: &str| -> Option<&str> {
        let value = config.get(name)?;
        value.as_str().or_else(|| value.get("content")?.as_str())
    };
    let id = |name: &str| -> Result<Option<u32>> {
        let Some(text) = token(name) else { return Ok(None) };
        match id_of(blueprint, text) {
            Some(id) => Ok(Some(id)),
            None => Err(Error::input(format!("{name} {} is not in the vocabulary", quoted(text)))),
        }
    };
    let (bos_id, eos_id, padding_id) = (id("bos_token")?, id("eos_token")?, id("pad_token")?);
    blueprint.bos_id = bos_id.or(blueprint.bos_id);
    blueprint.eos_id = eos_id;
    blueprint.padding_id = padding_id;
    if let Some(add_bos) = config.get("add_bos_token").and_then(Value::as_bool) {
        blueprint.add_bos = add_bos;
    }
    blueprint.make_control([bos_id, eos_id, padding_id, None]);
    blueprint.check_merges()
}
