use serde::de::DeserializeSeed;
use serde_json::{json, Value};

use super::*;
use crate::text::chat_template::ToolCall;

fn entries(text: &str) -> Result<Vec<MessageEntry>, String> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let streamed = seed::<MessageList<3>>().deserialize(&mut deserializer).unwrap().entries("messages");
    let value: Value = serde_json::from_str(text).unwrap();
    let from_tree = seed::<MessageList<3>>().deserialize(&value).unwrap().entries("messages");
    assert!(streamed == from_tree || text.contains("twice"), "{text}: {streamed:?} {from_tree:?}");
    streamed
}

/// Read from the text, and from the tree of values that is made of it: the same, but that the tree has no key twice.
fn read(text: &str) -> Result<Vec<Message>, String> {
    Ok(entries(text)?.into_iter().map(|entry| entry.message).collect())
}

#[test]
fn messages_are_read() {
    let cases = [
        (
            r#"[{"role": "developer", "content": "a"}, {"content": "b\n", "x": [1, {}], "role": "model", "tool_calls": null}]"#,
            vec![Message::system("a"), Message::assistant("b\n")],
        ),
        (
            r#"[{"from": "system", "value": "s"}, {"from": "human", "value": "a"}, {"value": "b", "from": "gpt"}]"#,
            vec![Message::system("s"), Message::user("a"), Message::assistant("b")],
        ),
        (r#"[{"from": "user", "content": "a"}]"#, vec![Message::user("a")]),
        (r#"[{"role": "assistant", "content": "", "tool_calls": []}]"#, vec![Message::assistant("")]),
        (
            r#"[{"role": "user", "content": [{"type": "text", "text": "a ", "image": null}, "b", {"text": " c", "x": ""}]}]"#,
            vec![Message { parts: ["a ", "b", " c"].map(String::from).to_vec(), ..Message::user("a \nb\n c") }],
        ),
        (r#"[{"role": "user", "content": []}]"#, vec![Message::user("")]),
        (
            r#"[{"role": "observation", "content": "7", "tool_call_id": "x"}]"#,
            vec![Message { tool_call_id: Some("x".into()), ..Message::new(super::super::Role::Tool, "7") }],
        ),
    ];
    for (text, want) in cases {
        assert_eq!(read(text), Ok(want), "{text}");
    }
}

#[test]
fn calls_are_read_as_objects() {
    let call = |id: Option<&str>| ToolCall {
        id: id.map(String::from),
        name: "f".into(),
        arguments: json!({"b": 1, "a": [true]}),
    };
    let none = ToolCall { id: None, name: "f".into(), arguments: json!({}) };
    let cases = [
        (
            r#"[{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"b\": 1, \"a\": [true]}"}}]}]"#,
            vec![call(Some("1"))],
        ),
        (
            r#"[{"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"b": 1, "a": [true]}}, {"name": "f"}]}]"#,
            vec![call(None), none],
        ),
        (
            r#"[{"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": [true]}}"}]"#,
            vec![call(None)],
        ),
    ];
    for (text, want) in cases {
        let messages = read(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        let expected = Message { tool_calls: want, ..Message::assistant("") };
        assert_eq!(messages, [expected], "{text}");
    }
}

#[test]
fn what_is_said_beside_a_message_is_kept() {
    let text = r#"[{"role": "user", "content": "a", "weight": 0.0, "name": "x", "nick": "y", "id": null},
        {"role": "assistant", "content": "b", "train": true, "mood": {}}, {"role": "assistant", "content": "c", "weight": null}]"#;
    let got: Vec<_> = entries(text).unwrap().into_iter().map(|e| (e.is_trained, e.unused)).collect();
    assert_eq!(got, [(Some(false), vec!["nick".into()]), (Some(true), vec!["mood".into()]), (None, vec![])]);
}

#[test]
fn what_is_no_message_is_refused_with_its_number() {
    let roles = "system, user, assistant or tool expected";
    for (text, want) in [
        ("null", "\"messages\" is missing".to_string()),
        ("{}", "\"messages\" is an object; an array is needed".to_string()),
        ("\"a\"", "\"messages\" is \"a\"; an array is needed".to_string()),
        ("[]", "\"messages\" is empty".to_string()),
        ("[1, 2, 3, 4]", "\"messages\" has 4 turns; at most 3".to_string()),
        ("[[]]", "message 1: is an array; an object is needed".to_string()),
        (r#"[{"role": "user"}]"#, "message 1: \"content\" is missing".to_string()),
        (r#"[{"from": "human"}]"#, "message 1: \"value\" is missing".to_string()),
        (r#"[{"role": "user", "content": 2}]"#, "message 1: \"content\" is 2; a string is needed".to_string()),
        (
            r#"[{"role": "user", "content": ""}, {"role": "cat", "content": ""}]"#,
            format!("message 2: \"role\" is \"cat\"; {roles}"),
        ),
        (r#"[{"from": "cat", "value": ""}]"#, format!("message 1: \"from\" is \"cat\"; {roles}")),
        (r#"[{"role": "user", "role": "user", "content": "twice"}]"#, "message 1: \"role\" stands twice".to_string()),
        (
            r#"[{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image", "url": "b"}]}]"#,
            "message 1: part 2 of \"content\" is of type \"image\"; only text is supported".to_string(),
        ),
        (
            r#"[{"role": "user", "content": [{"image_url": {"url": "b"}}]}]"#,
            "message 1: part 1 of \"content\" holds \"image_url\"; only text is supported".to_string(),
        ),
        (
            r#"[{"role": "user", "content": [{"type": "text"}]}]"#,
            "message 1: part 1 of \"content\" has no text; only text is supported".to_string(),
        ),
        (
            r#"[{"role": "user", "content": [7]}]"#,
            "message 1: part 1 of \"content\" is 7; only text is supported".to_string(),
        ),
        (
            r#"[{"role": "user", "content": "", "images": ["a"]}]"#,
            "message 1: \"images\" is not supported: only text is supported".to_string(),
        ),
        (
            r#"[{"role": "assistant", "content": "", "weight": 0.5}]"#,
            "message 1: \"weight\" is 0.5; 0 or 1, false or true expected".to_string(),
        ),
        (
            r#"[{"role": "user", "content": "", "tool_calls": [{"name": "f"}]}]"#,
            "message 1: \"tool_calls\" is of an assistant's message, and this one is from user".to_string(),
        ),
        (
            r#"[{"role": "assistant", "tool_calls": 7}]"#,
            "message 1: \"tool_calls\" is 7; an array is needed".to_string(),
        ),
        (
            r#"[{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "7"}]}]"#,
            "message 1: tool call 1: \"arguments\" is no JSON object".to_string(),
        ),
        (
            r#"[{"role": "assistant", "tool_calls": [{"function": {}}]}]"#,
            "message 1: tool call 1: \"name\" is missing".to_string(),
        ),
        (
            r#"[{"from": "function_call", "value": "f(7)"}]"#,
            "message 1: a call is not written as JSON: {\"name\": \"..\", \"arguments\": {..}}".to_string(),
        ),
    ] {
        assert_eq!(read(text), Err(want), "{text}");
    }
}
