//! One line of prompts, checked field by field.

use serde::de::DeserializeSeed;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::engine::request::{Prompt, Request, REQUEST_SETTINGS};
use crate::error::{Error, Result};
use crate::files::formats::json_shape::seed;
use crate::setting::table::shown;
use crate::setting::{Setting, MESSAGES, PROMPT, TOKENS};
use crate::text::chat_template::message_json::MessageList;

/// Fields that a line of answers has beside those of its prompt, and beside `seed`, which both may have.
const OWN_FIELDS: [&str; 7] =
    ["line", "line_hash", "text", "token_ids", "finish_reason", "prompt_tokens", "new_tokens"];

/// What a line asks.
const PROMPTS: [Setting; 3] = [PROMPT, MESSAGES, TOKENS];

/// Whether a line can say this: a prompt or a setting of a request.
pub fn is_field(name: &str) -> bool {
    PROMPTS.iter().any(|prompt| prompt.name() == name) || REQUEST_SETTINGS.iter().any(|s| s.setting.name() == name)
}

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
        self.fields.keys().map(String::as_str).filter(|name| !is_field(name))
    }
}

/// The first eight bytes of the line's SHA-256.
fn hash(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    digest.iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

fn prompt(fields: &Map<String, Value>) -> Result<Prompt> {
    let mut named = PROMPTS.iter().filter_map(|prompt| Some((prompt.name(), fields.get(prompt.name())?)));
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
    let mut request = Request { prompt: prompt(fields)?, ..Request::default() };
    for entry in &REQUEST_SETTINGS {
        if let Some(value) = fields.get(entry.setting.name()) {
            entry.set_json(&mut request, value)?;
        }
    }
    Ok(request)
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
