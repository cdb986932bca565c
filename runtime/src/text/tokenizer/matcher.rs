//! Finds added tokens in text: leftmost first, longest wins, as Hugging Face and llama.cpp do.

use std::collections::HashMap;

/// Added tokens by text, with the lengths to try at each first byte: 6,400 of Gemma's start with `<`, but they have
/// only some twenty lengths, so one position costs at most that many lookups.
#[derive(Debug)]
pub(super) struct Matcher {
    ids: HashMap<Box<[u8]>, u32>,
    /// By first byte: the distinct lengths, longest first.
    lengths: Vec<Vec<u16>>,
}

impl Matcher {
    /// Empty texts are ignored; texts are shorter than [`super::pieces::PIECE_BYTES_MAX`].
    pub fn new<'a>(tokens: impl Iterator<Item = (&'a str, u32)>) -> Self {
        let mut matcher = Matcher { ids: HashMap::new(), lengths: vec![Vec::new(); 256] };
        for (text, id) in tokens {
            let (Some(&first), Ok(length)) = (text.as_bytes().first(), u16::try_from(text.len())) else {
                continue;
            };
            matcher.ids.insert(text.as_bytes().into(), id);
            let lengths = &mut matcher.lengths[first as usize];
            if let Err(at) = lengths.binary_search_by(|l| length.cmp(l)) {
                lengths.insert(at, length);
            }
        }
        matcher
    }

    /// The id of exactly this text.
    pub fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text.as_bytes()).copied()
    }

    /// The first token at or after `from`: `(start, end, id)`.
    pub fn find(&self, text: &str, from: usize) -> Option<(usize, usize, u32)> {
        let bytes = text.as_bytes();
        for start in from..bytes.len() {
            for &length in &self.lengths[bytes[start] as usize] {
                let end = start + length as usize;
                if let Some(&id) = bytes.get(start..end).and_then(|slice| self.ids.get(slice)) {
                    return Some((start, end, id));
                }
            }
        }
        None
    }
}
