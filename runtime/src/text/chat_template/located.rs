//! A conversation as ids, with the place of each of its texts: what tells answers from what is around them.

use serde_json::Value;

use super::encode::refuse_dropped;
use super::jinja::Pass;
use super::substitution::PLACE_MARK;
use super::{clock, Chat, ChatTemplate, Message};
use crate::error::{Error, Result};
use crate::text::tokenizer::{PieceKind, Tokenizer};

/// Ids, and the text that they stand for.
#[derive(Debug, Default)]
pub struct EncodedText {
    pub ids: Vec<u32>,
    /// What was encoded. A BOS that the template did not write has no text.
    pub text: String,
    stretches: Vec<Stretch>,
}

/// A control token, or what lies between two.
#[derive(Debug)]
struct Stretch {
    /// Where it begins in the text, and among the ids.
    text_start: usize,
    id_start: usize,
    is_control: bool,
}

impl ChatTemplate {
    /// The conversation as the model reads it, for people and for comparing; never to be encoded, because a control token
    /// that is written in a message looks like the template's.
    ///
    /// # Errors
    /// The template does not take these messages.
    pub fn text(&self, messages: &[Message], tools: &[Value], add_generation_prompt: bool) -> Result<String> {
        let chat = Chat { messages, tools, add_generation_prompt };
        self.render_plain(chat, Pass { unix_now: clock::unix_now(), placeholders: false })
    }

    /// What the template writes before the content of message `k`; `None` where it does not write that content once.
    ///
    /// # Errors
    /// The template does not take these messages.
    pub fn text_before(&self, messages: &[Message], tools: &[Value], k: usize) -> Result<Option<String>> {
        let mut messages = messages.to_vec();
        messages[k].content = PLACE_MARK.to_string();
        let text = self.text(&messages, tools, false)?;
        let mut parts = text.split(PLACE_MARK);
        Ok(match (parts.next(), parts.next(), parts.next()) {
            (Some(before), Some(_), None) => Some(before.to_string()),
            _ => None,
        })
    }

    /// [`encode_with`](super::encode_with) with the place of each id.
    ///
    /// # Errors
    /// The template does not take these messages, or their text cannot be encoded.
    pub fn encode_located(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        tools: &[Value],
        add_generation_prompt: bool,
    ) -> Result<EncodedText> {
        let chat = Chat { messages, tools, add_generation_prompt };
        refuse_dropped(self, chat)?;
        let substituted = self.render_substituted(chat)?;
        let mut chat = EncodedText::default();
        tokenizer.encode_stretches(
            substituted.text(),
            &|text| substituted.reveal(text),
            &mut |text, ids, control| {
                chat.push(text, &ids, control);
            },
        )?;
        chat.begin(tokenizer);
        Ok(chat)
    }
}

impl EncodedText {
    /// Text whose control tokens are tokens, behind BOS where the model wants one and the text does not begin with it.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn with_control_tokens(tokenizer: &Tokenizer, text: &str) -> Result<EncodedText> {
        let mut encoded = EncodedText::default();
        tokenizer.encode_stretches(text, &str::to_string, &mut |text, ids, control| {
            encoded.push(text, &ids, control);
        })?;
        encoded.begin(tokenizer);
        Ok(encoded)
    }

    fn push(&mut self, text: &str, ids: &[u32], is_control: bool) {
        if !text.is_empty() {
            self.stretches.push(Stretch { text_start: self.text.len(), id_start: self.ids.len(), is_control });
            self.text.push_str(text);
            self.ids.extend_from_slice(ids);
        }
    }

    fn begin(&mut self, tokenizer: &Tokenizer) {
        if let Some(bos) = tokenizer.bos_id().filter(|&bos| tokenizer.add_bos() && self.ids.first() != Some(&bos)) {
            self.ids.insert(0, bos);
            self.stretches.iter_mut().for_each(|stretch| stretch.id_start += 1);
        }
    }

    /// The index of the first id that stands for a byte of the text at `at` or behind it, so of one that stands for bytes on
    /// both sides too.
    ///
    /// # Errors
    /// The ids do not stand for the text byte by byte.
    pub fn id_at(&self, tokenizer: &Tokenizer, at: usize) -> Result<usize> {
        let n = self.stretches.partition_point(|stretch| stretch.text_start < at);
        let Some(i) = n.checked_sub(1) else { return Ok(self.stretches.first().map_or(0, |s| s.id_start)) };
        let (stretch, next) = (&self.stretches[i], self.stretches.get(n));
        let text_end = next.map_or(self.text.len(), |next| next.text_start);
        let id_end = next.map_or(self.ids.len(), |next| next.id_start);
        if at >= text_end {
            return Ok(id_end);
        }
        if stretch.is_control {
            return Ok(stretch.id_start);
        }
        let (text, ids) = (&self.text[stretch.text_start..text_end], &self.ids[stretch.id_start..id_end]);
        let inside = at - stretch.text_start;
        if !text.is_char_boundary(inside) {
            return Err(Error::input("a place inside a character has no token"));
        }
        Ok(stretch.id_start + tokenizer.n_ids_within(text, ids, inside)?)
    }

    /// The first control token at byte `at` of the text or behind it that steers the conversation: its place in the text and
    /// its index among the ids. Markers such as `<tool_call>` are a part of an answer.
    pub fn end_marker(&self, tokenizer: &Tokenizer, at: usize) -> Option<(usize, usize)> {
        let from = self.stretches.partition_point(|stretch| stretch.text_start < at);
        let steers = |id: u32| matches!(tokenizer.piece_kind(id), None | Some(PieceKind::Control | PieceKind::Unused));
        let found = self.stretches[from..].iter().find(|s| s.is_control && steers(self.ids[s.id_start]));
        found.map(|s| (s.text_start, s.id_start))
    }
}
