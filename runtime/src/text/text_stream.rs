//! Tokens in, certain text out: whole characters, and no part of a stop string.

use std::sync::Arc;

use crate::error::Result;
use crate::text::stop::StopStrings;
use crate::text::tokenizer::{StreamDecoder, Tokenizer};

/// The text of one answer while it grows. Without a tokenizer there is none.
pub(crate) struct TextStream {
    decoder: Option<StreamDecoder<Arc<Tokenizer>>>,
    stop: StopStrings,
    text: String,
    /// Bytes of `text` that were taken.
    n_taken: usize,
}

impl TextStream {
    /// # Errors: the stop strings are not acceptable.
    pub fn new(tokenizer: Option<Arc<Tokenizer>>, stop: Vec<String>) -> Result<Self> {
        let stop = StopStrings::new(stop)?;
        Ok(TextStream { decoder: tokenizer.map(StreamDecoder::new), stop, text: String::new(), n_taken: 0 })
    }

    /// Takes the next token; true when a stop string is complete.
    pub fn push(&mut self, token: u32) -> bool {
        let Some(decoder) = &mut self.decoder else { return false };
        let piece = decoder.push(token);
        self.emit(&piece)
    }

    fn emit(&mut self, piece: &str) -> bool {
        if !piece.is_empty() {
            let certain = self.stop.push(piece);
            self.text.push_str(&certain);
        }
        self.stop.stopped()
    }

    /// No more tokens come: what was held back, half a stop string or an unfinished character, becomes text.
    pub fn finish(&mut self) {
        if self.stop.stopped() {
            return;
        }
        let tail = self.decoder.as_mut().map(|d| d.finish()).unwrap_or_default();
        if !self.emit(&tail) {
            let held = self.stop.finish();
            self.text.push_str(&held);
        }
    }

    /// The text that became certain since it was last asked for.
    pub fn take_new(&mut self) -> &str {
        let new = &self.text[self.n_taken..];
        self.n_taken = self.text.len();
        new
    }

    /// All of it.
    pub fn into_text(self) -> String {
        self.text
    }
}
