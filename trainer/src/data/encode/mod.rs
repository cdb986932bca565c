//! Rows to ids and labels.

mod chat;
mod text;

use std::sync::Arc;

use lichen_runtime::text::chat_template::{encode_chat, ChatTemplate, Message};
use lichen_runtime::text::tokenizer::Tokenizer;
use lichen_runtime::Result;

use super::row::Row;
use super::{DataOptions, Truncation, IGNORED};

/// What turns text into ids: a model's tokenizer and its chat template.
#[derive(Debug)]
pub struct TextEncoder {
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
}

impl TextEncoder {
    pub fn new(tokenizer: Arc<Tokenizer>, template: ChatTemplate) -> Self {
        TextEncoder { tokenizer, template }
    }

    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// The ids of a question, up to where the answer begins.
    pub fn question(&self, text: &str) -> Result<Vec<u32>> {
        encode_chat(&self.tokenizer, &self.template, &[Message::user(text)], true)
    }
}

/// `ids` and `labels` (at most max_seq each), one of them at least no [`IGNORED`].
#[derive(Debug, PartialEq)]
pub(super) struct Labelled {
    pub ids: Vec<u32>,
    pub labels: Vec<i32>,
}

impl Labelled {
    pub fn n_labels(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORED).count()
    }
}

/// A row that can be trained on.
#[derive(Debug, PartialEq)]
pub(super) struct Encoded {
    /// One, or the pieces of a long text.
    pub samples: Vec<Labelled>,
    /// Ids before the row was cut.
    pub n_whole: usize,
    /// What was done to a row of more than max_seq ids.
    pub fit: Fit,
}

/// How a row came to be no longer than max_seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It was not longer.
    Whole,
    /// Of a row of ids: its first are kept.
    Beginning,
    /// Of a conversation: what stands behind its last answer is left out.
    Unanswered,
    /// Of a conversation: so many of its oldest messages are left out.
    Messages(usize),
    /// Of a conversation whose last question is too long: its last ids are kept.
    End,
    /// Of running text.
    Pieces,
}

/// Why a row gives no sample.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// So many ids, and those of its last answer alone where that is what has no room.
    TooLong(usize, Option<usize>),
    /// Why there is nothing to learn.
    WithoutLabels(String),
    /// The row's fault, in words.
    Bad(String),
    /// Text, and the model has no tokenizer: no row of this file will do. What the row holds.
    NeedsTokenizer(&'static str),
}

/// Ids and labels of a row.
pub(super) fn encode(
    row: &Row,
    encoder: Option<&TextEncoder>,
    vocab_size: usize,
    options: &DataOptions,
) -> std::result::Result<Encoded, Refusal> {
    let need = |what| encoder.ok_or(Refusal::NeedsTokenizer(what));
    match row {
        Row::Tokens { ids, labels } => tokens(ids, labels.as_deref(), vocab_size, options),
        Row::Text(text) => text::running_text(need("text")?, text, options),
        Row::Chat(chat) => chat::conversation(need(chat.key)?, chat, options),
    }
}

fn tokens(
    ids: &[i32],
    labels: Option<&[i32]>,
    vocab_size: usize,
    options: &DataOptions,
) -> std::result::Result<Encoded, Refusal> {
    let n_whole = ids.len();
    let outside = |id: &i32| *id < 0 || *id as usize >= vocab_size;
    if let Some(at) = ids.iter().position(outside) {
        return Err(not_in_vocabulary("input_ids", at, ids[at], vocab_size));
    }
    let labels = labels.unwrap_or(ids);
    if let Some(at) = labels.iter().position(|id| *id != IGNORED && outside(id)) {
        return Err(not_in_vocabulary("labels", at, labels[at], vocab_size));
    }
    if n_whole > options.max_seq && options.truncation == Truncation::Drop {
        return Err(Refusal::TooLong(n_whole, None));
    }
    let n = n_whole.min(options.max_seq);
    let mut sample = Labelled { ids: ids[..n].iter().map(|&id| id as u32).collect(), labels: labels[..n].to_vec() };
    unlabel_first(&mut sample.labels);
    if sample.n_labels() == 0 {
        let all = n == n_whole || labels[1..].iter().all(|&label| label == IGNORED);
        return Err(Refusal::WithoutLabels(match all {
            true => "no id has a label".to_string(),
            false => format!("none of its first {n} ids, of {n_whole}, has a label"),
        }));
    }
    let fit = if n < n_whole { Fit::Beginning } else { Fit::Whole };
    Ok(Encoded { samples: vec![sample], n_whole, fit })
}

fn not_in_vocabulary(name: &str, at: usize, id: i32, vocab_size: usize) -> Refusal {
    let or = if name == "labels" { "-100 or " } else { "" };
    Refusal::Bad(format!("\"{name}\"[{at}] is {id}; {or}0 to {} for this model", vocab_size.saturating_sub(1)))
}

/// Nothing predicts the first id, which is BOS where there is one.
fn unlabel_first(labels: &mut [i32]) {
    if let Some(first) = labels.first_mut() {
        *first = IGNORED;
    }
}

/// Every id as its own label.
fn all_of(ids: &[u32]) -> Vec<i32> {
    ids.iter().map(|&id| id as i32).collect()
}
