//! Lines that are read, and what is said of those that are not.

use serde_json::Value;

use super::*;
use crate::engine::answer::{Answer, FinishReason, Timings};
use crate::engine::request::{Prompt, SamplingOverrides};
use crate::files::disk::RealDisk;
use crate::sampler::SamplerConfig;
use crate::text::chat_template::{Message, Role};

/// A line's settings over the seed 9.
fn over_nine(line: &PromptLine) -> SamplerConfig {
    let flags = SamplingOverrides { seed: Some(9), ..SamplingOverrides::default() };
    line.request.sampling.or(flags).resolve(SamplerConfig::default())
}

fn parse(line: &str) -> Result<PromptLine> {
    PromptLine::parse(7, line.as_bytes())
}

#[test]
fn lines_say_what_they_ask() {
    let line = parse(r#"{"prompt": "a", "id": 3, "seed": 18446744073709551615, "stop": "x", "top_p": 0.5}"#).unwrap();
    assert_eq!(line.request.prompt, Prompt::Text("a".into()));
    let config = over_nine(&line);
    assert_eq!((config.seed, config.top_p, config.temperature), (u64::MAX, 0.5, 1.0));
    assert_eq!(line.request.stop, Some(vec!["x".to_string()]));
    let line = parse(r#"{"messages": [{"role": "developer", "content": "b"}], "seed": null, "stop": ["x", "y"]}"#);
    let line = line.unwrap();
    assert_eq!(line.request.prompt, Prompt::Messages(vec![Message::new(Role::System, "b")]));
    assert_eq!(over_nine(&line).seed, 9);
    assert_eq!(parse(r#"{"tokens": [3, 1, 4]}"#).unwrap().request.prompt, Prompt::Tokens(vec![3, 1, 4]));
}

#[test]
fn what_a_line_does_not_want_is_no_error_and_what_says_nothing_is_listed() {
    let line =
        parse(r#"{"id": 3, "prompt": "a", "logprobs": false, "tools": [], "logit_bias": {}, "presence_penalty": 0}"#);
    let line = line.unwrap();
    assert_eq!(line.unrecognised().into_iter().collect::<Vec<_>>(), ["id"]);
    assert!(line.request.tools.is_empty());
    let line =
        parse(r#"{"messages": [{"role": "user", "content": "a", "weight": 1}], "x": 1, "n": 1, "stream": false}"#);
    let unrecognised = line.unwrap().unrecognised();
    assert_eq!(unrecognised.into_iter().collect::<Vec<_>>(), ["messages[].weight", "x"]);
}

#[test]
fn words_of_others_mean_what_they_mean_there() {
    let line = parse(
        r#"{"prompt": "a", "max_tokens": 5, "repetition_penalty": 1.5, "parse_special": true, "tool_choice": "auto",
            "tools": [{"type": "function"}], "response_format": {"type": "text"}, "seed": null}"#,
    );
    let request = line.unwrap().request;
    assert_eq!((request.max_new_tokens, request.sampling.repeat_penalty), (Some(5), Some(1.5)));
    assert!(request.parse_special && request.tools.len() == 1);
    let line =
        parse(r#"{"prompt": "a", "max_completion_tokens": 6, "max_tokens": 6, "tool_choice": "none", "tools": [{}]}"#);
    let request = line.unwrap().request;
    assert_eq!((request.max_new_tokens, request.tools.len()), (Some(6), 0));
}

#[test]
fn bad_lines_are_refused_with_a_reason() {
    let cases = [
        ("x", "is no JSON: expected value at column 1"),
        (r#"{"prompt": "a""#, "is no JSON: EOF while parsing an object at column 14"),
        ("[1]", "is no JSON object"),
        ("{}", "needs one of"),
        (
            r#"{"prompt": "a", "max_tokens": 5, "max_new_tokens": 6}"#,
            "has \"max_new_tokens\" and \"max_tokens\", which are one setting",
        ),
        (r#"{"prompt": "a", "tools": 5}"#, "tools is 5; a list of objects"),
        (r#"{"prompt": "a", "tools": ["f"]}"#, "tools has \"f\"; a list of objects"),
        (r#"{"tokens": [1], "tools": [{}]}"#, "has \"tools\", which \"tokens\" have no place for"),
        (r#"{"prompt": "a", "tool_choice": "required"}"#, "has \"tool_choice\": \"required\", which is not supported"),
        (r#"{"prompt": "a", "n": 2}"#, "has \"n\": 2, which is not supported"),
        (r#"{"prompt": "a", "stream": true}"#, "has \"stream\": true, which is not supported"),
        (r#"{"prompt": "a", "logprobs": true}"#, "has \"logprobs\", which is not supported"),
        (r#"{"prompt": "a", "response_format": {"type": "json_object"}}"#, "has \"response_format\", which is not"),
        (r#"{"prompt": "a", "parse_special": "yes"}"#, "parse_special is \"yes\"; true or false"),
        (
            r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#,
            "message 1: part 1 of \"content\" is of type \"image_url\"; only text is supported",
        ),
        (r#"{"prompt": "a", "tokens": [1]}"#, "needs one of"),
        (r#"{"prompt": 3}"#, "\"prompt\" is 3; a text expected"),
        (r#"{"messages": []}"#, "\"messages\" is empty"),
        (r#"{"messages": [{"role": "user"}]}"#, "message 1: \"content\" is missing"),
        (
            r#"{"messages": [{"role": "cat", "content": ""}]}"#,
            "message 1: \"role\" is \"cat\"; system, user, assistant or tool",
        ),
        (r#"{"tokens": [1, -1]}"#, "\"tokens\" is [1,-1]; a list of token ids expected"),
        (r#"{"tokens": [4294967296]}"#, "a list of token ids expected"),
        (r#"{"prompt": "a", "max_new_tokens": 1.5}"#, "max_new_tokens is 1.5; 0 to 16777216"),
        (r#"{"prompt": "a", "temperature": "hot"}"#, "temperature is \"hot\"; 0 to 5"),
        (r#"{"prompt": "a", "stop": [1]}"#, "stop is [1]; a text or a list of texts"),
        (r#"{"prompt": "a", "system": 5}"#, "system is 5; a text"),
        (r#"{"prompt": "a", "ignore_eos": 1}"#, "ignore_eos is 1; true or false"),
        (r#"{"prompt": "a", "text": "b"}"#, "has a field \"text\", which is the answer's"),
        (r#"{"tokens": [1], "system": "b"}"#, "has \"system\", which goes with \"prompt\" alone"),
        (r#"{"prompt": 0.1234567890123456789012345678901234567890123456789}"#, "\"prompt\" is 0.12345678901234"),
    ];
    for (line, expected) in cases {
        let error = parse(line).unwrap_err();
        assert!(error.message().contains(expected), "{line}: {error}");
    }
}

/// Numbers count every line, also blank ones and those too long to be held.
#[test]
fn lines_are_numbered_as_an_editor_does() {
    let long = format!("{{\"prompt\": \"{}\"}}", "x".repeat(LINE_BYTES_MAX));
    let text = format!("\u{feff}{{\"prompt\": \"a\"}}\r\n\n  \nno\n{long}\n{{\"prompt\": \"b\"}}");
    let mut lines = PromptLines::new(text.as_bytes(), Path::new("p.jsonl"));
    let mut seen = Vec::new();
    while let Some(Numbered { number, prompt }) = lines.next().unwrap() {
        seen.push((number, prompt.map(|p| p.request.prompt).map_err(|e| e.message().to_string())));
    }
    assert_eq!(seen[0], (1, Ok(Prompt::Text("a".into()))));
    assert_eq!(seen[1], (4, Err("p.jsonl: line 4: is no JSON: expected ident at column 2".into())));
    assert_eq!(seen[2], (5, Err("p.jsonl: line 5: the line is longer than 32 MiB".into())));
    assert_eq!(seen[3], (6, Ok(Prompt::Text("b".into()))));
    assert_eq!((seen.len(), lines.n_bytes()), (4, text.len() as u64));
}

fn answer(text: &str) -> Answer {
    let timings = Timings { prompt_tokens: 2, new_tokens: 1, ..Timings::default() };
    Answer { token_ids: vec![5], text: text.into(), timings, ..Answer::empty(2, FinishReason::Stop) }
}

#[test]
fn answers_carry_the_prompts_fields_and_can_be_continued() {
    let dir = std::env::temp_dir().join(format!("lichen-answers-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("answers.jsonl");
    let _ = std::fs::remove_file(&path);
    let prompt = parse(r#"{"prompt": "a\u0007", "id": {"x": [1, null]}, "lang": "kn"}"#).unwrap();
    let line = answer_line(&prompt, &answer("b\n\"c\""), 11, true);
    let value: Value = serde_json::from_str(&line).unwrap();
    for (name, want) in [
        ("line", Value::from(7)),
        ("prompt", "a\u{7}".into()),
        ("lang", "kn".into()),
        ("text", "b\n\"c\"".into()),
        ("seed", 11.into()),
        ("finish_reason", "stop".into()),
        ("new_tokens", 1.into()),
    ] {
        assert_eq!(value[name], want, "{name}: {line}");
    }
    assert!(value["id"]["x"][1].is_null() && value.get("token_ids").is_none() && !line.contains('\n'));

    let mut file = AnswerFile::create(&RealDisk, &path).unwrap();
    file.write(line.clone()).unwrap();
    // One writer at a time.
    let second = AnswerFile::resume(&RealDisk, &path).err().unwrap();
    assert!(second.message().contains("another program is writing to it"), "{second}");
    drop(file);
    assert!(AnswerFile::create(&RealDisk, &path).err().unwrap().message().contains("already exists"));
    // Half a line at the end, as a power cut leaves it.
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, [&whole[..], &whole[..30]].concat()).unwrap();
    let (file, answered, torn) = AnswerFile::resume(&RealDisk, &path).unwrap();
    assert!(torn.is_some() && std::fs::read(&path).unwrap() == whole);
    assert_eq!((answered.len(), answered.has(&prompt).unwrap()), (1, true));
    let other = parse(r#"{"prompt": "b"}"#).unwrap();
    assert!(answered.has(&other).unwrap_err().message().contains("has changed since it was answered"));
    drop(file);
    std::fs::write(&path, "{\"line\": 1}\n").unwrap();
    let error = AnswerFile::resume(&RealDisk, &path).err().unwrap();
    assert!(error.message().contains("line 1: is no answer"), "{error}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_file_of_something_else_is_refused_before_anything_is_cut() {
    let path = std::env::temp_dir().join(format!("lichen-no-answers-{}", std::process::id()));
    for (content, is_refused) in [
        (&b"notes of a meeting\nand more"[..], true),
        (b"no line feed at all", true),
        (b"{\"a\":1}", true),
        (b"{\"prompt\":\"a\"}\n", true),
        (b"{\"line\":3,\"line_ha", false),
        (b"\0\0\0\0", false),
        (b"", false),
    ] {
        std::fs::write(&path, content).unwrap();
        match AnswerFile::resume(&RealDisk, &path) {
            Err(error) => {
                assert!(is_refused && error.message().contains("is no answer"), "{error}");
                assert_eq!(std::fs::read(&path).unwrap(), content);
            }
            Ok((_, answered, _)) => assert!(!is_refused && answered.is_empty(), "{content:?}"),
        }
    }
    std::fs::remove_file(&path).unwrap();
}
