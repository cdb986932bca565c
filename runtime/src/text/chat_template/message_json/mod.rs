//! Messages in JSON, as rows to train on and lines of prompts write them: `[{"role": "user", "content": ".."}, ..]`, and
//! ShareGPT's `[{"from": "human", "value": ".."}, ..]`.

mod content;
mod tool_calls;
mod value;

use serde::de::{IgnoredAny, SeqAccess};

use super::Message;
use crate::escape::thousands;
use crate::files::formats::json_shape::{seed, show_text, Shape};
use value::MessageValue;

pub use value::MESSAGE_KEYS;

/// A value that should be an array of messages; of a longer one than `N_MAX` only the beginning is held. Read it with
/// [`seed`], from a text or from a [`serde_json::Value`].
#[derive(Debug, Default)]
pub enum MessageList<const N_MAX: usize> {
    #[default]
    Absent,
    /// A string, which some rows have in place of one message.
    Text(String),
    /// At most `N_MAX` of them, and how many there are.
    Are(MessageValues, usize),
    /// Something else, as a message shows it.
    Other(String),
}

/// The messages of a list, not checked yet.
#[derive(Debug, Default)]
pub struct MessageValues(Vec<MessageValue>);

/// A message, and what its object says beside it.
#[derive(Clone, Debug, PartialEq)]
pub struct MessageEntry {
    pub message: Message,
    /// Whether it is to be learned, where it says so (`weight`, `train`).
    pub is_trained: Option<bool>,
    /// Keys that nothing here reads.
    pub unused: Vec<String>,
}

impl<const N_MAX: usize> Shape for MessageList<N_MAX> {
    fn null() -> Self {
        MessageList::Absent
    }

    fn other(shown: String) -> Self {
        MessageList::Other(shown)
    }

    fn text(text: &str) -> Self {
        MessageList::Text(text.to_string())
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut messages = Vec::new();
        while messages.len() < N_MAX {
            match list.next_element_seed(seed::<MessageValue>())? {
                Some(message) => messages.push(message),
                None => break,
            }
        }
        let mut n = messages.len();
        while list.next_element::<IgnoredAny>()?.is_some() {
            n += 1;
        }
        Ok(MessageList::Are(MessageValues(messages), n))
    }
}

impl<const N_MAX: usize> MessageList<N_MAX> {
    pub fn is_absent(&self) -> bool {
        matches!(self, MessageList::Absent)
    }

    /// The messages of the value of `"messages"`, at least one.
    ///
    /// # Errors
    /// As [`MessageList::entries`].
    pub fn messages(self) -> Result<Vec<Message>, String> {
        Ok(self.entries("messages")?.into_iter().map(|entry| entry.message).collect())
    }

    /// The messages of the value of `name`, at least one, and what is said beside them.
    ///
    /// # Errors
    /// There are none, or too many; one of them has no role that is known, no content, a key twice, or something that no
    /// message can hold. Messages count from 1: `message 2: "role" is "cat"; system, user, assistant or tool expected`.
    pub fn entries(self, name: &str) -> Result<Vec<MessageEntry>, String> {
        match self {
            MessageList::Absent => Err(format!("\"{name}\" is missing")),
            MessageList::Text(text) => Err(format!("\"{name}\" is {}; an array is needed", show_text(&text))),
            MessageList::Other(shown) => Err(format!("\"{name}\" is {shown}; an array is needed")),
            MessageList::Are(messages, n) if n > messages.0.len() => {
                let (n, most) = (thousands(n as u64), thousands(N_MAX as u64));
                Err(format!("\"{name}\" has {n} turns; at most {most}"))
            }
            MessageList::Are(_, 0) => Err(format!("\"{name}\" is empty")),
            MessageList::Are(messages, _) => {
                let numbered = messages.0.into_iter().enumerate();
                numbered.map(|(k, value)| value.entry().map_err(|e| format!("message {}: {e}", k + 1))).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests;
