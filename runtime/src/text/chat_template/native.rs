//! Gemma's and Qwen's conversations, written without a template engine.

use super::{Chat, Message, Role};
use crate::error::{Error, Result};

/// What Qwen 2.5 instruct models say when nobody gives a system text.
const QWEN_SYSTEM: &str = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

/// Gemma 3: the system text stands before the first user turn, contents are trimmed, roles alternate.
pub(super) fn gemma(chat: Chat<'_>) -> Result<String> {
    refuse_tools(chat, "Gemma")?;
    let Chat { messages, add_generation_prompt, .. } = chat;
    let (system, turns) = match messages.split_first() {
        Some((first, rest)) if first.role == Role::System => (Some(first.content.as_str()), rest),
        _ => (None, messages),
    };
    let mut text = String::from("<bos>");
    for (index, message) in turns.iter().enumerate() {
        let expected = if index % 2 == 0 { Role::User } else { Role::Assistant };
        if message.role != expected {
            return Err(Error::input(format!(
                "chat template: turn {} is from {}; {} expected (roles must alternate user/assistant)",
                index + 1,
                message.role.name(),
                expected.name()
            )));
        }
        text.push_str("<start_of_turn>");
        text.push_str(if message.role == Role::User { "user\n" } else { "model\n" });
        if let Some(system) = system.filter(|_| index == 0) {
            text.push_str(system);
            text.push_str("\n\n");
        }
        text.push_str(message.content.trim());
        text.push_str("<end_of_turn>\n");
    }
    if add_generation_prompt {
        text.push_str("<start_of_turn>model\n");
    }
    Ok(text)
}

/// ChatML as Qwen 2.5 writes it: no BOS, nothing trimmed, tool results as user turns.
pub(super) fn chat_ml(chat: Chat<'_>) -> Result<String> {
    refuse_tools(chat, "ChatML")?;
    let Chat { messages, add_generation_prompt, .. } = chat;
    let mut text = String::new();
    let mut turn = |role: &str, content: &str| {
        for part in ["<|im_start|>", role, "\n", content, "<|im_end|>\n"] {
            text.push_str(part);
        }
    };
    if messages.first().is_none_or(|first| first.role != Role::System) {
        turn("system", QWEN_SYSTEM);
    }
    // Results of several calls are one turn of the user.
    for group in messages.chunk_by(|a, b| a.role == Role::Tool && b.role == Role::Tool) {
        match group {
            [message] if message.role != Role::Tool => turn(message.role.name(), &message.content),
            results => {
                let result = |m: &Message| format!("<tool_response>\n{}\n</tool_response>", m.content);
                turn("user", &results.iter().map(result).collect::<Vec<_>>().join("\n"));
            }
        }
    }
    if add_generation_prompt {
        text.push_str("<|im_start|>assistant\n");
    }
    Ok(text)
}

/// What would be left out in silence is refused.
fn refuse_tools(chat: Chat<'_>, name: &str) -> Result<()> {
    if chat.tools.is_empty() && chat.messages.iter().all(|m| m.tool_calls.is_empty()) {
        return Ok(());
    }
    Err(Error::input(format!(
        "chat template: the built-in {name} template has no place for tools; the model needs one of its own"
    )))
}
