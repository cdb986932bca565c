//! Rows to ids and labels.

use std::sync::Arc;

use lichen_runtime::escape::thousands;
use lichen_runtime::text::chat_template::{encode_chat, ChatTemplate, Message, Role, OUTPUT_BYTES_MAX};
use lichen_runtime::text::tokenizer::{PieceKind, Tokenizer};
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

    fn chat(&self, messages: &[Message], add_generation_prompt: bool) -> std::result::Result<Vec<u32>, String> {
        encode_chat(&self.tokenizer, &self.template, messages, add_generation_prompt)
            .map_err(|e| e.message().to_string())
    }

    /// BOS and EOS only where the model's own tokenizer would put the first and names the second.
    fn running_text(&self, text: &str) -> std::result::Result<Vec<u32>, String> {
        // What a conversation may be long. Merging takes up to 180 bytes per character.
        if text.len() > OUTPUT_BYTES_MAX {
            let (n, most) = (thousands(text.len() as u64), thousands(OUTPUT_BYTES_MAX as u64));
            return Err(format!("\"text\" is {n} bytes long; at most {most}"));
        }
        let tokenizer = &self.tokenizer;
        let mut ids: Vec<u32> = tokenizer.bos_id().filter(|_| tokenizer.add_bos()).into_iter().collect();
        ids.extend(tokenizer.encode(text).map_err(|e| e.message().to_string())?);
        ids.extend(tokenizer.eos_id());
        Ok(ids)
    }
}

/// A row that can be trained on: `ids` and `labels` (at most max_seq each).
#[derive(Debug, PartialEq)]
pub(super) struct Encoded {
    pub ids: Vec<u32>,
    pub labels: Vec<i32>,
    /// Ids before the row was cut.
    pub n_whole: usize,
}

impl Encoded {
    pub fn n_labels(&self) -> usize {
        self.labels.iter().filter(|&&label| label != IGNORED).count()
    }
}

/// Why a row gives no sample.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// So many ids.
    TooLong(usize),
    WithoutLabels,
    /// The row's fault, in words.
    Bad(String),
    /// Text, and the model has no tokenizer: no row of this file will do. What the row holds.
    NeedsTokenizer(&'static str),
}

/// What is labelled before a row is cut.
enum Labels {
    /// Those of the file.
    Given(Vec<i32>),
    /// All ids.
    All,
    /// Answers, each with its end marker: first id and one behind the last.
    Spans(Vec<(usize, usize)>),
}

/// Ids and labels of a row.
pub(super) fn encode(
    row: Row,
    encoder: Option<&TextEncoder>,
    vocab_size: usize,
    options: &DataOptions,
) -> std::result::Result<Encoded, Refusal> {
    let need = |what| encoder.ok_or(Refusal::NeedsTokenizer(what));
    let (mut ids, labels) = match row {
        Row::Tokens { ids, labels } => {
            let ids = checked_ids(ids, vocab_size)?;
            let labels = labels.map(|labels| checked_labels(labels, vocab_size)).transpose()?;
            (ids, labels.map_or(Labels::All, Labels::Given))
        }
        Row::Text(text) => {
            let ids = need("text")?.running_text(&text).map_err(Refusal::Bad)?;
            let labels = if text.trim().is_empty() { Labels::Spans(Vec::new()) } else { Labels::All };
            (ids, labels)
        }
        Row::Instruction { instruction, input, output } => {
            let question = if input.is_empty() { instruction } else { format!("{instruction}\n\n{input}") };
            let messages = [Message::user(question), Message::assistant(output)];
            conversation(need("instruction")?, &messages, options, &|_| "\"output\"".to_string())?
        }
        Row::Chat(messages) => conversation(need("messages")?, &messages, options, &|k| format!("message {}", k + 1))?,
    };
    let n_whole = ids.len();
    if n_whole > options.max_seq && options.truncation == Truncation::Drop {
        return Err(Refusal::TooLong(n_whole));
    }
    ids.truncate(options.max_seq);
    let encoded = Encoded { labels: label(&ids, labels), ids, n_whole };
    match encoded.n_labels() {
        0 => Err(Refusal::WithoutLabels),
        _ => Ok(encoded),
    }
}

/// The labels of `ids`, which may have been cut.
fn label(ids: &[u32], labels: Labels) -> Vec<i32> {
    let mut out = match labels {
        Labels::Given(mut labels) => {
            labels.truncate(ids.len());
            labels
        }
        Labels::All => ids.iter().map(|&id| id as i32).collect(),
        Labels::Spans(spans) => {
            let mut out = vec![IGNORED; ids.len()];
            for i in spans.into_iter().flat_map(|(start, end)| start..end.min(ids.len())) {
                out[i] = ids[i] as i32;
            }
            out
        }
    };
    // Nothing predicts the first id, which is BOS where there is one.
    if let Some(first) = out.first_mut() {
        *first = IGNORED;
    }
    out
}

fn checked_ids(ids: Vec<i32>, vocab_size: usize) -> std::result::Result<Vec<u32>, Refusal> {
    match ids.iter().position(|&id| id < 0 || id as usize >= vocab_size) {
        None => Ok(ids.into_iter().map(|id| id as u32).collect()),
        Some(at) => Err(outside("input_ids", at, ids[at], vocab_size)),
    }
}

fn checked_labels(labels: Vec<i32>, vocab_size: usize) -> std::result::Result<Vec<i32>, Refusal> {
    match labels.iter().position(|&id| id != IGNORED && (id < 0 || id as usize >= vocab_size)) {
        None => Ok(labels),
        Some(at) => Err(outside("labels", at, labels[at], vocab_size)),
    }
}

fn outside(name: &str, at: usize, id: i32, vocab_size: usize) -> Refusal {
    let or = if name == "labels" { "-100 or " } else { "" };
    Refusal::Bad(format!("\"{name}\"[{at}] is {id}; {or}0 to {} for this model", vocab_size.saturating_sub(1)))
}

/// A conversation through the model's template; `name` says which part of the row a message is.
fn conversation(
    encoder: &TextEncoder,
    messages: &[Message],
    options: &DataOptions,
    name: &dyn Fn(usize) -> String,
) -> std::result::Result<(Vec<u32>, Labels), Refusal> {
    let ids = encoder.chat(messages, false).map_err(Refusal::Bad)?;
    // A row that will be dropped needs no labels.
    if options.train_on_prompt || (ids.len() > options.max_seq && options.truncation == Truncation::Drop) {
        return Ok((ids, Labels::All));
    }
    let mut spans = Vec::new();
    for (k, message) in messages.iter().enumerate().filter(|(_, message)| message.role == Role::Assistant) {
        match answer(encoder, messages, k, &ids, options.max_seq)
            .map_err(|e| Refusal::Bad(format!("{} {e}", name(k))))?
        {
            None => break,
            Some(_) if message.content.trim().is_empty() => {}
            Some(span) => spans.push(span),
        }
    }
    Ok((ids, Labels::Spans(spans)))
}

/// Where message `k` of a conversation stands in its `ids`, with its end marker; `None` when that is behind the first
/// `max_seq`. Both borders are proved: what is asked before the answer, and the conversation up to it, encode to the
/// beginning of `ids`.
fn answer(
    encoder: &TextEncoder,
    messages: &[Message],
    k: usize,
    ids: &[u32],
    max_seq: usize,
) -> std::result::Result<Option<(usize, usize)>, String> {
    if k == 0 {
        return Err("is an answer, and nothing is asked before it".into());
    }
    let before = encoder.chat(&messages[..k], true).map_err(|e| format!("cannot be asked for: {e}"))?;
    let start = before.len();
    if start >= max_seq {
        return Ok(None);
    }
    if !ids.starts_with(&before) {
        return Err(match messages[k].content.starts_with(char::is_whitespace) {
            true => "begins with white space, which becomes one token with the chat template's text before it: trim it",
            false => "is not where the chat template begins an answer: it writes what is before it in another way",
        }
        .into());
    }
    // No text becomes a control token, so the first one is the template's.
    let Some(n) = ids[start..].iter().position(|&id| ends_answer(encoder.tokenizer(), id)) else {
        return Err("has no end: the chat template writes no control token after it".into());
    };
    let end = start + n + 1;
    if k + 1 < messages.len() {
        let with_answer = encoder.chat(&messages[..=k], false)?;
        if with_answer.get(..end) != Some(&ids[..end]) {
            return Err("is written in another way by the chat template once the conversation goes on".into());
        }
    }
    Ok(Some((start, end)))
}

/// Whether `id` steers the conversation. Markers such as `<tool_call>` belong to the answer.
fn ends_answer(tokenizer: &Tokenizer, id: u32) -> bool {
    matches!(tokenizer.piece_kind(id), None | Some(PieceKind::Control | PieceKind::Unused))
}
