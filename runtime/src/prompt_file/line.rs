//! One line of prompts, checked field by field.

use std::collections::BTreeSet;

use serde::de::DeserializeSeed;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::engine::request::{Prompt, Request, REQUEST_SETTINGS};
use crate::error::{Error, Result};
use crate::files::formats::json_shape::seed;
use crate::setting::table::shown;
use crate::setting::{Setting, MESSAGES, PROMPT, TOKENS, TOOLS};
use crate::text::chat_template::message_json::{MessageList, MESSAGE_KEYS};

/// Fields that a line of answers has beside those of its prompt, and beside `seed`, which both may have.
const OWN_FIELDS: [&str; 7] =
    ["line", "line_hash", "text", "token_ids", "finish_reason", "prompt_tokens", "new_tokens"];

/// What a line asks.
const PROMPTS: [Setting; 3] = [PROMPT, MESSAGES, TOKENS];

/// Whether a line can say this: a prompt or a setting of a request.
pub fn is_field(name: &str) -> bool {
    PROMPTS.iter().chain([&TOOLS]).any(|setting| setting.name() == name)
        || REQUEST_SETTINGS.iter().any(|entry| entry.names().any(|known| known == name))
}

/// What others' lines say that would change an answer, and no line here can.
const NOT_SUPPORTED: [&str; 24] = [
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "response_format",
    "json_schema",
    "grammar",
    "functions",
    "function_call",
    "logprobs",
    "top_logprobs",
    "best_of",
    "echo",
    "suffix",
    "typical_p",
    "mirostat",
    "num_beams",
    "length_penalty",
    "min_tokens",
    "min_new_tokens",
    "bad_words",
    "adapter",
    "lora",
    "documents",
    "chat_template_kwargs",
];

/// What others write and means nothing here, as this is what happens anyway.
fn is_default(name: &str, value: &Value) -> bool {
    match name {
        "n" | "num_return_sequences" => value.as_f64() == Some(1.0),
        "stream" | "continue_final_message" => value == &Value::Bool(false),
        "add_generation_prompt" => value == &Value::Bool(true),
        "tool_choice" => value == "auto",
        "response_format" => value["type"] == "text",
        _ => false,
    }
}

/// Others' settings of which one value is what happens anyway.
const FIXED: [&str; 6] =
    ["n", "num_return_sequences", "stream", "continue_final_message", "add_generation_prompt", "tool_choice"];

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
        refuse_unsupported(&fields)?;
        let request = request(&fields)?;
        request.check()?;
        if request.system.is_some() && !matches!(request.prompt, Prompt::Text(_)) {
            return Err(Error::input("has \"system\", which goes with \"prompt\" alone"));
        }
        if !request.tools.is_empty() && matches!(request.prompt, Prompt::Tokens(_)) {
            return Err(Error::input("has \"tools\", which \"tokens\" have no place for"));
        }
        Ok(PromptLine { number, hash: hash(bytes), request, fields })
    }

    /// Fields that say nothing to whoever answers, each once; they go over to the answer as they are. Those of messages stand
    /// as `messages[].name`.
    pub fn unrecognised(&self) -> BTreeSet<String> {
        let is_known = |name: &str| is_field(name) || FIXED.contains(&name) || NOT_SUPPORTED.contains(&name);
        let of_line = self.fields.keys().filter(|name| !is_known(name)).cloned();
        let messages = self.fields.get(MESSAGES.name()).and_then(Value::as_array).into_iter().flatten();
        let keys = messages.filter_map(Value::as_object).flat_map(Map::keys);
        let of_messages = keys.filter(|name| !MESSAGE_KEYS.contains(&name.as_str()));
        of_line.chain(of_messages.map(|name| format!("{}[].{name}", MESSAGES.name()))).collect()
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
    let mut request = Request { prompt: prompt(fields)?, tools: tools(fields)?, ..Request::default() };
    for entry in &REQUEST_SETTINGS {
        let mut said = entry.names().filter_map(|name| Some((name, present(fields, name)?)));
        let Some((name, value)) = said.next() else { continue };
        if let Some((other, _)) = said.find(|(_, other)| *other != value) {
            return Err(Error::input(format!("has \"{name}\" and \"{other}\", which are one setting")));
        }
        entry.set_json(&mut request, value)?;
    }
    Ok(request)
}

/// The functions of a line; `"tool_choice": "none"` takes them away.
fn tools(fields: &Map<String, Value>) -> Result<Vec<Value>> {
    let wrong = |what: &str, value: &Value| Error::input(format!("{TOOLS} {what} {}; a list of objects", shown(value)));
    let list = match present(fields, "tools") {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(wrong("is", other)),
    };
    if let Some(other) = list.iter().find(|tool| !tool.is_object()) {
        return Err(wrong("has", other));
    }
    match present(fields, "tool_choice").is_some_and(|choice| choice == "none") {
        true => Ok(Vec::new()),
        false => Ok(list.clone()),
    }
}

fn refuse_unsupported(fields: &Map<String, Value>) -> Result<()> {
    let asks = |name: &&&str| present(fields, name).is_some_and(|v| asks_for_something(v) && !is_default(name, v));
    if let Some(name) = NOT_SUPPORTED.iter().find(asks) {
        return Err(Error::input(format!("has \"{name}\", which is not supported")));
    }
    let is_none = |name: &str, value: &Value| name == "tool_choice" && value == "none";
    for name in FIXED {
        let Some(value) = present(fields, name) else { continue };
        if !is_default(name, value) && !is_none(name, value) {
            return Err(Error::input(format!("has \"{name}\": {}, which is not supported", shown(value))));
        }
    }
    Ok(())
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
