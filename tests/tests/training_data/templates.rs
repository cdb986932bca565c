//! Templates and answers whose borders cannot be proved are refused by name.

use std::sync::Arc;

use lichen_runtime::text::chat_template::ChatTemplate;
use lichen_runtime::text::tokenizer::Tokenizer;
use lichen_trainer::data::{DataOptions, TextEncoder};
use serde_json::json;

use crate::support::{labelled, open, plain, with_template, Chat};
use crate::text_support::byte_level_arrays;

const CONVERSATION: &str = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#;

fn check(encoder: TextEncoder, row: &str, expected: &str) {
    let options = DataOptions { strict: true, ..plain() };
    let error = open(row.replace('\n', " ").as_bytes(), Some(encoder), &options).err();
    assert_eq!(error.as_deref(), Some(format!("DIR/data.jsonl: line 1: {expected}").as_str()));
}

fn double_line_ends() -> TextEncoder {
    let arrays = byte_level_arrays();
    let n_tokens = arrays.tokens.len();
    let tokenizer = Tokenizer::from_arrays(arrays, n_tokens).expect("a vocabulary");
    TextEncoder::new(Arc::new(tokenizer), ChatTemplate::ChatMl)
}

#[test]
fn answers_are_found_or_refused() {
    let row = json!({"messages": [{"role": "assistant", "content": "b"}]}).to_string();
    check(Chat::Qwen.encoder(), &row, "message 1 is an answer, and nothing is asked before it");
    let row = json!({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]}).to_string();
    check(
        Chat::GemmaBuiltIn.encoder(),
        &row,
        "chat template: turn 2 is from user; assistant expected (roles must alternate user/assistant)",
    );
    check(
        Chat::Gemma.encoder(),
        &row,
        "chat template, line 3: Conversation roles must alternate user/assistant/user/assistant/...",
    );
}

/// Two line ends are one token of this vocabulary, and the template writes the first: it is the answer's.
#[test]
fn a_token_on_the_border_is_the_answers() {
    for row in [
        json!({"instruction": "a", "output": "\nb"}),
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\nb"}]}),
    ] {
        let dataset = open(row.to_string().as_bytes(), Some(double_line_ends()), &plain()).unwrap();
        let sample = dataset.train(0, 0).unwrap();
        assert_eq!(labelled(double_line_ends().tokenizer(), &sample), ["\n\nb<|im_end|>"]);
    }
}

#[test]
fn templates_without_borders_are_refused() {
    // No control token behind an answer.
    let open_ended = "<bos>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}\
                      {% if add_generation_prompt %}assistant: {% endif %}";
    let expected = "message 2 has no end: the chat template writes no control token after it";
    check(with_template(open_ended), CONVERSATION, expected);

    // The opening of an answer is not what the generation prompt writes.
    let other_opening = "<bos>{% for m in messages %}{{ m.role }}: {{ m.content }}<end_of_turn>\n{% endfor %}\
                         {% if add_generation_prompt %}model: {% endif %}";
    let expected =
        "message 2 is not where the chat template begins an answer: it writes what is before it in another way";
    check(with_template(other_opening), CONVERSATION, expected);

    // One that opens an answer with more than the conversation holds is understood.
    let thinking =
        "<bos>{% for m in messages %}{{ m.role }}: {{ m.content.split('</think>')[-1] }}<end_of_turn>\n{% endfor %}\
                    {% if add_generation_prompt %}assistant: <think>\n{% endif %}";
    let dataset = open(CONVERSATION.replace('\n', " ").as_bytes(), Some(with_template(thinking)), &plain()).unwrap();
    let sample = dataset.train(0, 0).unwrap();
    assert_eq!(labelled(&Chat::Gemma.tokenizer(), &sample), ["b<end_of_turn>", "d<end_of_turn>"]);

    // Only the last answer is written whole.
    let forgetful = "<bos>{% for m in messages %}{{ m.role }}: {% if m.role == 'user' or loop.last %}{{ m.content }}\
                     {% endif %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    let dataset = open(CONVERSATION.replace('\n', " ").as_bytes(), Some(with_template(forgetful)), &plain()).unwrap();
    let sample = dataset.train(0, 0).unwrap();
    assert_eq!(labelled(&Chat::Gemma.tokenizer(), &sample), ["d<end_of_turn>"]);
}
