//! Conversations through the model's own template, and what of them is learned.

use lichen_runtime::text::chat_template::{EncodedText, Role};

use super::super::row::{Conversation, Learn};
use super::super::{DataOptions, LossOn, Truncation, IGNORED};
use super::{all_of, unlabel_first, Encoded, Fit, Labelled, Refusal, TextEncoder};

/// Ids and labels of a conversation, whatever their number.
struct Whole {
    sample: Labelled,
    /// Index of the first id of the last answer that is learned.
    last_answer: Option<usize>,
}

pub(super) fn conversation(
    encoder: &TextEncoder,
    chat: &Conversation,
    options: &DataOptions,
) -> Result<Encoded, Refusal> {
    let whole = encoded(encoder, chat).map_err(Refusal::Bad)?;
    let n_whole = whole.ids.len();
    // A row that will be dropped needs no labels.
    if n_whole > options.max_seq && options.truncation == Truncation::Drop {
        return Err(Refusal::TooLong(n_whole, None));
    }
    let mut whole = labelled(encoder, chat, whole, options.loss_on).map_err(Refusal::Bad)?;
    let mut fit = Fit::Whole;
    if n_whole > options.max_seq && whole.sample.n_labels() > 0 {
        (whole, fit) = shorter(encoder, chat, whole, options)?;
    }
    if whole.sample.n_labels() == 0 {
        return Err(Refusal::WithoutLabels("no answer in it is learned".to_string()));
    }
    Ok(Encoded { samples: vec![whole.sample], n_whole, fit })
}

/// A conversation of more than max_seq ids, cut: what is behind its last label teaches nothing and goes first, then its oldest
/// exchanges, and then the beginning of its last question. The last answer is kept whole, and so are a system text and tools
/// while an exchange fits beside them.
fn shorter(
    encoder: &TextEncoder,
    chat: &Conversation,
    mut whole: Whole,
    options: &DataOptions,
) -> Result<(Whole, Fit), Refusal> {
    let n_whole = whole.sample.ids.len();
    whole.trim();
    if whole.sample.ids.len() <= options.max_seq {
        return Ok((whole, Fit::Unanswered));
    }
    let starts = exchanges(chat, options.loss_on);
    // The number of ids goes down as more exchanges are left out.
    let (mut low, mut high, mut found) = (0, starts.len(), None);
    let n_head = head(chat);
    let mut last = whole;
    while low < high {
        let i = low + (high - low) / 2;
        let part = without(chat, n_head..starts[i]);
        let mut part = labelled_part(encoder, &part, options)?;
        part.trim();
        if part.sample.ids.len() <= options.max_seq && part.sample.n_labels() > 0 {
            found = Some((part, Fit::Messages(starts[i] - n_head)));
            high = i;
        } else {
            if i + 1 == starts.len() {
                last = part;
            }
            low = i + 1;
        }
    }
    if let Some(found) = found {
        return Ok(found);
    }
    let n_bos = usize::from(encoder.tokenizer().bos_id().is_some_and(|bos| last.sample.ids[0] == bos));
    let n = last.sample.ids.len();
    let first_kept = n - (options.max_seq - n_bos).min(n);
    // Nothing predicts the first id that is kept where there is no BOS.
    if let Some(answer) = last.last_answer.filter(|&at| at < first_kept + 1 - n_bos) {
        return Err(Refusal::TooLong(n_whole, Some(n - answer)));
    }
    let Labelled { ids, labels } = &mut last.sample;
    ids.drain(n_bos..first_kept);
    labels.drain(n_bos..first_kept);
    unlabel_first(labels);
    Ok((last, Fit::End))
}

impl Whole {
    /// Takes away what stands behind the last label.
    fn trim(&mut self) {
        let n = self.sample.labels.iter().rposition(|&label| label != IGNORED).map_or(0, |at| at + 1);
        self.sample.ids.truncate(n);
        self.sample.labels.truncate(n);
    }
}

fn labelled_part(encoder: &TextEncoder, part: &Conversation, options: &DataOptions) -> Result<Whole, Refusal> {
    let ids = encoded(encoder, part).map_err(Refusal::Bad)?;
    labelled(encoder, part, ids, options.loss_on).map_err(Refusal::Bad)
}

/// Messages before the first turn: system texts.
fn head(chat: &Conversation) -> usize {
    chat.messages.iter().take_while(|message| message.role == Role::System).count()
}

/// Where an exchange begins that an answer to learn follows, but for the first: a user's turn behind another's.
fn exchanges(chat: &Conversation, loss_on: LossOn) -> Vec<usize> {
    let n_head = head(chat);
    let learned = |k: &usize| chat.messages[*k].role == Role::Assistant && is_learned(chat.turns[*k].learn, loss_on);
    let last = (0..chat.messages.len()).rev().find(learned).unwrap_or(0);
    let begins =
        |k: &usize| chat.messages[*k].role == Role::User && *k > n_head && chat.messages[*k - 1].role != Role::User;
    (n_head + 1..=last).filter(begins).collect()
}

/// The conversation without these of its messages.
fn without(chat: &Conversation, left_out: std::ops::Range<usize>) -> Conversation {
    let kept = |k: &usize| !left_out.contains(k);
    Conversation {
        messages: (0..chat.messages.len()).filter(kept).map(|k| chat.messages[k].clone()).collect(),
        turns: (0..chat.turns.len()).filter(kept).map(|k| chat.turns[k]).collect(),
        tools: chat.tools.clone(),
        key: chat.key,
    }
}

fn encoded(encoder: &TextEncoder, chat: &Conversation) -> Result<EncodedText, String> {
    let template = encoder.template();
    let encoded = template.encode_located(encoder.tokenizer(), &chat.messages, &chat.tools, false);
    encoded.map_err(|e| e.message().to_string())
}

fn is_learned(learn: Learn, loss_on: LossOn) -> bool {
    match learn {
        Learn::Said(learned) => learned,
        Learn::AsUsual => true,
        Learn::NotAsked => loss_on == LossOn::All,
    }
}

/// Answers are labelled with their end markers; under [`LossOn::All`] everything is but the answers that are not to be learned.
fn labelled(encoder: &TextEncoder, chat: &Conversation, whole: EncodedText, loss_on: LossOn) -> Result<Whole, String> {
    let mut labels = match loss_on {
        LossOn::All => all_of(&whole.ids),
        LossOn::Answers => vec![IGNORED; whole.ids.len()],
    };
    let mut last_answer = None;
    for (k, (message, turn)) in chat.messages.iter().zip(&chat.turns).enumerate() {
        if message.role != Role::Assistant {
            if turn.learn == Learn::Said(true) && loss_on == LossOn::Answers {
                return Err(format!("{} is to be learned, and only answers can be", turn.name));
            }
            continue;
        }
        let learned = is_learned(turn.learn, loss_on);
        // Where all is labelled, an answer's place matters only when it is not to be learned.
        if learned != (loss_on == LossOn::Answers) {
            continue;
        }
        let Some((start, end)) = answer(encoder, chat, k, &whole).map_err(|e| format!("{} {e}", turn.name))? else {
            continue;
        };
        match learned {
            true => {
                labels[start..end].copy_from_slice(&all_of(&whole.ids[start..end]));
                last_answer = Some(start);
            }
            false => labels[start..end].fill(IGNORED),
        }
    }
    unlabel_first(&mut labels);
    Ok(Whole { sample: Labelled { ids: whole.ids, labels }, last_answer })
}

/// The ids of message `k` of a conversation with its end marker, the first and one behind the last; `None` where the template
/// writes nothing of it. An id that holds characters of the answer and of what stands before it is the answer's: it is there
/// that the model begins to differ.
fn answer(
    encoder: &TextEncoder,
    chat: &Conversation,
    k: usize,
    whole: &EncodedText,
) -> Result<Option<(usize, usize)>, String> {
    if k == 0 {
        return Err("is an answer, and nothing is asked before it".into());
    }
    let (template, tokenizer) = (encoder.template(), encoder.tokenizer());
    let message = |e: lichen_runtime::Error| e.message().to_string();
    let before = template.text(&chat.messages[..k], &chat.tools, true);
    let mut before = before.map_err(|e| format!("cannot be asked for: {}", e.message()))?;
    if !whole.text.starts_with(&before) {
        // A prompt may open the answer with words of its own, such as `<think>`, which the conversation does not hold.
        let own = template.text_before(&chat.messages, &chat.tools, k).map_err(message)?;
        match own.filter(|own| before.starts_with(own) && whole.text.starts_with(own)) {
            Some(own) => before = own,
            None => {
                let what =
                    "is not where the chat template begins an answer: it writes what is before it in another way";
                return Err(what.into());
            }
        }
    }
    // No text becomes a control token, so the first one is the template's.
    let Some((text_end, end)) = whole.end_marker(tokenizer, before.len()) else {
        return Err("has no end: the chat template writes no control token after it".into());
    };
    // An answer without text would teach the model to say nothing.
    if whole.text[before.len()..text_end].trim().is_empty() {
        return Ok(None);
    }
    let start = whole.id_at(tokenizer, before.len()).map_err(message)?;
    Ok(Some((start, end + 1)))
}
