//! Messages in JSON, as rows to train on and lines of prompts write them: `[{"role": "user", "content": ".."}, ..]`.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde::Deserialize;

use super::{Message, Role};
use crate::escape::thousands;
use crate::files::formats::json_shape::{seed, Shape, Text};

/// A value that should be an array of messages; of a longer one than `N_MAX` only the beginning is held. Read it with
/// [`seed`], from a text or from a [`serde_json::Value`].
#[derive(Debug, Default)]
pub enum MessageList<const N_MAX: usize> {
    #[default]
    Absent,
    /// At most `N_MAX` of them, and how many there are.
    Are(MessageValues, usize),
    /// Something else, as a message shows it.
    Other(String),
}

/// The messages of a list, not checked yet.
#[derive(Debug, Default)]
pub struct MessageValues(Vec<MessageValue>);

impl<const N_MAX: usize> Shape for MessageList<N_MAX> {
    fn null() -> Self {
        MessageList::Absent
    }

    fn other(shown: String) -> Self {
        MessageList::Other(shown)
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

    /// The messages, at least one.
    ///
    /// # Errors
    /// There are none, or too many; one of them has no role that is known, no content, or a key twice. Messages count
    /// from 1: `message 2: "role" is "cat"; system, user, assistant or tool expected`.
    pub fn messages(self) -> Result<Vec<Message>, String> {
        match self {
            MessageList::Absent => Err("\"messages\" is missing".into()),
            MessageList::Other(shown) => Err(format!("\"messages\" is {shown}; an array is needed")),
            MessageList::Are(messages, n) if n > messages.0.len() => {
                let (n, most) = (thousands(n as u64), thousands(N_MAX as u64));
                Err(format!("\"messages\" has {n} turns; at most {most}"))
            }
            MessageList::Are(_, 0) => Err("\"messages\" is empty".into()),
            MessageList::Are(messages, _) => {
                let numbered = messages.0.into_iter().enumerate();
                numbered.map(|(k, value)| value.message().map_err(|e| format!("message {}: {e}", k + 1))).collect()
            }
        }
    }
}

/// The keys of a message. A call of a tool has a place of its own in other templates, and would be lost here.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Role,
    Content,
    ToolCalls,
    #[serde(other)]
    Unknown,
}

/// A value that should be a message.
#[derive(Debug, Default)]
struct MessageValue {
    role: Text,
    content: Text,
    has_tool_calls: bool,
    twice: Option<&'static str>,
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
        let (mut has_role, mut has_content) = (false, false);
        while let Some(key) = object.next_key::<Key>()? {
            match key {
                Key::Role => {
                    message.twice = message.twice.or(std::mem::replace(&mut has_role, true).then_some("role"));
                    message.role = object.next_value_seed(seed())?;
                }
                Key::Content => {
                    message.twice = message.twice.or(std::mem::replace(&mut has_content, true).then_some("content"));
                    message.content = object.next_value_seed(seed())?;
                }
                Key::ToolCalls => {
                    let value: Text = object.next_value_seed(seed())?;
                    message.has_tool_calls |= !value.is_absent();
                }
                Key::Unknown => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(message)
    }
}

impl MessageValue {
    fn message(self) -> Result<Message, String> {
        if let Some(shown) = self.other {
            return Err(format!("is {shown}; an object is needed"));
        }
        if let Some(name) = self.twice {
            return Err(format!("\"{name}\" stands twice"));
        }
        if self.has_tool_calls {
            return Err("\"tool_calls\" is not supported: write the call into \"content\"".into());
        }
        let role = self.role.needed("role")?;
        let Some(role) = Role::parse(&role) else {
            let shown = if role.chars().count() > 64 { "a long string".into() } else { format!("{role:?}") };
            return Err(format!("\"role\" is {shown}; system, user, assistant or tool expected"));
        };
        Ok(Message::new(role, self.content.needed("content")?))
    }
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeSeed;
    use serde_json::Value;

    use super::*;

    /// Read from the text, and from the tree of values that is made of it: the same, but that the tree has no key twice.
    fn read(text: &str) -> Result<Vec<Message>, String> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let streamed = seed::<MessageList<3>>().deserialize(&mut deserializer).unwrap().messages();
        let value: Value = serde_json::from_str(text).unwrap();
        let from_tree = seed::<MessageList<3>>().deserialize(&value).unwrap().messages();
        assert!(streamed == from_tree || text.contains("twice"), "{text}: {streamed:?} {from_tree:?}");
        streamed
    }

    #[test]
    fn messages_are_read() {
        let text = r#"[{"role": "developer", "content": "a"}, {"content": "b\n", "x": [1, {}], "role": "model", "tool_calls": null}]"#;
        assert_eq!(read(text), Ok(vec![Message::system("a"), Message::assistant("b\n")]));
    }

    #[test]
    fn what_is_no_message_is_refused_with_its_number() {
        for (text, want) in [
            ("null", "\"messages\" is missing"),
            ("{}", "\"messages\" is an object; an array is needed"),
            ("\"a\"", "\"messages\" is \"a\"; an array is needed"),
            ("[]", "\"messages\" is empty"),
            ("[1, 2, 3, 4]", "\"messages\" has 4 turns; at most 3"),
            ("[[]]", "message 1: is an array; an object is needed"),
            (r#"[{"role": "user"}]"#, "message 1: \"content\" is missing"),
            (r#"[{"role": "user", "content": 2}]"#, "message 1: \"content\" is 2; a string is needed"),
            (
                r#"[{"role": "user", "content": ""}, {"role": "cat", "content": ""}]"#,
                "message 2: \"role\" is \"cat\"; system, user, assistant or tool expected",
            ),
            (r#"[{"role": "user", "role": "user", "content": "twice"}]"#, "message 1: \"role\" stands twice"),
            (
                r#"[{"role": "assistant", "content": "", "tool_calls": []}]"#,
                "message 1: \"tool_calls\" is not supported: write the call into \"content\"",
            ),
        ] {
            assert_eq!(read(text), Err(want.to_string()), "{text}");
        }
    }
}
