//! Lines of prompts of any bytes: read, or refused in a sentence.

#[path = "text_support/mod.rs"]
mod text_support;

use std::path::Path;

use lichen_runtime::engine::request::Prompt;
use lichen_runtime::prompt_file::PromptLines;
use text_support::Random;

const SEEDS: [&str; 4] = [
    r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, "b"]}], "max_tokens": 5, "n": 1}"#,
    r#"{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": [1]}"}}]}, {"role": "tool", "tool_call_id": "1", "name": "f", "content": "c"}]}"#,
    r#"{"prompt": "<start_of_turn>", "parse_special": true, "tools": [{"type": "function", "function": {}}], "tool_choice": "none"}"#,
    r#"{"tokens": [1, 2, 3], "stop": ["a", "b"], "repetition_penalty": 1.5, "temperature": 0.5, "seed": 18446744073709551615}"#,
];

const PARTS: [&str; 18] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    "null",
    "1e999",
    "-1",
    "true",
    "\\u0000",
    "\\ud800",
    ",",
    ":",
    "\"content\"",
    "\"tool_calls\"",
    "\"arguments\"",
    "\"text\"",
    "é",
];

#[test]
fn mutated_lines_are_read_or_refused_in_a_sentence() {
    let mut random = Random::new(17);
    let (mut n_read, mut n_refused) = (0, 0);
    for round in 0..20_000 {
        let mut line = SEEDS[round % SEEDS.len()].to_string();
        for _ in 0..random.below(4) {
            let at =
                (0..=line.len()).filter(|at| line.is_char_boundary(*at)).nth(random.below(line.len())).unwrap_or(0);
            let end = (at + random.below(6)).min(line.len());
            let end = if line.is_char_boundary(end) { end } else { at };
            line.replace_range(at..end, PARTS[random.below(PARTS.len())]);
        }
        let mut lines = PromptLines::new(line.as_bytes(), Path::new("p.jsonl"));
        let Some(numbered) = lines.next().unwrap() else { continue };
        match numbered.prompt {
            Ok(prompt) => {
                n_read += 1;
                // What was read can be listed, and messages are those of the line.
                let n_unknown = prompt.unrecognised().len();
                assert!(n_unknown <= line.matches(':').count(), "{line}");
                if let Prompt::Messages(messages) = &prompt.request.prompt {
                    assert!(!messages.is_empty() && messages.len() <= line.matches('{').count(), "{line}");
                }
            }
            Err(error) => {
                n_refused += 1;
                let message = error.message();
                assert!(message.starts_with("p.jsonl: line 1: ") && message.len() < 600, "{line}: {message}");
                assert!(!message.contains('\n'), "{line}: {message}");
            }
        }
    }
    assert!(n_read > 4000 && n_refused > 4000, "{n_read} read, {n_refused} refused");
}
