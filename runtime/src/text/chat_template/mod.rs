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
//! A template that looks inside the messages (`'</think>' in content`) would decide differently on placeholders. So the plain
//! messages are rendered too; if the two renderings differ, only the characters markers are made of are replaced, and
//! if that still differs the template is refused rather than trusted.

mod guard;
mod jinja;
mod located;
pub mod message_json;
mod native;
mod python;
mod substitution;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model_config::Architecture;
use crate::text::tokenizer::Tokenizer;
pub use jinja::JinjaTemplate;
use jinja::Pass;
pub use located::EncodedText;
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
        Message { role, content: content.into(), tool_calls: Vec::new(), tool_call_id: None }
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
            let text = |id: Option<u32>| match id {
                Some(id) => String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned(),
                None => String::new(),
            };
            let (bos, eos) = (text(tokenizer.bos_id()), text(tokenizer.eos_id()));
            return Ok(ChatTemplate::Jinja(Box::new(JinjaTemplate::new(source, &bos, &eos)?)));
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

    /// A name and the source, for hashing a session's key.
    pub fn identity(&self) -> &str {
        match self {
            ChatTemplate::Gemma => "built in: Gemma 3",
            ChatTemplate::ChatMl => "built in: ChatML",
            ChatTemplate::Jinja(template) => template.source(),
        }
    }

    /// The whole prompt, cut where messages and template meet. White space between two messages counts as content.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<Segment>> {
        Ok(self.render_substituted(Chat { messages, tools: &[], add_generation_prompt })?.segments())
    }

    fn render_plain(&self, chat: Chat<'_>, pass: Pass) -> Result<String> {
        let text = match self {
            ChatTemplate::Gemma => native::gemma(chat)?,
            ChatTemplate::ChatMl => native::chat_ml(chat)?,
            ChatTemplate::Jinja(template) => template.render(chat, pass)?,
        };
        Ok(text)
    }

    /// Renders with the messages in their placeholders, and proves that this changed nothing else. Tools are
    /// shown as JSON, so only the characters of markers are hidden in them.
    fn render_substituted(&self, chat: Chat<'_>) -> Result<Substituted> {
        let unix_now = python::unix_now();
        let plain = self.render_plain(chat, Pass { unix_now, placeholders: false })?;
        if plain.len() > OUTPUT_BYTES_MAX {
            return Err(too_long());
        }
        for cover in [Cover::Everything, Cover::Markers] {
            let substitution = substitution::Substitution::new(cover, chat.messages, &plain)?;
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
        Err(Error::input(
            "chat template: rewrites the messages, so that a control token typed in one could not be told apart",
        ))
    }
}

fn too_long() -> Error {
    Error::limit(format!("chat template: wrote more than {} MiB", OUTPUT_BYTES_MAX >> 20))
}

/// The ids of a conversation, BOS included exactly once if the model wants it: a template that writes it itself gets
/// no second one. `add_generation_prompt` opens the model's turn.
pub fn encode_chat(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    add_generation_prompt: bool,
) -> Result<Vec<u32>> {
    encode_chat_with_tools(tokenizer, template, messages, &[], add_generation_prompt)
}

/// The same for a model that may call `tools`, each as its template wants it (OpenAI's `{"type": "function", ..}`).
pub fn encode_chat_with_tools(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    tools: &[Value],
    add_generation_prompt: bool,
) -> Result<Vec<u32>> {
    let substituted = template.render_substituted(Chat { messages, tools, add_generation_prompt })?;
    let mut ids = tokenizer.encode_around_markers(substituted.text(), &|text| substituted.reveal(text))?;
    if let Some(bos) = tokenizer.bos_id().filter(|&bos| tokenizer.add_bos() && ids.first() != Some(&bos)) {
        ids.insert(0, bos);
    }
    Ok(ids)
}

/// The ids that come after the content of the last answer when the user says `next_user`: the answer's end marker, the
/// user's turn, and the opening of the model's next turn. A session that kept its generated ids appends these and
/// prefills nothing twice. `messages` ends with that answer.
pub fn encode_continuation(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    next_user: &str,
) -> Result<Vec<u32>> {
    let mut messages = messages.to_vec();
    let Some(answer) = messages.last_mut().filter(|message| message.role == Role::Assistant) else {
        return Err(Error::input("the conversation does not end with an answer"));
    };
    // What follows an answer does not depend on its text; one character that appears nowhere else marks its place.
    let mark = substitution::PLACE_MARK;
    answer.content = mark.to_string();
    messages.push(Message::user(next_user));
    if messages.iter().filter(|message| message.content.contains(mark)).count() != 1 {
        return Err(Error::input("a message holds a character reserved for internal use (U+10FFFD)"));
    }
    let substituted =
        template.render_substituted(Chat { messages: &messages, tools: &[], add_generation_prompt: true })?;
    let mut parts = substituted.text().split(mark);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(after), None) => tokenizer.encode_around_markers(after, &|text| substituted.reveal(text)),
        _ => Err(Error::input("chat template: does not write each answer once")),
    }
}
