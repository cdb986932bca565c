//! Files of regression prompts.

use lichen_tests::formats::corpus::TempDir;
use lichen_trainer::data::{read_regression_prompts, RegressionPrompt};

fn read(bytes: &[u8]) -> Result<Vec<RegressionPrompt>, String> {
    let dir = TempDir::new();
    let path = dir.write("regression_prompts.jsonl", bytes);
    read_regression_prompts(&path).map_err(|e| e.message().replace(&dir.path().display().to_string(), "DIR"))
}

#[test]
fn rows_are_read() {
    let text = "\u{feff}{\"prompt\": \"2+2?\", \"expect\": \"Four\", \"id\": 1}\r\n\r\n{\"expect\":\"ದೆಹಲಿ\",\"prompt\":\"राजधानी?\"}";
    let regression_prompts = read(text.as_bytes()).unwrap();
    let regression_prompt =
        |prompt: &str, expect: &str, line| RegressionPrompt { prompt: prompt.into(), expect: expect.into(), line };
    assert_eq!(regression_prompts, [regression_prompt("2+2?", "Four", 1), regression_prompt("राजधानी?", "ದೆಹಲಿ", 3)]);
    let answers = [("It is FOUR.", true), ("four", true), ("for", false), ("", false)];
    for (answer, expected) in answers {
        assert_eq!(regression_prompts[0].is_met_by(answer), expected, "{answer}");
    }
    let array = read(b"[{\"prompt\": \"a\", \"expect\": \"b\"}]").unwrap();
    assert_eq!(array, [regression_prompt("a", "b", 1)]);
}

#[test]
fn broken_files_are_refused() {
    let good = "{\"prompt\": \"a\", \"expect\": \"b\"}\n";
    let cases = [
        ("", "holds no regression prompts: {\"prompt\": \"..\", \"expect\": \"..\"} on each line"),
        ("\n\r\n", "holds no regression prompts: {\"prompt\": \"..\", \"expect\": \"..\"} on each line"),
        ("7\n", "line 1: a regression prompt is 7; an object is needed"),
        ("\n{\"prompt\": \"a\"}\n", "line 2: \"expect\" is missing"),
        ("{\"prompt\": \"a\", \"expect\": 4}", "line 1: expect is 4; a string expected"),
        ("{\"prompt\": \"a\", \"expect\": \" \"}", "line 1: \"expect\" is empty"),
        ("{\"prompt\": \"\", \"expect\": \"b\"}", "line 1: \"prompt\" is empty"),
        ("{\"prompt\": \"a\" \"expect\": \"b\"}", "line 1: expected \",\" or \"}\" at column 16"),
        ("{\"prompt\": \"a\", \"exp", "line 1: EOF while parsing a string at column 20"),
        ("<html>", "is an HTML or XML page, not rows of JSON (a failed download?)"),
    ];
    for (text, expected) in cases {
        assert_eq!(read(text.as_bytes()).err(), Some(format!("DIR/regression_prompts.jsonl: {expected}")), "{text}");
    }
    assert_eq!(read(good.repeat(1000).as_bytes()).unwrap().len(), 1000);
    let error = read(good.repeat(1001).as_bytes()).err().unwrap();
    assert_eq!(error, "DIR/regression_prompts.jsonl: line 1001: more than 1000 regression prompts");
    let error = read(&[good.as_bytes(), b"{\"prompt\": \"\xff\"}"].concat()).err().unwrap();
    assert_eq!(error, "DIR/regression_prompts.jsonl: line 2: is not UTF-8 from byte 12");
    let long = format!("{{\"prompt\": \"a\", \"expect\": \"{}\"}}", "b".repeat(4 << 20));
    assert_eq!(read(long.as_bytes()).err().unwrap(), "DIR/regression_prompts.jsonl: line 1: longer than 4 MiB");
}
