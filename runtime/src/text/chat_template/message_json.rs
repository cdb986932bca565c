//! Messages in JSON, as rows to train on and lines of prompts write them: `[{"role": "user", "content": ".."}, ..]`.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde::Deserialize;
use serde_json::Value;

use super::tool_call_json::tool_calls;
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

/// What a message may say.
pub const MESSAGE_KEYS: [&str; 6] = ["role", "content", "name", "tool_calls", "tool_call_id", "function_call"];

/// The keys of a message.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Role,
    Content,
    Name,
    ToolCalls,
    ToolCallId,
    FunctionCall,
    #[serde(other)]
    Unknown,
}

/// A value that should be a message.
#[derive(Debug, Default)]
struct MessageValue {
    role: Text,
    content: Content,
    name: Text,
    tool_call_id: Text,
    tool_calls: Value,
    has_function_call: bool,
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
        let mut seen = [false; 5];
        while let Some(key) = object.next_key::<Key>()? {
            let mut once = |at: usize, name: &'static str| {
                if std::mem::replace(&mut seen[at], true) {
                    message.twice.get_or_insert(name);
                }
            };
            match key {
                Key::Role => {
                    once(0, "role");
                    message.role = object.next_value_seed(seed())?;
                }
                Key::Content => {
                    once(1, "content");
                    message.content = object.next_value_seed(seed())?;
                }
                Key::Name => {
                    once(2, "name");
                    message.name = object.next_value_seed(seed())?;
                }
                Key::ToolCallId => {
                    once(3, "tool_call_id");
                    message.tool_call_id = object.next_value_seed(seed())?;
                }
                Key::ToolCalls => {
                    once(4, "tool_calls");
                    message.tool_calls = object.next_value()?;
                }
                Key::FunctionCall => {
                    message.has_function_call |= !object.next_value_seed(seed::<Text>())?.is_absent();
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
        if self.has_function_call {
            return Err("\"function_call\" is not supported: say \"tool_calls\"".into());
        }
        let role = self.role.needed("role")?;
        let Some(role) = Role::parse(&role) else {
            let shown = if role.chars().count() > 64 { "a long string".into() } else { format!("{role:?}") };
            return Err(format!("\"role\" is {shown}; system, user, assistant or tool expected"));
        };
        let tool_calls = tool_calls(self.tool_calls)?;
        if !tool_calls.is_empty() && role != Role::Assistant {
            return Err(format!("\"tool_calls\" is an assistant's, and \"role\" is \"{}\"", role.name()));
        }
        let mut parts = self.content.parts(!tool_calls.is_empty())?;
        let content = parts.join("\n");
        if parts.len() < 2 {
            parts.clear();
        }
        let name = self.name.optional("name")?;
        let tool_call_id = self.tool_call_id.optional("tool_call_id")?;
        Ok(Message { role, content, parts, name, tool_calls, tool_call_id })
    }
}

/// What is said: a string, or a list of text parts.
#[derive(Debug, Default)]
enum Content {
    #[default]
    Absent,
    Parts(Vec<String>),
    /// The first part that is none, counted from 0, and why.
    Part(usize, String),
    Other(String),
}

impl Shape for Content {
    fn null() -> Self {
        Content::Absent
    }

    fn other(shown: String) -> Self {
        Content::Other(shown)
    }

    fn text(text: &str) -> Self {
        Content::Parts(vec![text.to_string()])
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let (mut parts, mut wrong) = (Vec::new(), None);
        while let Some(part) = list.next_element_seed(seed::<ContentPart>())? {
            match part.text() {
                _ if wrong.is_some() => {}
                Ok(text) => parts.push(text),
                Err(why) => wrong = Some((parts.len(), why)),
            }
        }
        Ok(match wrong {
            None => Content::Parts(parts),
            Some((at, why)) => Content::Part(at, why),
        })
    }
}

impl Content {
    /// `may_be_absent`: beside calls of functions.
    fn parts(self, may_be_absent: bool) -> Result<Vec<String>, String> {
        match self {
            Content::Absent if may_be_absent => Ok(Vec::new()),
            Content::Absent => Err("\"content\" is missing".into()),
            Content::Parts(parts) => Ok(parts),
            Content::Part(at, why) => Err(format!("\"content\"[{at}] {why}")),
            Content::Other(shown) => Err(format!("\"content\" is {shown}; a string or a list of text parts is needed")),
        }
    }
}

/// A value that should be `{"type": "text", "text": ".."}`; a string alone is as good.
#[derive(Debug, Default)]
struct ContentPart {
    kind: Text,
    text: Text,
    other: Option<String>,
}

impl Shape for ContentPart {
    fn null() -> Self {
        ContentPart::other("null".into())
    }

    fn other(shown: String) -> Self {
        ContentPart { other: Some(shown), ..ContentPart::default() }
    }

    fn text(text: &str) -> Self {
        ContentPart { text: Text::Is(text.to_string()), ..ContentPart::default() }
    }

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut part = ContentPart::default();
        while let Some(key) = object.next_key::<std::borrow::Cow<'de, str>>()? {
            match key.as_ref() {
                "type" => part.kind = object.next_value_seed(seed())?,
                "text" => part.text = object.next_value_seed(seed())?,
                _ => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(part)
    }
}

impl ContentPart {
    fn text(self) -> Result<String, String> {
        if let Some(shown) = self.other {
            return Err(format!("is {shown}; a text part is needed"));
        }
        match self.kind.optional("type") {
            Ok(None) => {}
            Ok(Some(kind)) if kind == "text" => {}
            Ok(Some(kind)) => {
                let kind: String = kind.chars().take(64).collect();
                return Err(format!("is of type {kind:?}; this model reads text alone"));
            }
            Err(why) => return Err(format!("has a part whose {why}")),
        }
        self.text.needed("text").map_err(|why| format!("has a part whose {why}"))
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
    fn parts_calls_and_results_are_read() {
        let text = r#"[{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",
                "function": {"name": "f", "arguments": "{\"x\": [1]}"}}, {"name": "g", "arguments": {}}]},
            {"role": "tool", "content": [{"type": "text", "text": "c"}], "tool_call_id": "1", "name": "f"}]"#;
        let messages = read(text).unwrap();
        assert_eq!((messages[0].content.as_str(), messages[0].parts.len()), ("a\nb", 2));
        let calls: Vec<String> =
            messages[1].tool_calls.iter().map(|c| format!("{:?} {} {}", c.id, c.name, c.arguments)).collect();
        assert_eq!(calls, [r#"Some("1") f {"x":[1]}"#, "None g {}"]);
        assert_eq!((messages[1].content.as_str(), messages[2].parts.len()), ("", 0));
        let got = (messages[2].content.as_str(), messages[2].tool_call_id.as_deref(), messages[2].name.as_deref());
        assert_eq!(got, ("c", Some("1"), Some("f")));
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
            (
                r#"[{"role": "user", "content": 2}]"#,
                "message 1: \"content\" is 2; a string or a list of text parts is needed",
            ),
            (
                r#"[{"role": "user", "content": ["a", {"type": "image", "url": "x"}]}]"#,
                "message 1: \"content\"[1] is of type \"image\"; this model reads text alone",
            ),
            (r#"[{"role": "user", "content": [3]}]"#, "message 1: \"content\"[0] is 3; a text part is needed"),
            (
                r#"[{"role": "user", "content": [{"type": "text"}]}]"#,
                "message 1: \"content\"[0] has a part whose \"text\" is missing",
            ),
            (
                r#"[{"role": "user", "content": "", "tool_calls": [{"name": "f"}]}]"#,
                "message 1: \"tool_calls\" is an assistant's, and \"role\" is \"user\"",
            ),
            (
                r#"[{"role": "assistant", "tool_calls": {}}]"#,
                "message 1: \"tool_calls\" is {}; a list of calls is needed",
            ),
            (r#"[{"role": "assistant", "tool_calls": [1]}]"#, "message 1: \"tool_calls\"[0] is 1; an object is needed"),
            (
                r#"[{"role": "assistant", "tool_calls": [{"function": {}}]}]"#,
                "message 1: \"tool_calls\"[0] has no \"name\" of a function",
            ),
            (
                r#"[{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "x"}]}]"#,
                "message 1: \"tool_calls\"[0] has \"arguments\" that are no JSON object: \"x\"",
            ),
            (
                r#"[{"role": "user", "content": ""}, {"role": "cat", "content": ""}]"#,
                "message 2: \"role\" is \"cat\"; system, user, assistant or tool expected",
            ),
            (r#"[{"role": "user", "role": "user", "content": "twice"}]"#, "message 1: \"role\" stands twice"),
            (
                r#"[{"role": "assistant", "content": "", "function_call": {}}]"#,
                "message 1: \"function_call\" is not supported: say \"tool_calls\"",
            ),
        ] {
            assert_eq!(read(text), Err(want.to_string()), "{text}");
        }
    }
}
