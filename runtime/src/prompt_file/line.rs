//! One line of prompts, checked field by field.

use serde::de::DeserializeSeed;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::engine::request::{Prompt, Request, SamplingOverrides};
use crate::error::{Error, Result};
use crate::files::formats::json_shape::seed;
use crate::text::chat_template::message_json::MessageList;

/// Fields that a line of answers has beside those of its prompt, and beside `seed`, which both may have.
const OWN_FIELDS: [&str; 7] =
    ["line", "line_hash", "text", "token_ids", "finish_reason", "prompt_tokens", "new_tokens"];

/// What a line can say.
const FIELDS: [&str; 12] = [
    "prompt",
    "messages",
    "tokens",
    "system",
    "max_new_tokens",
    "seed",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repeat_penalty",
    "stop",
];

/// What others' lines say that would change an answer, and no line here can.
const NOT_SUPPORTED: [&str; 11] = [
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "response_format",
    "tools",
    "tool_choice",
    "functions",
    "logprobs",
    "top_logprobs",
];

/// The context ends a conversation long before.
const MESSAGES_MAX: usize = 1 << 20;

/// A prompt and everything beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptLine {
    pub number: u64,
    /// Of the line's bytes: tells whether a line of answers belongs to it.
    pub hash: u64,
    pub request: Request,
    /// The whole object; it goes over to the answer.
    pub fields: Map<String, Value>,
}

impl PromptLine {
    /// `bytes` without white space around them.
    pub(super) fn parse(number: u64, bytes: &[u8]) -> Result<PromptLine> {
        let value: Value = serde_json::from_slice(bytes).map_err(|e| {
            // Its line is always the first; the column is what helps.
            let text = e.to_string();
            let what = text.split(" at line ").next().unwrap_or(&text).to_string();
            Error::input(format!("is no JSON: {what} at column {}", e.column()))
        })?;
        let Value::Object(fields) = value else {
            return Err(Error::input("is no JSON object: {\"prompt\": \"..\"} expected"));
        };
        if let Some(name) = OWN_FIELDS.iter().find(|name| fields.contains_key(**name)) {
            return Err(Error::input(format!("has a field \"{name}\", which is the answer's: rename it")));
        }
        if let Some(name) = NOT_SUPPORTED.iter().find(|name| present(&fields, name).is_some_and(asks_for_something)) {
            let instead = if name.starts_with("max_") { ": say \"max_new_tokens\"" } else { "" };
            return Err(Error::input(format!("has \"{name}\", which is not supported{instead}")));
        }
        let request = request(&fields)?;
        request.check()?;
        if request.system.is_some() && !matches!(request.prompt, Prompt::Text(_)) {
            return Err(Error::input("has \"system\", which goes with \"prompt\" alone"));
        }
        Ok(PromptLine { number, hash: hash(bytes), request, fields })
    }

    /// Fields that say nothing to whoever answers: they go over to the answer as they are.
    pub fn unrecognised(&self) -> impl Iterator<Item = &str> {
        self.fields.keys().map(String::as_str).filter(|name| !FIELDS.contains(name))
    }
}

/// The first eight bytes of the line's SHA-256.
fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

fn prompt(fields: &Map<String, Value>) -> Result<Prompt> {
    const NAMES: [&str; 3] = ["prompt", "messages", "tokens"];
    let mut named = NAMES.iter().filter_map(|name| Some((*name, fields.get(*name)?)));
    let (Some((name, value)), None) = (named.next(), named.next()) else {
        return Err(Error::input("needs one of \"prompt\", \"messages\" and \"tokens\""));
    };
    let wrong = |expected: &str| Error::input(format!("\"{name}\" is {}; {expected} expected", shown(value)));
    match (name, value) {
        ("prompt", Value::String(text)) => Ok(Prompt::Text(text.clone())),
        ("prompt", _) => Err(wrong("a text")),
        ("messages", value) => {
            let list = seed::<MessageList<MESSAGES_MAX>>().deserialize(value);
            let messages = list.map_err(|e| e.to_string()).and_then(MessageList::messages);
            messages.map(Prompt::Messages).map_err(Error::input)
        }
        (_, Value::Array(list)) => {
            let ids = list.iter().map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()));
            ids.collect::<Option<Vec<u32>>>().map(Prompt::Tokens).ok_or_else(|| wrong("a list of token ids"))
        }
        _ => Err(wrong("a list of token ids")),
    }
}

/// What a line asks, and what it says in place of the flags.
fn request(fields: &Map<String, Value>) -> Result<Request> {
    Ok(Request {
        prompt: prompt(fields)?,
        system: match present(fields, "system") {
            None => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(other) => return Err(Error::input(format!("\"system\" is {}; a text expected", shown(other)))),
        },
        sampling: SamplingOverrides {
            temperature: number(fields, "temperature")?,
            top_k: count(fields, "top_k", 1 << 24)?.map(|n| n as usize),
            top_p: number(fields, "top_p")?,
            min_p: number(fields, "min_p")?,
            repeat_penalty: number(fields, "repeat_penalty")?,
            repeat_last_n: None,
            seed: count(fields, "seed", u64::MAX)?,
        },
        stop: stop(fields)?,
        max_new_tokens: count(fields, "max_new_tokens", 1 << 24)?.map(|n| n as usize),
        ..Request::default()
    })
}

/// Others' programs write out what they do not want.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Bool(wanted) => *wanted,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

/// `null` is as good as absent.
fn present<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

fn count(fields: &Map<String, Value>, name: &str, max: u64) -> Result<Option<u64>> {
    let Some(value) = present(fields, name) else { return Ok(None) };
    match value.as_u64().filter(|n| *n <= max) {
        Some(n) => Ok(Some(n)),
        None => Err(Error::input(format!("\"{name}\" is {}; a whole number from 0 to {max} expected", shown(value)))),
    }
}

/// Ranges are the sampler's to check.
fn number(fields: &Map<String, Value>, name: &str) -> Result<Option<f32>> {
    let Some(value) = present(fields, name) else { return Ok(None) };
    match value.as_f64() {
        Some(n) => Ok(Some(n as f32)),
        None => Err(Error::input(format!("\"{name}\" is {}; a number expected", shown(value)))),
    }
}

fn stop(fields: &Map<String, Value>) -> Result<Option<Vec<String>>> {
    let Some(value) = present(fields, "stop") else { return Ok(None) };
    let texts = match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|v| v.as_str().map(str::to_string)).collect(),
        _ => None,
    };
    let wrong = || Error::input(format!("\"stop\" is {}; a text or a list of texts expected", shown(value)));
    texts.map(Some).ok_or_else(wrong)
}

/// A value in an error: its beginning.
fn shown(value: &Value) -> String {
    const CHARS_MAX: usize = 40;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}..", &text[..end]),
        None => text,
    }
}
