//! The list of components a `tokenizer.json` may have. Gemma's and Qwen's pipelines, and nothing else: an unknown
//! component would change the ids in silence.

use serde::Deserialize;
use serde_json::Value;

use super::blueprint::{grouped, quoted};
use super::bpe::QWEN2_SPLIT;
use super::{TokenizerKind, SPACE_MARK};
use crate::error::{Error, Result};

/// The first pass over the file: everything but the vocabulary, the merges and the added tokens.
#[derive(Deserialize)]
pub(super) struct Components {
    #[serde(default)]
    truncation: Value,
    #[serde(default)]
    padding: Value,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    pub model: ModelOptions,
}

#[derive(Deserialize)]
pub(super) struct ModelOptions {
    #[serde(rename = "type", default)]
    model_type: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    pub unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    pub ignore_merges: Option<bool>,
}

/// Refuses what is not on the list and says which of the two pipelines the file describes.
pub(super) fn check_components(file: &Components, embedding_rows: usize) -> Result<TokenizerKind> {
    check_model(&file.model)?;
    for (name, value) in [("truncation", &file.truncation), ("padding", &file.padding)] {
        // Both change lengths, never ids; the runtime has its own limits.
        if !value.is_null() && !value.is_object() {
            return Err(Error::input(format!("{name} is not an object")));
        }
    }
    let normalizers = flatten("normalizer", &file.normalizer, "normalizers")?;
    let kind = normalizer_kind(&normalizers, file.model.byte_fallback.unwrap_or(false))?;
    check_pre_tokenizer(kind, &flatten("pre-tokenizer", &file.pre_tokenizer, "pretokenizers")?)?;
    check_decoder(kind, &flatten("decoder", &file.decoder, "decoders")?)?;
    for part in flatten("post-processor", &file.post_processor, "processors")? {
        match type_of(part)? {
            "ByteLevel" => {}
            "TemplateProcessing" => check_template(part, embedding_rows)?,
            other => return Err(unsupported("post-processor", other)),
        }
    }
    Ok(kind)
}

impl Components {
    /// The special token that the post-processor puts in front of one sequence: BOS.
    pub fn leading_special(&self) -> Option<&str> {
        let parts = flatten("post-processor", &self.post_processor, "processors").ok()?;
        let template = parts.into_iter().find(|part| part.get("single").is_some())?;
        template.get("single")?.get(0)?.get("SpecialToken")?.get("id")?.as_str()
    }
}

fn unsupported(what: &str, name: &str) -> Error {
    Error::input(format!("{what} {} is not supported", quoted(name)))
}

fn check_model(model: &ModelOptions) -> Result<()> {
    match model.model_type.as_deref() {
        Some("BPE") => {}
        Some(other) => return Err(unsupported("model", other)),
        None => return Err(Error::input("model has no type; BPE is supported")),
    }
    if let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0) {
        return Err(Error::input(format!("model: dropout is {dropout}; only 0 gives the same ids twice")));
    }
    for (name, value) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if value.as_deref().is_some_and(|value| !value.is_empty()) {
            return Err(Error::input(format!("model: {name:?} is not supported")));
        }
    }
    Ok(())
}

/// A component, or the parts of a `Sequence` of them (one level: no real file nests sequences).
fn flatten<'a>(what: &str, value: &'a Value, parts_name: &str) -> Result<Vec<&'a Value>> {
    if value.is_null() {
        return Ok(Vec::new());
    }
    let name = type_of(value).map_err(|_| Error::input(format!("{what} has no type")))?;
    if name != "Sequence" {
        return Ok(vec![value]);
    }
    let parts = value.get(parts_name).and_then(Value::as_array);
    let parts = parts.ok_or_else(|| Error::input(format!("{what} \"Sequence\" has no {parts_name:?}")))?;
    for part in parts {
        if type_of(part).map_err(|_| Error::input(format!("{what} has no type")))? == "Sequence" {
            return Err(unsupported(what, "Sequence in Sequence"));
        }
    }
    Ok(parts.iter().collect())
}

fn type_of(value: &Value) -> Result<&str> {
    value.get("type").and_then(Value::as_str).ok_or_else(|| Error::input("a component has no type"))
}

/// `{"String": "x"}` or `{"Regex": "x"}`.
fn pattern<'a>(part: &'a Value, form: &str) -> Option<&'a str> {
    part.get("pattern")?.get(form)?.as_str()
}

fn is_replace(part: &Value, from: &str, to: &str) -> bool {
    pattern(part, "String") == Some(from) && part.get("content").and_then(Value::as_str) == Some(to)
}

fn normalizer_kind(parts: &[&Value], byte_fallback: bool) -> Result<TokenizerKind> {
    let mut kind = None;
    for part in parts {
        kind = match (type_of(part)?, kind) {
            ("Replace", None) if is_replace(part, " ", SPACE_MARK) => Some(TokenizerKind::SentencePiece),
            ("NFC", None) => Some(TokenizerKind::ByteLevel),
            (other, _) => return Err(unsupported("normalizer", other)),
        };
    }
    match (kind, byte_fallback) {
        (Some(TokenizerKind::SentencePiece), true) | (Some(TokenizerKind::ByteLevel), false) => {
            Ok(kind.unwrap_or(TokenizerKind::ByteLevel))
        }
        (Some(_), _) => {
            Err(Error::input(format!("model: byte_fallback is {byte_fallback}, which the normalizer rules out")))
        }
        (None, _) => Err(Error::input("normalizer is missing; Replace (Gemma) or NFC (Qwen) is needed")),
    }
}

fn check_pre_tokenizer(kind: TokenizerKind, parts: &[&Value]) -> Result<()> {
    let what = "pre-tokenizer";
    let split = |part: &Value, behavior: &str| {
        part.get("behavior").and_then(Value::as_str) == Some(behavior)
            && part.get("invert") == Some(&Value::Bool(false))
    };
    let mut n_byte_level = 0;
    let mut n_split = 0;
    for part in parts {
        match (type_of(part)?, kind) {
            // After the normalizer no space is left to split on.
            ("Split", TokenizerKind::SentencePiece)
                if pattern(part, "String") == Some(" ") && split(part, "MergedWithPrevious") => {}
            ("Split", TokenizerKind::ByteLevel)
                if pattern(part, "Regex") == Some(QWEN2_SPLIT) && split(part, "Isolated") && n_byte_level == 0 =>
            {
                n_split += 1;
            }
            ("Split", _) => return Err(Error::input("pre-tokenizer \"Split\": this pattern is not supported")),
            ("ByteLevel", TokenizerKind::ByteLevel) => {
                for name in ["add_prefix_space", "use_regex"] {
                    if part.get(name) != Some(&Value::Bool(false)) {
                        return Err(Error::input(format!("{what} \"ByteLevel\": {name:?} must be false")));
                    }
                }
                n_byte_level += 1;
            }
            (other, _) => return Err(unsupported(what, other)),
        }
    }
    if kind == TokenizerKind::ByteLevel && (n_split, n_byte_level) != (1, 1) {
        return Err(Error::input("pre-tokenizer: one \"Split\" and one \"ByteLevel\" are needed"));
    }
    Ok(())
}

fn check_decoder(kind: TokenizerKind, parts: &[&Value]) -> Result<()> {
    let what = "decoder";
    let mut names = Vec::new();
    for part in parts {
        let name = type_of(part)?;
        match (name, kind) {
            ("Replace", TokenizerKind::SentencePiece) if is_replace(part, SPACE_MARK, " ") => {}
            ("ByteFallback" | "Fuse", TokenizerKind::SentencePiece) | ("ByteLevel", TokenizerKind::ByteLevel) => {}
            (other, _) => return Err(unsupported(what, other)),
        }
        names.push(name);
    }
    let complete = match kind {
        TokenizerKind::SentencePiece => names.contains(&"Replace") && names.contains(&"ByteFallback"),
        TokenizerKind::ByteLevel => names == ["ByteLevel"],
    };
    if complete {
        return Ok(());
    }
    Err(Error::input(match kind {
        TokenizerKind::SentencePiece => "decoder: \"Replace\" and \"ByteFallback\" are needed",
        TokenizerKind::ByteLevel => "decoder: one \"ByteLevel\" is needed",
    }))
}

/// Every special token a template names must be declared, with ids the model has.
fn check_template(part: &Value, embedding_rows: usize) -> Result<()> {
    let declared = part.get("special_tokens").and_then(Value::as_object);
    for name in ["single", "pair"] {
        let Some(steps) = part.get(name).filter(|steps| !steps.is_null()) else { continue };
        let steps = steps.as_array().ok_or_else(|| Error::input(format!("post-processor: {name:?} is not a list")))?;
        for step in steps {
            let Some(special) = step.get("SpecialToken") else {
                if step.get("Sequence").is_some() {
                    continue;
                }
                return Err(Error::input(format!("post-processor: a step of {name:?} is not known")));
            };
            let id = special.get("id").and_then(Value::as_str).unwrap_or_default();
            if !declared.is_some_and(|declared| declared.contains_key(id)) {
                return Err(Error::input(format!("post-processor uses {}, which is not declared", quoted(id))));
            }
        }
    }
    for (text, special) in declared.into_iter().flatten() {
        let ids = special.get("ids").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for id in ids {
            if id.as_u64().is_none_or(|id| id >= embedding_rows as u64) {
                let (text, rows) = (quoted(text), grouped(embedding_rows));
                return Err(Error::input(format!("post-processor: {text} has id {id}; the model has {rows}")));
            }
        }
    }
    Ok(())
}
