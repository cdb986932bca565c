//! The text of a message: a string, or a list of parts.

use serde::de::{MapAccess, SeqAccess};

use crate::files::formats::json_shape::{seed, show_text, Presence, Shape, Text};

/// A value that should be a text.
#[derive(Debug, Default)]
pub(super) enum Content {
    #[default]
    Absent,
    /// Its parts; a string is one.
    Are(Vec<String>),
    /// Something else, as a message shows it.
    Other(String),
    /// A part that is no text, in words.
    Part(String),
}

impl Shape for Content {
    fn null() -> Self {
        Content::Absent
    }

    fn other(shown: String) -> Self {
        Content::Other(shown)
    }

    fn text(text: &str) -> Self {
        Content::Are(vec![text.to_string()])
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let (mut parts, mut wrong, mut n) = (Vec::new(), None, 0);
        while let Some(part) = list.next_element_seed(seed::<Part>())? {
            n += 1;
            match part {
                _ if wrong.is_some() => {}
                Part::Text(text) => parts.push(text),
                Part::Other(what) => wrong = Some(format!("part {n} of \"content\" {what}; only text is supported")),
            }
        }
        Ok(wrong.map_or(Content::Are(parts), Content::Part))
    }
}

impl Content {
    /// The one that is there.
    pub fn or(self, other: Content) -> Content {
        if matches!(self, Content::Absent) {
            other
        } else {
            self
        }
    }

    /// The parts; `None` when absent. # Errors: it is something else.
    pub fn optional(self, name: &str) -> Result<Option<Vec<String>>, String> {
        match self {
            Content::Absent => Ok(None),
            Content::Are(parts) => Ok(Some(parts)),
            Content::Other(shown) => Err(format!("\"{name}\" is {shown}; a string is needed")),
            Content::Part(what) => Err(what),
        }
    }

    /// # Errors: it is absent, or no text.
    pub fn needed(self, name: &str) -> Result<Vec<String>, String> {
        self.optional(name)?.ok_or_else(|| format!("\"{name}\" is missing"))
    }
}

/// One part: `{"type": "text", "text": ".."}`, or a string.
enum Part {
    Text(String),
    /// What it is instead.
    Other(String),
}

impl Shape for Part {
    fn null() -> Self {
        Part::Other("is null".into())
    }

    fn other(shown: String) -> Self {
        Part::Other(format!("is {shown}"))
    }

    fn text(text: &str) -> Self {
        Part::Text(text.to_string())
    }

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let (mut kind, mut text, mut other) = (Text::Absent, Text::Absent, None);
        while let Some(key) = object.next_key::<String>()? {
            match key.as_str() {
                "type" => kind = object.next_value_seed(seed())?,
                "text" => text = object.next_value_seed(seed())?,
                _ => {
                    let value: Presence = object.next_value_seed(seed())?;
                    // Where each part has the columns of all, those of other kinds are null.
                    other = other.or((value == Presence::Full).then_some(key));
                }
            }
        }
        Ok(match (kind, text, other) {
            (Text::Is(kind), _, _) if !["text", "input_text", "output_text"].contains(&kind.as_str()) => {
                Part::Other(format!("is of type {}", show_text(&kind)))
            }
            (Text::Other(shown), _, _) => Part::Other(format!("has the type {shown}")),
            (_, Text::Is(text), None | Some(_)) => Part::Text(text),
            (_, _, Some(key)) => Part::Other(format!("holds {}", show_text(&key))),
            (_, _, None) => Part::Other("has no text".into()),
        })
    }
}
