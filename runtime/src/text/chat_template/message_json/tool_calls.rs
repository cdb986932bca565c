//! Calls of functions in a message.

use serde_json::{Map, Value};

use serde::de::{MapAccess, SeqAccess};

use crate::files::formats::json_shape::{seed, Shape, Text};
use crate::text::chat_template::ToolCall;

/// Most calls of a message.
const CALLS_MAX: usize = 128;

/// A value that should be a list of calls.
#[derive(Debug, Default)]
pub(super) enum CallList {
    #[default]
    Absent,
    Are(Vec<Result<ToolCall, String>>),
    Other(String),
}

impl Shape for CallList {
    fn null() -> Self {
        CallList::Absent
    }

    fn other(shown: String) -> Self {
        CallList::Other(format!("is {shown}; an array is needed"))
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let (mut calls, mut n) = (Vec::new(), 0);
        while let Some(call) = list.next_element_seed(seed::<Call>())? {
            n += 1;
            if n <= CALLS_MAX {
                calls.push(call.call());
            }
        }
        Ok(match n > CALLS_MAX {
            true => CallList::Other(format!("has {n} calls; at most {CALLS_MAX}")),
            false => CallList::Are(calls),
        })
    }
}

impl CallList {
    /// The calls, none when absent. # Errors: one of them is no call.
    pub fn calls(self) -> Result<Vec<ToolCall>, String> {
        match self {
            CallList::Absent => Ok(Vec::new()),
            CallList::Other(what) => Err(format!("\"tool_calls\" {what}")),
            CallList::Are(calls) => {
                let numbered = calls.into_iter().enumerate();
                numbered.map(|(i, call)| call.map_err(|e| format!("tool call {}: {e}", i + 1))).collect()
            }
        }
    }
}

/// `{"id": .., "type": "function", "function": {"name": .., "arguments": ..}}`, or what is inside alone.
#[derive(Debug, Default)]
struct Call {
    id: Text,
    name: Text,
    arguments: Value,
    function: Option<Box<Call>>,
    other: Option<String>,
}

impl Shape for Call {
    fn null() -> Self {
        Call::other("null".into())
    }

    fn other(shown: String) -> Self {
        Call { other: Some(shown), ..Call::default() }
    }

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut call = Call::default();
        while let Some(key) = object.next_key::<String>()? {
            match key.as_str() {
                "id" => call.id = object.next_value_seed(seed())?,
                "name" => call.name = object.next_value_seed(seed())?,
                "arguments" => call.arguments = object.next_value()?,
                "function" => call.function = Some(Box::new(object.next_value_seed(seed())?)),
                _ => drop(object.next_value::<serde::de::IgnoredAny>()?),
            }
        }
        Ok(call)
    }
}

impl Call {
    fn call(self) -> Result<ToolCall, String> {
        if let Some(shown) = self.other {
            return Err(format!("is {shown}; an object is needed"));
        }
        let id = self.id.optional("id")?;
        match self.function {
            Some(function) => Ok(ToolCall { id, ..(*function).call()? }),
            None => {
                let name = self.name.needed("name")?;
                Ok(ToolCall { id, name, arguments: arguments(self.arguments)? })
            }
        }
    }
}

/// An object, as templates want it; the API writes it as a string.
fn arguments(value: Value) -> Result<Value, String> {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Value::Null => Value::Object(Map::new()),
        other => other,
    };
    match value {
        Value::Object(_) => Ok(value),
        _ => Err("\"arguments\" is no JSON object".into()),
    }
}

/// The call, or the list of calls, that a text is.
///
/// # Errors
/// It is no JSON, or no call.
pub(super) fn call_of(text: &str) -> Result<Vec<ToolCall>, String> {
    let no_call = |_| "a call is not written as JSON: {\"name\": \"..\", \"arguments\": {..}}".to_string();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let read = |text: &mut serde_json::Deserializer<_>, is_list| {
        use serde::de::DeserializeSeed;
        match is_list {
            true => seed::<CallList>().deserialize(text),
            false => seed::<Call>().deserialize(text).map(|call| CallList::Are(vec![call.call()])),
        }
    };
    let is_list = text.trim_start().starts_with('[');
    let list = read(&mut deserializer, is_list).map_err(no_call)?;
    deserializer.end().map_err(no_call)?;
    list.calls()
}
