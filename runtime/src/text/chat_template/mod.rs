//! Conversations to token ids.
//!
//! A model's own Jinja template is rendered when it has one; Gemma's and ChatML are built in for models without.
//!
//! **What is typed in a message can never become a control token.** Before rendering, every character of every message
//! is replaced by a private placeholder (`substitution.rs`), so the template's own text and the messages' stay distinguishable
//! through whatever the template does: trimming, joining, reordering. Control tokens are looked for in that rendering,
//! where no character of a message can be part of one; the text between them is turned back and encoded with control
//! tokens off. Token boundaries therefore fall exactly where encoding the whole rendering would put them, and for
//! messages without markers the ids are the same.
//!
//! A template that looks inside the messages would decide differently on placeholders. So the plain messages are rendered
//! too; if the two renderings differ, only the characters markers are made of are replaced; if that still differs
//! (`content.split('</think>')`), the template's own text is replaced instead (`marked.rs`), and if even that cannot be had
//! without a difference the template is refused rather than trusted.

mod choice;
mod clock;
mod encode;
mod guard;
mod jinja;
mod marked;
pub mod message_json;
mod native;
mod python;
mod scan;
mod substitution;
mod to_json;
mod tool_call_json;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model_config::Architecture;
use crate::text::tokenizer::Tokenizer;
pub use choice::TemplateChoice;
pub use encode::{encode_chat, encode_continuation, encode_next_turn, encode_with, Encoding};
pub use jinja::JinjaTemplate;
use jinja::Pass;
use substitution::{Cover, Substituted};

/// Longest template source.
pub const SOURCE_BYTES_MAX: usize = 64 << 10;
/// Longest rendering.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    System,
    User,
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    pub const ALL: [Role; 4] = [Role::System, Role::User, Role::Assistant, Role::Tool];

    /// The name templates and the API use.
    pub fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }

    /// Reads the names of the API, and `model` and `developer` as others spell them.
    pub fn parse(name: &str) -> Option<Role> {
        match name {
            "system" | "developer" => Some(Role::System),
            "user" => Some(Role::User),
            "assistant" | "model" => Some(Role::Assistant),
            "tool" => Some(Role::Tool),
            _ => None,
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub role: Role,
    pub content: String,
    /// The parts that `content` was put together from, where there were several: some templates write each by itself.
    pub parts: Vec<String>,
    /// Who or what speaks: of a tool's turn, the function that answers.
    pub name: Option<String>,
    /// Functions that an assistant's turn calls.
    pub tool_calls: Vec<ToolCall>,
    /// Which call a tool's turn answers.
    pub tool_call_id: Option<String>,
}

/// A function that the model calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    pub id: Option<String>,
    pub name: String,
    /// A JSON object, as templates want it.
    pub arguments: Value,
}

impl Message {
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let (parts, tool_calls) = (Vec::new(), Vec::new());
        Message { role, content: content.into(), parts, name: None, tool_calls, tool_call_id: None }
    }

    /// Every text in it, changed.
    fn map_texts(&self, change: &dyn Fn(&str) -> String) -> Message {
        let call = |call: &ToolCall| ToolCall {
            id: call.id.as_deref().map(change),
            name: change(&call.name),
            arguments: map_strings(&call.arguments, change),
        };
        Message {
            role: self.role,
            content: change(&self.content),
            parts: self.parts.iter().map(|part| change(part)).collect(),
            name: self.name.as_deref().map(change),
            tool_calls: self.tool_calls.iter().map(call).collect(),
            tool_call_id: self.tool_call_id.as_deref().map(change),
        }
    }

    pub fn system(content: impl Into<String>) -> Self {
        Message::new(Role::System, content)
    }

    pub fn user(content: impl Into<String>) -> Self {
        Message::new(Role::User, content)
    }

    pub fn assistant(content: impl Into<String>) -> Self {
        Message::new(Role::Assistant, content)
    }
}

/// Every string and key of a JSON value, changed.
fn map_strings(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(list) => Value::Array(list.iter().map(|v| map_strings(v, change)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, v)| (change(name), map_strings(v, change))).collect())
        }
        other => other.clone(),
    }
}

/// What a template renders.
#[derive(Clone, Copy)]
struct Chat<'a> {
    messages: &'a [Message],
    tools: &'a [Value],
    add_generation_prompt: bool,
}

/// A stretch of a rendered conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    pub text: String,
    /// Written in a message, not by the template.
    pub is_content: bool,
}

/// How a model wants its conversations written.
#[derive(Debug)]
pub enum ChatTemplate {
    /// Built in: Gemma 3.
    Gemma,
    /// Built in: ChatML with Qwen 2.5's default system text.
    ChatMl,
    /// The model's own.
    Jinja(Box<JinjaTemplate>),
}

impl ChatTemplate {
    /// The model's own template, or the built-in one that fits it: by its turn markers, else by its architecture.
    pub fn new(source: Option<&str>, architecture: Architecture, tokenizer: &Tokenizer) -> Result<Self> {
        if let Some(source) = source {
            return ChatTemplate::jinja(source, tokenizer);
        }
        if tokenizer.token_id("<|im_start|>").is_some() {
            return Ok(ChatTemplate::ChatMl);
        }
        if tokenizer.token_id("<start_of_turn>").is_some() {
            return Ok(ChatTemplate::Gemma);
        }
        Ok(match architecture {
            Architecture::Gemma3 => ChatTemplate::Gemma,
            Architecture::Qwen2 => ChatTemplate::ChatMl,
        })
    }

    /// A template in Jinja, with the tokenizer's begin and end of sequence.
    ///
    /// # Errors
    /// It cannot be parsed, or reaches for other files.
    pub fn jinja(source: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let text = |id: Option<u32>| id.map(|id| tokenizer.decode_with_markers(&[id])).unwrap_or_default();
        let (bos, eos) = (text(tokenizer.bos_id()), text(tokenizer.eos_id()));
        Ok(ChatTemplate::Jinja(Box::new(JinjaTemplate::new(source, &bos, &eos)?)))
    }

    /// A name and the source, for hashing a session's key.
    pub fn identity(&self) -> &str {
        match self {
            ChatTemplate::Gemma => "built in: Gemma 3",
            ChatTemplate::ChatMl => "built in: ChatML",
            ChatTemplate::Jinja(template) => template.source(),
        }
    }

    /// The whole prompt, cut where messages and template meet. White space between two messages counts as content, and so
    /// may short words of a template that looks inside messages.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<Segment>> {
        self.render_with_tools(messages, &[], add_generation_prompt)
    }

    /// The same for a model that may call functions.
    pub fn render_with_tools(
        &self,
        messages: &[Message],
        tools: &[Value],
        add_generation_prompt: bool,
    ) -> Result<Vec<Segment>> {
        Ok(self.render_substituted(Chat { messages, tools, add_generation_prompt })?.segments())
    }

    /// As it is at this moment, with what is typed in messages told apart no more.
    fn render_now(&self, chat: Chat<'_>) -> Result<String> {
        let text = self.render_plain(chat, Pass { unix_now: clock::unix_now(), placeholders: false })?;
        match text.len() > OUTPUT_BYTES_MAX {
            true => Err(too_long()),
            false => Ok(text),
        }
    }

    fn render_plain(&self, chat: Chat<'_>, pass: Pass) -> Result<String> {
        let text = match self {
            ChatTemplate::Gemma => native::gemma(chat)?,
            ChatTemplate::ChatMl => native::chat_ml(chat)?,
            ChatTemplate::Jinja(template) => template.render(chat, pass)?,
        };
        Ok(text)
    }

    /// The same as it is, and with the messages in their placeholders, which is proved to change nothing else. Tools are
    /// shown as JSON, so only the characters of markers are hidden in them.
    fn render_substituted(&self, chat: Chat<'_>) -> Result<Substituted> {
        let unix_now = clock::unix_now();
        let plain = self.render_plain(chat, Pass { unix_now, placeholders: false })?;
        if plain.len() > OUTPUT_BYTES_MAX {
            return Err(too_long());
        }
        for cover in [Cover::Everything, Cover::Markers] {
            let substitution = substitution::Substitution::new(cover, chat, &plain)?;
            let hide = |text: &str| substitution.hide(text);
            let messages: Vec<Message> = chat.messages.iter().map(|m| m.map_texts(&hide)).collect();
            // The model reads tools as JSON, whose quotes and braces templates look for: markers alone are hidden.
            let hide_markers = |text: &str| substitution.with(Cover::Markers).hide(text);
            let tools: Vec<Value> = chat.tools.iter().map(|tool| map_strings(tool, &hide_markers)).collect();
            let placeholders = Chat { messages: &messages, tools: &tools, ..chat };
            // A template may fail on placeholders where it does not on the text: then it looks inside the messages.
            let Ok(rendered) = self.render_plain(placeholders, Pass { unix_now, placeholders: true }) else {
                continue;
            };
            let substituted = Substituted::new(substitution, rendered);
            if substituted.revealed() == plain {
                return Ok(substituted);
            }
        }
        let marked = match self {
            ChatTemplate::Jinja(template) => marked::render(template, chat, unix_now, &plain)?,
            ChatTemplate::Gemma | ChatTemplate::ChatMl => None,
        };
        marked.ok_or_else(|| {
            Error::input(
                "chat template: rewrites the messages, so that a control token typed in one could not be told apart",
            )
        })
    }
}

fn too_long() -> Error {
    Error::limit(format!("chat template: wrote more than {} MiB", OUTPUT_BYTES_MAX >> 20))
}
