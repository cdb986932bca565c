//! Tokens to text while they are generated, never half a character.

use std::ops::Deref;

use super::pieces::PIECE_BYTES_MAX;
use super::Tokenizer;

/// The longest piece, behind the start of a character.
const HELD_BYTES: usize = PIECE_BYTES_MAX + 4;

/// Holds back the bytes of a character whose rest has not come yet. The pieces it returns, put together, are exactly
/// [`Tokenizer::decode`] of all ids. The tokenizer is borrowed or shared.
#[derive(Debug)]
pub struct StreamDecoder<T> {
    tokenizer: T,
    /// At most three bytes between calls: the start of one character.
    held: Vec<u8>,
    /// The tokenizer put a space in front of the text; the first one that comes back is dropped.
    drop_space: bool,
}

impl<T: Deref<Target = Tokenizer>> StreamDecoder<T> {
    pub fn new(tokenizer: T) -> Self {
        let drop_space = tokenizer.add_space_prefix;
        StreamDecoder { tokenizer, held: Vec::with_capacity(HELD_BYTES), drop_space }
    }

    /// The text that is complete now; control tokens add nothing.
    pub fn push(&mut self, id: u32) -> String {
        let mut text = String::new();
        self.push_into(id, &mut text);
        text
    }

    /// The same, appended to `text`: allocates nothing while `text` has room.
    pub fn push_into(&mut self, id: u32, text: &mut String) {
        if self.tokenizer.is_hidden(id) {
            return;
        }
        let mut bytes = self.tokenizer.token_bytes(id);
        if self.drop_space && !bytes.is_empty() {
            self.drop_space = false;
            bytes = bytes.strip_prefix(b" ").unwrap_or(bytes);
        }
        self.held.extend_from_slice(bytes);
        self.take_complete(text);
    }

    /// What is left when no more tokens come: the bytes of an unfinished character become one U+FFFD.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }

    /// Everything but an unfinished character at the end. Bytes that no continuation can make valid are replaced now.
    fn take_complete(&mut self, text: &mut String) {
        let mut used = 0;
        loop {
            match std::str::from_utf8(&self.held[used..]) {
                Ok(rest) => {
                    text.push_str(rest);
                    used = self.held.len();
                    break;
                }
                Err(error) => {
                    let valid = used + error.valid_up_to();
                    text.push_str(std::str::from_utf8(&self.held[used..valid]).unwrap_or_default());
                    used = valid;
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    used += invalid;
                }
            }
        }
        self.held.drain(..used);
    }
}
