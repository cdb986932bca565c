//! Private placeholders of characters, so that a message's text can be followed through a template.

use std::cell::Cell;

use super::{map_strings, Chat, Message, Segment};
use crate::error::{Error, Result};

/// Marks the place of one message; it has no placeholder.
pub(super) const PLACE_MARK: char = '\u{10FFFD}';

/// Which characters are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cover {
    /// All but white space, which templates trim.
    Everything,
    /// Those without which no control token of any known vocabulary can be written.
    Markers,
}

/// Moves characters of the basic plane to a private plane and back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Substitution {
    cover: Cover,
    /// 0xF0000 or 0x100000: whichever nobody uses.
    plane: u32,
}

impl Substitution {
    /// Picks a plane that neither the messages and tools nor the template's own text use.
    pub fn new(cover: Cover, chat: Chat<'_>, rendered: &str) -> Result<Self> {
        let used = |plane: u32| {
            let within = |text: &str| text.chars().any(|c| c != PLACE_MARK && c as u32 & !0xFFFF == plane);
            let found = Cell::new(within(rendered));
            let look = |text: &str| {
                found.set(found.get() || within(text));
                String::new()
            };
            chat.messages.iter().for_each(|message: &Message| drop(message.map_texts(&look)));
            chat.tools.iter().for_each(|tool| drop(map_strings(tool, &look)));
            found.get()
        };
        match [0xF_0000, 0x10_0000].into_iter().find(|&plane| !used(plane)) {
            Some(plane) => Ok(Substitution { cover, plane }),
            None => Err(Error::input("the messages use both private planes of Unicode")),
        }
    }

    /// The same plane for other characters.
    pub fn with(self, cover: Cover) -> Substitution {
        Substitution { cover, ..self }
    }

    /// The message as the template gets to see it.
    pub fn hide(&self, text: &str) -> String {
        text.chars().map(|c| if self.covers(c) { self.placeholder(c) } else { c }).collect()
    }

    fn covers(&self, c: char) -> bool {
        match self.cover {
            // U+FFFD has none: in the last plane its placeholder would be the place mark.
            Cover::Everything => (c as u32) < 0xFFFD && !c.is_whitespace(),
            Cover::Markers => is_marker(c),
        }
    }

    fn placeholder(&self, c: char) -> char {
        char::from_u32(self.plane + c as u32).unwrap_or(c)
    }

    /// The character behind a placeholder.
    pub fn original(&self, c: char) -> Option<char> {
        if c as u32 & !0xFFFF != self.plane || c == PLACE_MARK {
            return None;
        }
        char::from_u32(c as u32 & 0xFFFF)
    }

    /// Placeholders turned back.
    pub fn reveal(&self, text: &str) -> String {
        text.chars().map(|c| self.original(c).unwrap_or(c)).collect()
    }
}

/// A character that markers are made of.
pub(super) fn is_marker(c: char) -> bool {
    matches!(c, '<' | '>' | '[' | ']' | '|' | '\u{FF5C}')
}

/// A rendering in which every character of a message is a placeholder.
#[derive(Debug)]
pub(super) struct Substituted {
    substitution: Substitution,
    text: String,
}

impl Substituted {
    pub fn new(substitution: Substitution, text: String) -> Self {
        Substituted { substitution, text }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Placeholders turned back.
    pub fn reveal(&self, text: &str) -> String {
        self.substitution.reveal(text)
    }

    pub fn revealed(&self) -> String {
        self.reveal(&self.text)
    }

    /// Runs of message text and of template text. Characters without a placeholder (white space, and emoji beyond the basic
    /// plane) belong to a message when they lie between its placeholders.
    pub fn segments(&self) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        let mut push = |text: &str, is_content: bool| match segments.last_mut() {
            _ if text.is_empty() => {}
            Some(last) if last.is_content == is_content => last.text.push_str(text),
            _ => segments.push(Segment { text: text.to_string(), is_content }),
        };
        let mut undecided = String::new();
        let mut in_content = false;
        for c in self.text.chars() {
            match self.substitution.original(c) {
                Some(original) => {
                    push(&undecided, in_content);
                    undecided.clear();
                    push(original.encode_utf8(&mut [0; 4]), true);
                    in_content = true;
                }
                None if c.is_whitespace() || c as u32 > 0xFFFF => undecided.push(c),
                None => {
                    push(&undecided, false);
                    undecided.clear();
                    push(c.encode_utf8(&mut [0; 4]), false);
                    in_content = false;
                }
            }
        }
        push(&undecided, false);
        segments
    }
}
