//! What the values of a row's keys should be, beyond texts, numbers and messages.

use lichen_runtime::files::formats::json_shape::{seed, Shape, Text};
use serde::de::{IgnoredAny, SeqAccess};

/// A mask: an array of 0 and 1, or of false and true.
#[derive(Debug, Default)]
pub(super) enum Mask {
    #[default]
    Absent,
    Is(Vec<bool>),
    /// The first item that is none, counted from 0.
    Item(usize, String),
    Other(String),
}

impl Shape for Mask {
    fn null() -> Self {
        Mask::Absent
    }

    fn other(shown: String) -> Self {
        Mask::Other(shown)
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let (mut items, mut wrong) = (Vec::new(), None);
        while let Some(item) = list.next_element_seed(seed::<MaskItem>())? {
            match item {
                _ if wrong.is_some() => {}
                MaskItem::Is(on) => items.push(on),
                MaskItem::Other(shown) => wrong = Some((items.len(), shown)),
            }
        }
        Ok(match wrong {
            None => Mask::Is(items),
            Some((at, shown)) => Mask::Item(at, shown),
        })
    }
}

impl Mask {
    /// The mask, of `n` items; `None` when absent. # Errors: it is something else, or of another length.
    pub fn of(self, name: &str, n: usize) -> Result<Option<Vec<bool>>, String> {
        match self {
            Mask::Absent => Ok(None),
            Mask::Is(items) if items.len() == n => Ok(Some(items)),
            Mask::Is(items) => Err(super::build::other_length(name, items.len(), n)),
            Mask::Item(at, shown) => Err(format!("\"{name}\"[{at}] is {shown}; 0 or 1 is needed")),
            Mask::Other(shown) => Err(format!("\"{name}\" is {shown}; an array of 0 and 1 is needed")),
        }
    }
}

enum MaskItem {
    Is(bool),
    Other(String),
}

impl Shape for MaskItem {
    fn null() -> Self {
        MaskItem::Other("null".into())
    }

    /// Booleans come shown.
    fn other(shown: String) -> Self {
        match shown.as_str() {
            "false" => MaskItem::Is(false),
            "true" => MaskItem::Is(true),
            _ => MaskItem::Other(shown),
        }
    }

    fn text(text: &str) -> Self {
        MaskItem::Other(format!("{:?}", text.chars().take(20).collect::<String>()))
    }

    fn integer(n: i64) -> Self {
        match n {
            0 => MaskItem::Is(false),
            1 => MaskItem::Is(true),
            _ => MaskItem::Other(n.to_string()),
        }
    }
}

/// Turns before a question, as LLaMA-Factory writes them: `[["a question", "its answer"], ..]`.
#[derive(Debug, Default)]
pub(super) enum History {
    #[default]
    Absent,
    Is(Vec<[String; 2]>),
    Other(String),
}

impl Shape for History {
    fn null() -> Self {
        History::Absent
    }

    fn other(shown: String) -> Self {
        History::Other(format!("is {shown}; an array of pairs is needed"))
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let (mut pairs, mut wrong, mut n) = (Vec::new(), None, 0);
        while let Some(pair) = list.next_element_seed(seed::<Pair>())? {
            n += 1;
            match pair {
                Pair(Ok(pair)) if pairs.len() < super::TURNS_MAX / 2 => pairs.push(pair),
                Pair(Ok(_)) => wrong = wrong.or(Some(format!("has more than {} pairs", super::TURNS_MAX / 2))),
                Pair(Err(what)) => {
                    wrong = wrong.or(Some(format!("has {what} as item {n}; [question, answer] is needed")))
                }
            }
        }
        Ok(wrong.map_or(History::Is(pairs), History::Other))
    }
}

struct Pair(Result<[String; 2], String>);

impl Shape for Pair {
    fn null() -> Self {
        Pair(Err("null".into()))
    }

    fn other(shown: String) -> Self {
        Pair(Err(shown))
    }

    fn list<'de, A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let (first, second) = (list.next_element_seed(seed::<Text>())?, list.next_element_seed(seed::<Text>())?);
        let mut is_longer = false;
        while list.next_element::<IgnoredAny>()?.is_some() {
            is_longer = true;
        }
        Ok(Pair(match (first, second) {
            (Some(Text::Is(question)), Some(Text::Is(answer))) if !is_longer => Ok([question, answer]),
            _ => Err("an array that is no pair of strings".into()),
        }))
    }
}
