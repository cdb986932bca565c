//! The shapes in which data sets are published: each gives what the same row as `messages` gives.

use lichen_trainer::data::{DataOptions, LossOn, Sample};
use serde_json::{json, Value};

use crate::support::{labelled, open, plain, samples, with_template, Chat};

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

fn system(text: &str) -> Value {
    json!({"role": "system", "content": text})
}

/// The one sample that a row gives.
fn sample_with(row: &Value, chat: Chat, options: &DataOptions) -> Sample {
    let dataset = open(row.to_string().as_bytes(), Some(chat.encoder()), options);
    let dataset = dataset.unwrap_or_else(|e| panic!("{chat:?}: {row}: {e}"));
    assert_eq!(dataset.n_train(), 1, "{row}: {:?}", dataset.counts());
    dataset.train(0, 0).unwrap()
}

fn sample(row: &Value, chat: Chat) -> Sample {
    sample_with(row, chat, &plain())
}

fn notes(row: &Value, options: &DataOptions) -> Vec<String> {
    let dataset =
        open(row.to_string().as_bytes(), Some(Chat::Gemma.encoder()), options).unwrap_or_else(|e| panic!("{e}"));
    dataset.counts().notes().iter().map(|note| note.text().to_string()).collect()
}

#[test]
fn a_row_says_the_same_in_every_shape() {
    let parts = json!({"role": "user", "content": [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]});
    let pair = json!([user("a"), assistant("c")]);
    let with_system = json!([system("s"), user("a"), assistant("c")]);
    let with_input = json!([user("a\n\nb"), assistant("c")]);
    let cases = [
        (json!({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "c"}]}), &pair),
        (json!({"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "c"}]}), &pair),
        (json!({"conversation": pair}), &pair),
        (json!({"conversations": pair, "messages": null}), &pair),
        (
            json!({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, {"from": "gpt", "value": "c"}]}),
            &with_system,
        ),
        (json!({"prompt": "a", "completion": "c"}), &pair),
        (json!({"prompt": "a", "response": "c"}), &pair),
        (json!({"prompt": [user("a")], "completion": [assistant("c")]}), &pair),
        (json!({"prompt": [user("a")], "completion": "c"}), &pair),
        (json!({"prompt": [system("s"), user("a")], "completion": [assistant("c")]}), &with_system),
        (json!({"question": "a", "answer": "c"}), &pair),
        (json!({"query": "a", "response": "c"}), &pair),
        (json!({"instruction": "a", "response": "c", "input": ""}), &pair),
        (json!({"instruction": "", "input": "a", "output": "c"}), &pair),
        (json!({"input": "a", "output": "c"}), &pair),
        (json!({"instruction": "a", "input": "b", "output": "c"}), &with_input),
        (json!({"instruction": "a", "context": "b", "response": "c"}), &with_input),
        (json!({"question": "a", "context": "b", "answer": "c"}), &with_input),
        (json!({"instruction": "a", "output": "c", "system": "s"}), &with_system),
        (json!({"system_prompt": "s", "question": "a", "response": "c"}), &with_system),
        (json!({"system": "s", "messages": pair}), &with_system),
        (json!({"system": "s", "messages": with_system}), &with_system),
        (json!({"system": "", "tools": null, "history": [], "instruction": "a", "output": "c"}), &pair),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": [{"text": "c", "type": "text"}]}]}),
            &pair,
        ),
        (json!({"messages": [parts, assistant("c")]}), &json!([user("a \nb"), assistant("c")])),
        (
            json!({"instruction": "e", "output": "f", "system": "s", "history": [["a", "b"], ["c", "d"]]}),
            &json!([system("s"), user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f")]),
        ),
    ];
    for chat in Chat::ALL {
        for (row, messages) in &cases {
            assert_eq!(sample(row, chat), sample(&json!({ "messages": messages }), chat), "{chat:?}: {row}");
            assert_eq!(notes(row, &plain()), [""; 0], "{row}");
        }
    }
}

#[test]
fn what_is_asked_is_not_learned_and_messages_say_of_themselves() {
    let talk = [user("a"), assistant("b"), user("c"), assistant("d")];
    let weighted = |weight: Value| {
        let mut messages = talk.clone();
        messages[1]["weight"] = weight;
        json!({ "messages": messages })
    };
    let mut train = talk.clone();
    (train[0]["train"], train[1]["train"], train[3]["training"]) = (json!(false), json!(true), json!(false));
    let cases = [
        (json!({"prompt": talk[..3], "completion": [talk[3]]}), vec!["d"]),
        (json!({"prompt": talk[..1], "completion": talk[1..]}), vec!["b", "d"]),
        (weighted(json!(0)), vec!["d"]),
        (weighted(json!(0.0)), vec!["d"]),
        (weighted(json!(1)), vec!["b", "d"]),
        (weighted(Value::Null), vec!["b", "d"]),
        (json!({ "messages": train }), vec!["b"]),
    ];
    for (chat, end) in [(Chat::Gemma, "<end_of_turn>"), (Chat::Qwen, "<|im_end|>")] {
        let tokenizer = chat.tokenizer();
        let all = DataOptions { loss_on: LossOn::All, ..plain() };
        for (row, answers) in &cases {
            let expected: Vec<String> = answers.iter().map(|answer| format!("{answer}{end}")).collect();
            assert_eq!(labelled(&tokenizer, &sample(row, chat)), expected, "{row}");
            // What is not to be learned stays so when everything else is.
            let text = labelled(&tokenizer, &sample_with(row, chat, &all)).concat();
            let is_said = row.get("messages").is_some();
            for (answer, key) in [("b", 1), ("d", 3)] {
                let learned = answers.contains(&answer) || !is_said;
                assert_eq!(text.contains(&format!("\n{answer}{end}")), learned, "{row}, {key}: {text}");
            }
        }
    }
    let none =
        open(weighted(json!(0)).to_string().replace("\"d\"", "\" \"").as_bytes(), Some(Chat::Qwen.encoder()), &plain());
    let error = none.err().unwrap();
    assert!(error.ends_with("no usable samples in 1 line (1 without labels): nothing to train"), "{error}");
}

#[test]
fn masks_say_which_ids_are_learned_and_which_are_padding() {
    let cases = [
        (json!({"input_ids": [7, 8, 9], "attention_mask": [1, 1, 1]}), vec![7, 8, 9], vec![-100, 8, 9]),
        (json!({"input_ids": [0, 0, 7, 8, 0], "attention_mask": [0, 0, 1, 1, 0]}), vec![7, 8], vec![-100, 8]),
        (json!({"input_ids": [7, 8, 9], "completion_mask": [0, 0, 1]}), vec![7, 8, 9], vec![-100, -100, 9]),
        (json!({"input_ids": [7, 8, 9], "assistant_masks": [false, true, false]}), vec![7, 8, 9], vec![-100, 8, -100]),
        (
            json!({"input_ids": [7, 8, 9, 0], "labels": [7, 8, 9, 0], "completion_mask": [0, 1, 1, 1], "loss_mask": [1, 1, 0, 1], "attention_mask": [1, 1, 1, 0]}),
            vec![7, 8, 9],
            vec![-100, 8, -100],
        ),
        (json!({"input_ids": [7, 8], "position_ids": [0, 1], "labels": null}), vec![7, 8], vec![-100, 8]),
    ];
    for (row, ids, labels) in cases {
        let dataset = open(row.to_string().as_bytes(), None, &plain()).unwrap_or_else(|e| panic!("{row}: {e}"));
        let sample = dataset.train(0, 0).unwrap();
        assert_eq!((sample.ids, sample.labels), (ids, labels), "{row}");
        assert_eq!(dataset.counts().unused, [], "{row}");
    }
}

/// A template with a place for them writes tools and calls; one without is given them too, and the row says the same.
#[test]
fn tools_and_calls_reach_the_template() {
    let template = "<bos>{% for tool in tools or [] %}{{ tool | tojson }};{% endfor %}{% for m in messages %}\
                    {{ m.role }}: {{ m.content }}{% for call in m.tool_calls or [] %}{{ call.function.name }}({{ call.function.arguments | tojson }})\
                    {% endfor %}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {}}}]);
    let call = json!({"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\": 1}"}}]});
    let messages = json!([user("a"), call, {"role": "tool", "content": "7", "tool_call_id": "1"}, assistant("b")]);
    let share_gpt = json!([
        {"from": "human", "value": "a"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
        {"from": "observation", "value": "7"},
        {"from": "gpt", "value": "b"},
    ]);
    let rows = [
        json!({"messages": messages, "tools": tools}),
        json!({"messages": messages, "tools": tools.to_string()}),
        json!({"conversations": share_gpt, "tools": tools.to_string()}),
    ];
    let tokenizer = Chat::Gemma.tokenizer();
    for row in rows {
        let dataset =
            open(row.to_string().as_bytes(), Some(with_template(template)), &plain()).unwrap_or_else(|e| panic!("{e}"));
        let sample = &samples(&dataset)[0];
        let text = tokenizer.decode_with_markers(&sample.ids);
        assert!(
            text.starts_with(
                "<bos>{\"type\": \"function\", \"function\": {\"name\": \"f\", \"parameters\": {}}};user: a"
            ),
            "{text}"
        );
        assert_eq!(labelled(&tokenizer, sample), ["f({\"x\": 1})<end_of_turn>", "b<end_of_turn>"], "{row}");
    }
    // A built-in template has no place for them.
    let row = json!({"messages": [user("a"), assistant("b")], "tools": tools});
    let error =
        open(row.to_string().as_bytes(), Some(Chat::QwenBuiltIn.encoder()), &DataOptions { strict: true, ..plain() });
    let error = error.err().unwrap();
    assert!(error.contains("template has no place for tools"), "{error}");
}

#[test]
fn keys_that_are_not_used_are_said_once() {
    let row = json!({
        "messages": [{"role": "user", "content": "a", "nick": "x"}, assistant("b")],
        "text": "c", "id": 7, "lang": null, "meta": {}, "history": [["a", "b"]],
    });
    let rows = format!("{row}\n{row}\n{}\n", json!({"instruction": "a", "output": "b", "id": 8, "score": 0}));
    let dataset = open(rows.as_bytes(), Some(Chat::Gemma.encoder()), &plain()).unwrap();
    let said: Vec<_> = dataset.counts().notes().iter().map(|note| note.text().to_string()).collect();
    let expected = "keys that are not used: \"id\" (3 rows), \"meta\" (2 rows), \"messages[].nick\" (2 rows), \
                    \"text\" (2 rows), \"history\" (2 rows), \"score\" (1 row)";
    assert_eq!(said, [expected]);
}

/// A text that was rendered with a chat template: its control tokens are characters unless they are asked for.
#[test]
fn control_tokens_that_are_written_out_are_said_or_read() {
    let parsed = DataOptions { parse_special: true, ..plain() };
    let turns = "<start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n";
    let tokenizer = Chat::Gemma.tokenizer();
    let chat = sample(&json!({"messages": [user("a"), assistant("b")]}), Chat::Gemma);
    for text in [turns.to_string(), format!("<bos>{turns}")] {
        let row = json!({ "text": text });
        let read = sample_with(&row, Chat::Gemma, &parsed);
        assert_eq!(read.ids, chat.ids, "{text}");
        assert_eq!(labelled(&tokenizer, &read), [turns]);
        assert_eq!(notes(&row, &parsed), [""; 0]);
        let plain_text = sample(&row, Chat::Gemma);
        assert_eq!(plain_text.ids.iter().filter(|&&id| tokenizer.is_control(id)).count(), 2, "BOS and EOS alone");
        let said = notes(&row, &plain());
        assert!(said.len() == 1 && said[0].starts_with("1 row with control tokens written out, such as <"), "{said:?}");
        assert!(said[0].contains("parse_special"), "{said:?}");
    }
    // EOS is added where the text does not end by itself.
    let row = json!({"text": "<start_of_turn>a"});
    assert_eq!(
        tokenizer.decode_with_markers(&sample_with(&row, Chat::Gemma, &parsed).ids),
        "<bos><start_of_turn>a<eos>"
    );
    // In a message nothing reads them as tokens.
    let row = json!({"prompt": "a", "completion": "b<end_of_turn>"});
    for options in [plain(), parsed] {
        assert!(notes(&row, &options)[0].starts_with("1 row with control tokens written out, such as <end_of_turn>"));
    }
}
