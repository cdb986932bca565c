//! JSON values of any type, read straight into what they should be, or into how a message shows them: no tree is built,
//! and a wrong type is no syntax error.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a value should be. Types that a shape does not read become [`Shape::other`].
pub trait Shape: Sized {
    /// Null, which counts as absent.
    fn null() -> Self;

    /// A value of another type, as a message shows it: short.
    fn other(shown: String) -> Self;

    fn text(text: &str) -> Self {
        Self::other(show_text(text))
    }

    fn integer(n: i64) -> Self {
        Self::other(n.to_string())
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::other("an array".into()))
    }

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::other("an object".into()))
    }
}

/// A text in a message: short.
pub fn show_text(text: &str) -> String {
    match text.chars().count() > 64 {
        true => "a long string".into(),
        false => format!("{text:?}"),
    }
}

/// Reads a value of shape `S`.
pub fn seed<S: Shape>() -> Seed<S> {
    Seed(PhantomData)
}

pub struct Seed<S>(PhantomData<S>);

impl<'de, S: Shape> DeserializeSeed<'de> for Seed<S> {
    type Value = S;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, S: Shape> Visitor<'de> for Seed<S> {
    type Value = S;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<S, E> {
        Ok(S::null())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<S, E> {
        Ok(S::other(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<S, E> {
        Ok(S::integer(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<S, E> {
        Ok(i64::try_from(value).map_or_else(|_| S::other(value.to_string()), S::integer))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<S, E> {
        // With a point or an exponent, so that 1.0 is not shown as the integer it is not.
        Ok(S::other(format!("{value:?}")))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<S, E> {
        Ok(S::text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<S, A::Error> {
        S::list(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<S, A::Error> {
        S::object(object)
    }
}

/// A string.
#[derive(Debug, Default)]
pub enum Text {
    #[default]
    Absent,
    Is(String),
    Other(String),
}

impl Shape for Text {
    fn null() -> Self {
        Text::Absent
    }

    fn other(shown: String) -> Self {
        Text::Other(shown)
    }

    fn text(text: &str) -> Self {
        Text::Is(text.to_string())
    }
}

impl Text {
    pub fn is_absent(&self) -> bool {
        matches!(self, Text::Absent)
    }

    /// The one that is there.
    pub fn or(self, other: Text) -> Text {
        if self.is_absent() {
            other
        } else {
            self
        }
    }

    /// The string; `None` when absent. # Errors: it is something else.
    pub fn optional(self, name: &str) -> Result<Option<String>, String> {
        match self {
            Text::Absent => Ok(None),
            Text::Is(text) => Ok(Some(text)),
            Text::Other(shown) => Err(format!("\"{name}\" is {shown}; a string is needed")),
        }
    }

    /// # Errors: it is absent, or something else than a string.
    pub fn needed(self, name: &str) -> Result<String, String> {
        self.optional(name)?.ok_or_else(|| format!("\"{name}\" is missing"))
    }
}

/// Whether a value says anything, whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Not there, or null.
    #[default]
    Absent,
    /// A string, an array or an object without anything in it.
    Empty,
    Full,
}

impl Shape for Presence {
    fn null() -> Self {
        Presence::Absent
    }

    fn other(_: String) -> Self {
        Presence::Full
    }

    fn text(text: &str) -> Self {
        Presence::of(text.is_empty())
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut is_empty = true;
        while list.next_element::<IgnoredAny>()?.is_some() {
            is_empty = false;
        }
        Ok(Presence::of(is_empty))
    }

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut is_empty = true;
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            is_empty = false;
        }
        Ok(Presence::of(is_empty))
    }
}

impl Presence {
    fn of(is_empty: bool) -> Presence {
        if is_empty {
            Presence::Empty
        } else {
            Presence::Full
        }
    }
}

/// An array of integers of 32 bits.
#[derive(Debug, Default)]
pub enum Integers {
    #[default]
    Absent,
    Are(Vec<i32>),
    /// The first item that is none, counted from 0.
    Item(usize, String),
    Other(String),
}

impl Shape for Integers {
    fn null() -> Self {
        Integers::Absent
    }

    fn other(shown: String) -> Self {
        Integers::Other(shown)
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut numbers = Vec::new();
        let mut wrong = None;
        while let Some(item) = list.next_element_seed(seed::<Integer>())? {
            match item {
                _ if wrong.is_some() => {}
                Integer::Is(n) => numbers.push(n),
                Integer::Other(shown) => wrong = Some((numbers.len(), shown)),
            }
        }
        Ok(match wrong {
            None => Integers::Are(numbers),
            Some((at, shown)) => Integers::Item(at, shown),
        })
    }
}

impl Integers {
    pub fn is_absent(&self) -> bool {
        matches!(self, Integers::Absent)
    }

    /// The numbers; `None` when absent. # Errors: it is something else.
    pub fn optional(self, name: &str) -> Result<Option<Vec<i32>>, String> {
        match self {
            Integers::Absent => Ok(None),
            Integers::Are(numbers) => Ok(Some(numbers)),
            Integers::Item(at, shown) => Err(format!("\"{name}\"[{at}] is {shown}; a token id is needed")),
            Integers::Other(shown) => Err(format!("\"{name}\" is {shown}; an array of token ids is needed")),
        }
    }
}

enum Integer {
    Is(i32),
    Other(String),
}

impl Shape for Integer {
    fn null() -> Self {
        Integer::Other("null".into())
    }

    fn other(shown: String) -> Self {
        Integer::Other(shown)
    }

    fn integer(n: i64) -> Self {
        i32::try_from(n).map_or_else(|_| Integer::Other(n.to_string()), Integer::Is)
    }
}
