//! One message as JSON has it.

use serde::de::MapAccess;
use serde_json::Value;

use super::content::Content;
use super::tool_calls::{call_of, CallList};
use super::MessageEntry;
use crate::files::formats::json_shape::{seed, show_text, Presence, Shape, Text};
use crate::text::chat_template::{Message, Role};

/// What a message says of itself.
pub const MESSAGE_KEYS: [&str; 7] = ["role", "from", "content", "value", "tool_calls", "tool_call_id", "name"];

/// Most keys of a message that are kept for being named.
const UNUSED_MAX: usize = 16;

/// What no template here reads, and would be lost: refused with what to do instead.
const REFUSED: [(&str, &str); 9] = [
    ("reasoning_content", "write it into \"content\""),
    ("reasoning", "write it into \"content\""),
    ("thinking", "write it into \"content\""),
    ("images", "only text is supported"),
    ("image", "only text is supported"),
    ("audio", "only text is supported"),
    ("videos", "only text is supported"),
    ("train_detail", "say \"train\" of the whole message"),
    ("function_call", "write it as \"tool_calls\""),
];

/// Keys that say whether a message is to be learned: OpenAI's, and those of fine-tuning programs.
const TRAINED: [&str; 4] = ["weight", "train", "training", "loss"];

/// A value that should be a message.
#[derive(Debug, Default)]
pub(super) struct MessageValue {
    role: Text,
    content: Content,
    calls: CallList,
    tool_call_id: Text,
    name: Text,
    /// `content` was called `value`, or `role` was called `from`.
    is_share_gpt: bool,
    trained: Option<(&'static str, Value)>,
    refused: Option<(&'static str, &'static str)>,
    unused: Vec<String>,
    twice: Option<String>,
    other: Option<String>,
}

impl Shape for MessageValue {
    fn null() -> Self {
        MessageValue::other("null".into())
    }

    fn other(shown: String) -> Self {
        MessageValue { other: Some(shown), ..MessageValue::default() }
    }

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut message = MessageValue::default();
        let mut seen = Vec::new();
        while let Some(key) = object.next_key::<String>()? {
            match key.as_str() {
                "role" | "from" => {
                    message.is_share_gpt |= key == "from";
                    message.role = message.role.or(object.next_value_seed(seed())?);
                }
                "content" | "value" => message.content = message.content.or(object.next_value_seed(seed())?),
                "tool_calls" => message.calls = object.next_value_seed(seed())?,
                "tool_call_id" => message.tool_call_id = object.next_value_seed(seed())?,
                "name" => message.name = object.next_value_seed(seed())?,
                other => {
                    if let Some(name) = TRAINED.iter().find(|name| **name == other) {
                        let value: Value = object.next_value()?;
                        message.trained = message.trained.or((!value.is_null()).then_some((name, value)));
                    } else {
                        message.take_other(other, object.next_value_seed(seed())?);
                    }
                }
            }
            let known = MESSAGE_KEYS.contains(&key.as_str());
            if known && seen.contains(&key) {
                message.twice.get_or_insert(key);
            } else if known {
                seen.push(key);
            }
        }
        Ok(message)
    }
}

impl MessageValue {
    fn take_other(&mut self, key: &str, value: Presence) {
        if value == Presence::Absent {
            return;
        }
        match REFUSED.iter().find(|(name, _)| *name == key) {
            Some(refused) if value == Presence::Full => self.refused = self.refused.or(Some(*refused)),
            Some(_) => {}
            _ if self.unused.len() < UNUSED_MAX && key.len() <= 64 => self.unused.push(key.to_string()),
            _ => {}
        }
    }

    pub(super) fn entry(self) -> Result<MessageEntry, String> {
        if let Some(shown) = self.other {
            return Err(format!("is {shown}; an object is needed"));
        }
        if let Some(name) = self.twice {
            return Err(format!("\"{name}\" stands twice"));
        }
        if let Some((name, instead)) = self.refused {
            return Err(format!("\"{name}\" is not supported: {instead}"));
        }
        let (role_key, content_key) = if self.is_share_gpt { ("from", "value") } else { ("role", "content") };
        let role = self.role.needed(role_key)?;
        let is_trained = self.trained.map(|(name, value)| is_trained(name, &value)).transpose()?;
        // LLaMA-Factory's: a turn of its own, whose text is the call.
        if role == "function_call" {
            let call = call_of(&self.content.needed(content_key)?.concat())?;
            let message = Message { tool_calls: call, ..Message::assistant("") };
            return Ok(MessageEntry { message, is_trained, unused: self.unused });
        }
        let Some(role) = role_of(&role) else {
            return Err(format!("\"{role_key}\" is {}; system, user, assistant or tool expected", show_text(&role)));
        };
        let tool_calls = self.calls.calls()?;
        if !tool_calls.is_empty() && role != Role::Assistant {
            return Err(format!("\"tool_calls\" is of an assistant's message, and this one is from {}", role.name()));
        }
        let mut parts = match tool_calls.is_empty() {
            true => self.content.needed(content_key)?,
            // A message that calls need not say anything.
            false => self.content.optional(content_key)?.unwrap_or_default(),
        };
        let tool_call_id = self.tool_call_id.optional("tool_call_id")?;
        let name = self.name.optional("name")?;
        // A template that takes no parts gets lines, as in other servers.
        let content = parts.join("\n");
        if parts.len() < 2 {
            parts.clear();
        }
        let message = Message { role, content, parts, name, tool_calls, tool_call_id };
        Ok(MessageEntry { message, is_trained, unused: self.unused })
    }
}

/// The names of the API, and those of ShareGPT and its relatives.
fn role_of(name: &str) -> Option<Role> {
    Role::parse(name).or(match name {
        "human" | "prompter" => Some(Role::User),
        "gpt" | "bing" | "bard" => Some(Role::Assistant),
        "function" | "function_response" | "observation" | "tool_response" => Some(Role::Tool),
        _ => None,
    })
}

fn is_trained(name: &str, value: &Value) -> Result<bool, String> {
    match value.as_bool().map(|on| if on { 1.0 } else { 0.0 }).or(value.as_f64()) {
        Some(0.0) => Ok(false),
        Some(1.0) => Ok(true),
        _ => {
            let shown = value.to_string();
            let shown = if shown.len() > 64 { "a long value" } else { &shown };
            Err(format!("\"{name}\" is {shown}; 0 or 1, false or true expected"))
        }
    }
}
