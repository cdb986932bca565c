//! Conversations to token ids.

use serde_json::Value;

use super::{substitution, Chat, ChatTemplate, Message, Pass, Role};
use crate::error::{Error, Result};
use crate::text::tokenizer::Tokenizer;

/// How a conversation is written, beside its messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Encoding<'a> {
    /// Functions that the model may call, each as its template wants it (OpenAI's `{"type": "function", ..}`).
    pub tools: &'a [Value],
    /// Opens the model's turn.
    pub add_generation_prompt: bool,
    /// Control tokens written out in messages become tokens: for text that is trusted.
    pub parse_special: bool,
}

/// The ids of a conversation, BOS included exactly once if the model wants it: a template that writes it itself gets
/// no second one. `add_generation_prompt` opens the model's turn.
pub fn encode_chat(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    add_generation_prompt: bool,
) -> Result<Vec<u32>> {
    encode_with(tokenizer, template, messages, &Encoding { add_generation_prompt, ..Encoding::default() })
}

/// The same with tools, or with control tokens in messages.
///
/// # Errors
/// The template cannot be used with these messages, or leaves out what the model has to know: tools, calls of them.
pub fn encode_with(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    how: &Encoding<'_>,
) -> Result<Vec<u32>> {
    let chat = Chat { messages, tools: how.tools, add_generation_prompt: how.add_generation_prompt };
    refuse_dropped(template, chat)?;
    let mut ids = match how.parse_special {
        true => tokenizer.encode_with_markers(&template.render_now(chat)?)?,
        false => {
            let substituted = template.render_substituted(chat)?;
            tokenizer.encode_around_markers(substituted.text(), &|text| substituted.reveal(text))?
        }
    };
    if let Some(bos) = tokenizer.bos_id().filter(|&bos| tokenizer.add_bos() && ids.first() != Some(&bos)) {
        ids.insert(0, bos);
    }
    Ok(ids)
}

/// The ids of the conversation `messages`, which ends with an answer, when the user says `next_user`. `held` are the ids
/// of that conversation as they were computed, the end of the answer left out; empty when there are none. They are kept
/// where the template writes the same conversation: tokens that a model chose need not be those that its text is
/// encoded to. A template that rewrites earlier answers (drops what stands before `</think>`) is followed.
pub fn encode_next_turn(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    held: &[u32],
    messages: &[Message],
    next_user: &str,
    how: &Encoding<'_>,
) -> Result<Vec<u32>> {
    let mut all = messages.to_vec();
    all.push(Message::user(next_user));
    if !held.is_empty() && !how.parse_special {
        let chat = Chat { messages: &all, tools: how.tools, add_generation_prompt: true };
        // A template that cannot say what follows an answer costs time, not correctness.
        if let Ok(more) = encode_continuation(tokenizer, template, messages, next_user, how.tools) {
            let ids = [held, more.as_slice()].concat();
            if says(tokenizer, &ids, &template.render_now(chat)?) {
                return Ok(ids);
            }
        }
    }
    encode_with(tokenizer, template, &all, &Encoding { add_generation_prompt: true, ..*how })
}

/// Whether ids say this text. White space does not matter: templates trim answers, and models begin them with a space.
fn says(tokenizer: &Tokenizer, ids: &[u32], text: &str) -> bool {
    let said = tokenizer.decode_with_markers(ids);
    // A template need not write the BOS that stands in front.
    let bos = tokenizer.bos_id().filter(|bos| ids.first() == Some(bos));
    let bos = bos.map(|id| tokenizer.decode_with_markers(&[id])).filter(|bos| !text.starts_with(bos.as_str()));
    let said = bos.and_then(|bos| said.strip_prefix(&bos)).unwrap_or(&said);
    let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<Vec<char>>();
    visible(said) == visible(text)
}

/// The ids that come after the content of the last answer when the user says `next_user`: the answer's end marker, the
/// user's turn, and the opening of the model's next turn. A session that kept its generated ids appends these and
/// prefills nothing twice. `messages` ends with that answer.
pub fn encode_continuation(
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
    messages: &[Message],
    next_user: &str,
    tools: &[Value],
) -> Result<Vec<u32>> {
    let mut messages = messages.to_vec();
    let Some(answer) = messages.last_mut().filter(|message| message.role == Role::Assistant) else {
        return Err(Error::input("the conversation does not end with an answer"));
    };
    // What follows an answer does not depend on its text; one character that appears nowhere else marks its place.
    let mark = substitution::PLACE_MARK;
    answer.content = mark.to_string();
    messages.push(Message::user(next_user));
    if messages.iter().filter(|message| message.content.contains(mark)).count() != 1 {
        return Err(Error::input("a message holds a character reserved for internal use (U+10FFFD)"));
    }
    let substituted = template.render_substituted(Chat { messages: &messages, tools, add_generation_prompt: true })?;
    let mut parts = substituted.text().split(mark);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(after), None) => tokenizer.encode_around_markers(after, &|text| substituted.reveal(text)),
        _ => Err(Error::input("chat template: does not write each answer once")),
    }
}

/// Tools and calls that a template passes over would be lost in silence.
pub(super) fn refuse_dropped(template: &ChatTemplate, chat: Chat<'_>) -> Result<()> {
    let has_calls = chat.messages.iter().any(|m| !m.tool_calls.is_empty());
    if chat.tools.is_empty() && !has_calls {
        return Ok(());
    }
    let unix_now = super::clock::unix_now();
    let render = |chat| template.render_plain(chat, Pass { unix_now, placeholders: false });
    let with = render(chat)?;
    let refused = |what: &str| {
        Err(Error::input(format!("chat template: has no place for {what}: another one, or the text in a message")))
    };
    if !chat.tools.is_empty() && render(Chat { tools: &[], ..chat }).is_ok_and(|without| without == with) {
        return refused("tools");
    }
    if has_calls {
        let mut renamed = chat.messages.to_vec();
        renamed.iter_mut().flat_map(|m| &mut m.tool_calls).for_each(|call| call.name.push('_'));
        if render(Chat { messages: &renamed, ..chat }).is_ok_and(|other| other == with) {
            return refused("tool calls");
        }
    }
    Ok(())
}
