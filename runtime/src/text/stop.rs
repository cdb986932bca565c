//! Where an answer ends: stop strings in streamed text, and stop ids.

use crate::error::{Error, Result};
use crate::setting::STOP;

/// More, or longer ones, would make every character of an answer wait.
const STRINGS_MAX: usize = 16;
const STRING_BYTES_MAX: usize = 1024;

/// Watches a stream of text for stop strings. Text that could still turn into one is held back, so no part of a stop
/// string is ever shown.
#[derive(Clone, Debug)]
pub struct StopStrings {
    strings: Vec<String>,
    held: String,
    stopped: bool,
}

impl StopStrings {
    pub fn new(strings: Vec<String>) -> Result<Self> {
        StopStrings::check(&strings)?;
        Ok(StopStrings { strings, held: String::new(), stopped: false })
    }

    /// Refuses what [`StopStrings::new`] does.
    pub(crate) fn check(strings: &[String]) -> Result<()> {
        if strings.len() > STRINGS_MAX {
            return Err(Error::usage(format!("{STOP} is given {} times; at most {STRINGS_MAX}", strings.len())));
        }
        for string in strings {
            if string.is_empty() || string.len() > STRING_BYTES_MAX {
                return Err(Error::usage(format!("{STOP} is {} bytes long; 1 to {STRING_BYTES_MAX}", string.len())));
            }
        }
        Ok(())
    }

    /// Takes the next piece of text and returns what may be shown now. After a stop string nothing more comes.
    pub fn push(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        if self.strings.is_empty() {
            return text.to_string();
        }
        self.held.push_str(text);
        // The one that is complete first, and of two that end together the longer: so the result does not depend on
        // how the text was cut into pieces.
        let found = self.strings.iter().filter_map(|string| {
            let start = self.held.find(string.as_str())?;
            Some((start + string.len(), start))
        });
        if let Some((_, at)) = found.min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let keep = self.longest_open_suffix();
        let tail = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, tail)
    }

    /// What was held back, when no more text comes and no stop string completed.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// Forgets the text, for the next answer.
    pub fn reset(&mut self) {
        self.held.clear();
        self.stopped = false;
    }

    /// Length of the longest end of the held text that begins a stop string.
    fn longest_open_suffix(&self) -> usize {
        let held = self.held.as_str();
        let begins = |start: usize| self.strings.iter().any(|string| string.starts_with(&held[start..]));
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let from = held.len().saturating_sub(longest);
        (from..held.len()).find(|&start| held.is_char_boundary(start) && begins(start)).map_or(0, |at| held.len() - at)
    }
}

/// Ids that end an answer: every end token that the model's files name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StopIds(Vec<u32>);

impl StopIds {
    /// Duplicates are fine.
    pub fn new(mut ids: Vec<u32>) -> Self {
        ids.sort_unstable();
        ids.dedup();
        StopIds(ids)
    }

    /// What the tokenizer can tell: its end of sequence, and the turn ends of Gemma and ChatML where it has them.
    /// Files name one of them or the other, and generating past either runs into a turn the model invents.
    pub fn from_tokenizer(tokenizer: &crate::text::tokenizer::Tokenizer, named_by_model: &[u32]) -> Self {
        const TURN_ENDS: [&str; 5] = ["<end_of_turn>", "<eos>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>"];
        let mut ids = named_by_model.to_vec();
        ids.extend(tokenizer.eos_id());
        let ends = TURN_ENDS.iter().filter_map(|text| tokenizer.token_id(text));
        ids.extend(ends.filter(|&id| tokenizer.is_control(id)));
        StopIds::new(ids)
    }

    pub fn contains(&self, id: u32) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    pub fn ids(&self) -> &[u32] {
        &self.0
    }
}
