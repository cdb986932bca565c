//! The big parts of `tokenizer.json`, read without an intermediate tree: 262k pieces and twice as many merges.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The second pass over the file: what [`super::json_parts`] skips.
#[derive(Deserialize)]
pub(super) struct Body {
    #[serde(default)]
    pub added_tokens: Vec<AddedToken>,
    pub model: Model,
}

#[derive(Deserialize)]
pub(super) struct Model {
    #[serde(deserialize_with = "unique_vocab")]
    pub vocab: Vec<(String, u32)>,
    pub merges: Vec<Merge>,
}

#[derive(Deserialize)]
pub(super) struct AddedToken {
    pub id: u32,
    pub content: String,
    #[serde(default)]
    pub single_word: bool,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    #[serde(default)]
    pub normalized: bool,
    #[serde(default)]
    pub special: bool,
}

/// Older files write `"a b"`, newer ones `["a", "b"]`.
pub(super) enum Merge {
    Pair(String, String),
    Text(String),
}

impl<'de> Deserialize<'de> for Merge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MergeVisitor;
        impl<'de> Visitor<'de> for MergeVisitor {
            type Value = Merge;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a merge, \"a b\" or [\"a\", \"b\"]")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge, E> {
                Ok(Merge::Text(text.to_string()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge, A::Error> {
                let left = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let right = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                if seq.next_element::<de::IgnoredAny>()?.is_some() {
                    return Err(de::Error::invalid_length(3, &self));
                }
                Ok(Merge::Pair(left, right))
            }
        }
        deserializer.deserialize_any(MergeVisitor)
    }
}

/// A JSON object in file order; a piece that appears twice is an error, not a silent overwrite.
fn unique_vocab<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, u32)>, D::Error> {
    struct VocabVisitor;
    impl<'de> Visitor<'de> for VocabVisitor {
        type Value = Vec<(String, u32)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a vocabulary: an object from piece to id")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut vocab: Vec<(String, u32)> = Vec::new();
            while let Some(entry) = map.next_entry()? {
                vocab.push(entry);
            }
            let mut seen = HashSet::with_capacity(vocab.len());
            if let Some((text, _)) = vocab.iter().find(|(text, _)| !seen.insert(text.as_str())) {
                return Err(de::Error::custom(format!("token {} appears twice", super::blueprint::quoted(text))));
            }
            Ok(vocab)
        }
    }
    deserializer.deserialize_map(VocabVisitor)
}
