//! The keys that a row can have, and their values as they are read.

use lichen_runtime::files::formats::json_shape::{seed, Integers, Presence, Shape, Text};
use lichen_runtime::text::chat_template::message_json::MessageList;
use serde::de::MapAccess;
use serde_json::Value;

use super::shapes::{History, Mask};
use super::TURNS_MAX;

/// Longest name of a key that is kept for being named, and how many of a row.
const UNUSED_BYTES_MAX: usize = 64;
const UNUSED_MAX: usize = 32;

/// How the value of a key is read.
#[derive(Clone, Copy, Debug)]
enum Read {
    Integers,
    Mask,
    Messages,
    Text,
    History,
    Json,
    /// What cannot be used; the end of a sentence that begins with the key.
    Refused(&'static str),
}

/// Every key that means something here. What is refused would change what is trained.
const KEYS: [(&str, Read); 39] = [
    ("input_ids", Read::Integers),
    ("labels", Read::Integers),
    ("position_ids", Read::Integers),
    ("attention_mask", Read::Mask),
    ("completion_mask", Read::Mask),
    ("assistant_masks", Read::Mask),
    ("loss_mask", Read::Mask),
    ("messages", Read::Messages),
    ("conversations", Read::Messages),
    ("conversation", Read::Messages),
    ("instruction", Read::Messages),
    ("prompt", Read::Messages),
    ("question", Read::Messages),
    ("query", Read::Messages),
    ("output", Read::Messages),
    ("completion", Read::Messages),
    ("answer", Read::Messages),
    ("response", Read::Messages),
    ("input", Read::Text),
    ("context", Read::Text),
    ("system", Read::Text),
    ("system_prompt", Read::Text),
    ("text", Read::Text),
    ("history", Read::History),
    ("tools", Read::Json),
    ("functions", Read::Refused("is not supported: write them as \"tools\"")),
    ("function_call", Read::Refused("is not supported: write it as a message's \"tool_calls\"")),
    ("documents", Read::Refused("is not supported: write them into a message")),
    ("chat_template_kwargs", Read::Refused("is not supported")),
    ("chosen", Read::Refused(PREFERENCE)),
    ("rejected", Read::Refused(PREFERENCE)),
    ("seq_lengths", Read::Refused("is of several samples in one row, which is not supported: write a row for each")),
    ("image", Read::Refused(TEXT_ALONE)),
    ("images", Read::Refused(TEXT_ALONE)),
    ("audio", Read::Refused(TEXT_ALONE)),
    ("audios", Read::Refused(TEXT_ALONE)),
    ("video", Read::Refused(TEXT_ALONE)),
    ("videos", Read::Refused(TEXT_ALONE)),
    ("pixel_values", Read::Refused(TEXT_ALONE)),
];

const PREFERENCE: &str = "is of a preference pair, which is not supported: write the wanted answer as \"completion\"";
const TEXT_ALONE: &str = "is not supported: these models are trained on text alone";

/// A value that was there and not null.
#[derive(Debug)]
pub(super) enum Found {
    Integers(Integers),
    Mask(Mask),
    Messages(MessageList<TURNS_MAX>),
    Text(Text),
    History(History),
    Json(Value),
    Refused(&'static str),
}

/// The object that a row is.
#[derive(Debug, Default)]
pub(super) struct Fields {
    found: Vec<(&'static str, Found)>,
    /// Keys that mean nothing here, and say something.
    pub unknown: Vec<String>,
    /// A key that stands more than once.
    pub twice: Option<&'static str>,
    /// What the row is instead of an object.
    pub other: Option<String>,
}

impl Shape for Fields {
    fn null() -> Self {
        Fields::other("null".into())
    }

    fn other(shown: String) -> Self {
        Fields { other: Some(shown), ..Fields::default() }
    }

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut fields = Fields::default();
        let mut seen = [false; KEYS.len()];
        while let Some(key) = object.next_key::<String>()? {
            let Some(i) = KEYS.iter().position(|(name, _)| *name == key) else {
                let value: Presence = object.next_value_seed(seed())?;
                if value != Presence::Absent {
                    fields.leave(key);
                }
                continue;
            };
            let (name, read) = KEYS[i];
            if std::mem::replace(&mut seen[i], true) {
                fields.twice.get_or_insert(name);
            }
            if let Some(found) = read.value(&mut object)? {
                fields.found.push((name, found));
            }
        }
        Ok(fields)
    }
}

impl Read {
    /// The next value; `None` where it says nothing.
    fn value<'de, A: MapAccess<'de>>(self, object: &mut A) -> Result<Option<Found>, A::Error> {
        Ok(match self {
            Read::Integers => {
                let value: Integers = object.next_value_seed(seed())?;
                (!value.is_absent()).then_some(Found::Integers(value))
            }
            Read::Mask => {
                let value: Mask = object.next_value_seed(seed())?;
                (!matches!(value, Mask::Absent)).then_some(Found::Mask(value))
            }
            Read::Messages => {
                let value: MessageList<TURNS_MAX> = object.next_value_seed(seed())?;
                (!value.is_absent()).then_some(Found::Messages(value))
            }
            Read::Text => {
                let value: Text = object.next_value_seed(seed())?;
                (!value.is_absent()).then_some(Found::Text(value))
            }
            Read::History => {
                let value: History = object.next_value_seed(seed())?;
                (!matches!(value, History::Absent)).then_some(Found::History(value))
            }
            Read::Json => {
                let value: Value = object.next_value()?;
                (!value.is_null()).then_some(Found::Json(value))
            }
            Read::Refused(why) => {
                let value: Presence = object.next_value_seed(seed())?;
                (value == Presence::Full).then_some(Found::Refused(why))
            }
        })
    }
}

impl Fields {
    pub fn has(&self, name: &str) -> bool {
        self.found.iter().any(|(found, _)| *found == name)
    }

    /// The first of these keys that is there.
    pub fn first_of(&self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().copied().find(|name| self.has(name))
    }

    fn take(&mut self, name: &str) -> Option<Found> {
        let at = self.found.iter().position(|(found, _)| *found == name)?;
        Some(self.found.remove(at).1)
    }

    pub fn integers(&mut self, name: &str) -> Result<Option<Vec<i32>>, String> {
        match self.take(name) {
            Some(Found::Integers(value)) => value.optional(name),
            _ => Ok(None),
        }
    }

    /// A mask of `n` items.
    pub fn mask(&mut self, name: &str, n: usize) -> Result<Option<Vec<bool>>, String> {
        match self.take(name) {
            Some(Found::Mask(value)) => value.of(name, n),
            _ => Ok(None),
        }
    }

    pub fn messages(&mut self, name: &str) -> MessageList<TURNS_MAX> {
        match self.take(name) {
            Some(Found::Messages(value)) => value,
            _ => MessageList::Absent,
        }
    }

    pub fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            Some(Found::Text(value)) => value.optional(name),
            _ => Ok(None),
        }
    }

    pub fn history(&mut self) -> Result<Vec<[String; 2]>, String> {
        match self.take("history") {
            Some(Found::History(History::Is(pairs))) => Ok(pairs),
            Some(Found::History(History::Other(what))) => Err(format!("\"history\" {what}")),
            _ => Ok(Vec::new()),
        }
    }

    pub fn json(&mut self, name: &str) -> Option<Value> {
        match self.take(name) {
            Some(Found::Json(value)) => Some(value),
            _ => None,
        }
    }

    /// The first key that cannot be used, and why.
    pub fn refused(&self) -> Option<(&'static str, &'static str)> {
        self.found.iter().find_map(|(name, found)| match found {
            Found::Refused(why) => Some((*name, *why)),
            _ => None,
        })
    }

    /// Notes a key that is not used.
    pub fn leave(&mut self, key: String) {
        if key.len() <= UNUSED_BYTES_MAX && self.unknown.len() < UNUSED_MAX && !self.unknown.contains(&key) {
            self.unknown.push(key);
        }
    }

    /// What was not used: keys that mean nothing here, and those that were not taken.
    pub fn unused(self) -> Vec<String> {
        self.unknown.into_iter().chain(self.found.into_iter().map(|(name, _)| name.to_string())).collect()
    }
}
