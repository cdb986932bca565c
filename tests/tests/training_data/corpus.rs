//! Broken files and rows (C67 to C72 of the malformed inputs), each with its exact sentence.

use lichen_tests::formats::corpus::Case;
use lichen_trainer::data::{DataOptions, Truncation};

use crate::support::{open, plain, samples, Chat};

const GOOD: &str = r#"{"instruction": "a", "input": "", "output": "b"}"#;

/// (id, row, what is said about it).
const BAD_ROWS: &[(&str, &str, &str)] = &[
    ("C69 comma", r#"{"instruction": "a" "output": "b"}"#, r#"expected "," or "}" at column 21"#),
    ("C69 Kannada", r#"{"output": "ಕನ್ನಡ" 7}"#, r#"expected "," or "}" at column 20"#),
    ("C69 cut inside", r#"{"instruction": "a", "outp"#, "EOF while parsing a string at column 26"),
    ("C69 two rows", r#"{"instruction": "a", "output": "b"}{}"#, "trailing characters at column 36"),
    ("C69 text", "instruction: a", "expected value at column 1"),
    ("C69 number", r#"{"input_ids": [1e999]}"#, "number out of range at column 20"),
    ("C70 array", "[1, 2]", "a row is an array; an object is needed"),
    ("C70 string", "\"instruction\"", "a row is \"instruction\"; an object is needed"),
    ("C70 null", "null", "a row is null; an object is needed"),
    ("C70 nothing", "{}", r#"none of "instruction", "messages", "text" and "input_ids" is there"#),
    ("C70 input", r#"{"input": "a"}"#, r#"none of "instruction", "messages", "text" and "input_ids" is there"#),
    ("C70 output", r#"{"instruction": "a", "input": ""}"#, r#""output" is missing"#),
    ("C70 null", r#"{"instruction": "a", "output": null}"#, r#""output" is missing"#),
    ("C70 instruction", r#"{"output": "a"}"#, r#""instruction" is missing"#),
    ("C70 type", r#"{"instruction": "a", "output": 7.0}"#, r#""output" is 7.0; a string is needed"#),
    ("C70 type", r#"{"instruction": {"a": [1]}, "output": "b"}"#, r#""instruction" is an object; a string is needed"#),
    ("C70 type", r#"{"instruction": "a", "input": true, "output": "b"}"#, r#""input" is true; a string is needed"#),
    ("C70 type", r#"{"text": ["a"]}"#, r#""text" is an array; a string is needed"#),
    ("C70 twice", r#"{"output": "a", "instruction": "b", "output": "c"}"#, r#""output" stands twice"#),
    ("C70 messages", r#"{"messages": "hi"}"#, r#""messages" is "hi"; an array is needed"#),
    ("C70 messages", r#"{"messages": []}"#, r#""messages" is empty"#),
    ("C70 message", r#"{"messages": [7]}"#, "message 1: is 7; an object is needed"),
    ("C70 message", r#"{"messages": [{"content": "a"}]}"#, r#"message 1: "role" is missing"#),
    ("C70 message", r#"{"messages": [{"role": "user"}]}"#, r#"message 1: "content" is missing"#),
    (
        "C70 message",
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "bot", "content": "a"}]}"#,
        r#"message 2: "role" is "bot"; system, user, assistant or tool expected"#,
    ),
    (
        "C70 message",
        r#"{"messages": [{"role": "user", "content": [{"type": "image", "image": "a"}]}]}"#,
        r#"message 1: "content"[0] is of type "image"; this model reads text alone"#,
    ),
    (
        "C70 message",
        r#"{"messages": [{"role": "assistant", "content": "", "tool_calls": [{"nome": "f"}]}]}"#,
        r#"message 1: "tool_calls"[0] has no "name" of a function"#,
    ),
    (
        "C70 message",
        r#"{"messages": [{"role": "user", "role": "user", "content": "a"}]}"#,
        r#"message 1: "role" stands twice"#,
    ),
    ("C70 ids", r#"{"input_ids": 7}"#, r#""input_ids" is 7; an array of token ids is needed"#),
    ("C70 ids", r#"{"input_ids": []}"#, r#""input_ids" is empty"#),
    ("C70 ids", r#"{"input_ids": [1, 2.0]}"#, r#""input_ids"[1] is 2.0; a token id is needed"#),
    ("C70 ids", r#"{"input_ids": [1, null, "a"]}"#, r#""input_ids"[1] is null; a token id is needed"#),
    ("C70 ids", r#"{"input_ids": [[1]]}"#, r#""input_ids"[0] is an array; a token id is needed"#),
    ("C70 ids", r#"{"input_ids": [1, 4294967296]}"#, r#""input_ids"[1] is 4294967296; a token id is needed"#),
    ("C70 ids", r#"{"input_ids": [1, 320]}"#, r#""input_ids"[1] is 320; 0 to 319 for this model"#),
    ("C70 ids", r#"{"input_ids": [-100, 3]}"#, r#""input_ids"[0] is -100; 0 to 319 for this model"#),
    ("C70 labels", r#"{"input_ids": [1, 2], "labels": [2]}"#, r#""labels" has 1 items for 2 of "input_ids""#),
    (
        "C70 labels",
        r#"{"input_ids": [1, 2], "labels": [1, 320]}"#,
        r#""labels"[1] is 320; -100 or 0 to 319 for this model"#,
    ),
    (
        "C70 labels",
        r#"{"input_ids": [1, 2], "labels": [1, -1]}"#,
        r#""labels"[1] is -1; -100 or 0 to 319 for this model"#,
    ),
    (
        "C70 labels",
        r#"{"input_ids": [1, 2], "labels": {}}"#,
        r#""labels" is an object; an array of token ids is needed"#,
    ),
    (
        "C70 hostile",
        r#"{"messages": [{"role": "\u001b[2J", "content": ""}]}"#,
        r#"message 1: "role" is "\u{1b}[2J"; system, user, assistant or tool expected"#,
    ),
    (
        "C71 NUL",
        "{\"text\": \"a\0b\"}",
        "control character (\\u0000-\\u001F) found while parsing a string at column 12",
    ),
];

fn bad_rows() -> Vec<Case<Vec<u8>>> {
    let mut cases: Vec<_> =
        BAD_ROWS.iter().map(|&(id, row, message)| Case::new(id, row.as_bytes().to_vec(), message)).collect();
    let mut case = |id, row: Vec<u8>, message: &str| cases.push(Case::new(id, row, message));
    let deep = format!("{{\"output\": {}", "[".repeat(1000));
    case("C69 deep", deep.into_bytes(), "EOF while parsing a list at column 1011");
    case("C71 UTF-8", b"{\"text\": \"a\xffb\"}".to_vec(), "is not UTF-8 from byte 11");
    let long = format!("{{\"text\": \"{}\"}}", "b".repeat(4 << 20));
    case("C71 long", long.into_bytes(), "longer than 4 MiB");
    let text = format!("{{\"text\": \"{}\"}}", "b".repeat((1 << 20) + 1));
    case("C71 text", text.into_bytes(), "\"text\" is 1,048,577 bytes long; at most 1,048,576");
    let turns = r#"{"role": "user", "content": "a"}, "#.repeat(1200);
    let turns = format!("{{\"messages\": [{}]}}", turns.trim_end_matches(", "));
    case("C71 turns", turns.into_bytes(), "\"messages\" has 1,200 turns; at most 1,000");
    cases
}

#[test]
fn bad_rows_are_skipped_and_named() {
    for Case { id, input, message } in bad_rows() {
        let file = [GOOD.as_bytes(), b"\r\n", &input, b"\r\n", GOOD.as_bytes()].concat();
        let dataset = open(&file, Some(Chat::Gemma.encoder()), &plain()).unwrap_or_else(|e| panic!("{id}: {e}"));
        let counts = dataset.counts();
        assert_eq!((counts.rows, counts.usable, counts.bad), (3, 2, 1), "{id}");
        assert_eq!(counts.bad_notes, [format!("line 2: {message} (1 of at most 100 bad lines)")], "{id}");
        assert_eq!(samples(&dataset).iter().map(|s| s.line).collect::<Vec<_>>(), [1, 3], "{id}");

        let strict = DataOptions { strict: true, ..plain() };
        let error = open(&file, Some(Chat::Gemma.encoder()), &strict).err();
        assert_eq!(error, Some(format!("DIR/data.jsonl: line 2: {message}")), "{id}");
    }
}

#[test]
fn a_hundred_bad_lines_and_no_more() {
    let file = |n_bad: usize| format!("{GOOD}\n{}", "{\"output\": \"a\"}\n".repeat(n_bad));
    let encoder = || Some(Chat::Gemma.encoder());
    let dataset = open(file(100).as_bytes(), encoder(), &plain()).unwrap();
    assert_eq!((dataset.n_train(), dataset.counts().bad, dataset.counts().bad_notes.len()), (1, 100, 5));
    assert_eq!(dataset.counts().bad_notes[4], "line 6: \"instruction\" is missing (5 of at most 100 bad lines)");
    let error = open(file(101).as_bytes(), encoder(), &plain()).err().unwrap();
    let expected =
        "DIR/data.jsonl: line 102: \"instruction\" is missing: more than 100 bad lines (the first is line 2: \
                    \"instruction\" is missing (1 of at most 100 bad lines))";
    assert_eq!(error, expected);
}

#[test]
fn c67_a_torn_last_line_is_left_out() {
    // Cut inside a string, a key, a number's array, an escape, a character, and before the last brace.
    let cuts: [&[u8]; 6] = [
        b"{\"instruction\": \"a\", \"output\": \"b",
        b"{\"instr",
        b"{\"input_ids\": [1, 2",
        b"{\"text\": \"a\\u09",
        b"{\"text\": \"a\xe0\xb2",
        b"{\"text\": \"a\"",
    ];
    for cut in cuts {
        let file = [GOOD.as_bytes(), b"\n\n", cut].concat();
        let dataset = open(&file, Some(Chat::Gemma.encoder()), &plain()).unwrap();
        let expected = format!("repaired: dropped {} bytes after line 2 (the last write was cut)", cut.len());
        assert_eq!(dataset.counts().torn, Some(expected));
        assert_eq!((dataset.n_train(), dataset.counts().bad), (1, 0));
        // With a line end it was written whole, and is bad.
        let whole = open(&[&file, b"\n".as_slice()].concat(), Some(Chat::Gemma.encoder()), &plain()).unwrap();
        assert_eq!((whole.counts().torn.as_deref(), whole.counts().bad), (None, 1));
        let strict = open(&file, Some(Chat::Gemma.encoder()), &DataOptions { strict: true, ..plain() }).err().unwrap();
        assert!(
            strict.starts_with("DIR/data.jsonl: line 3: ") && strict.ends_with(" (the last write was cut)"),
            "{strict}"
        );
    }
    let many = format!("{}{{\"in", format!("{GOOD}\n").repeat(1234));
    let dataset = open(many.as_bytes(), Some(Chat::Gemma.encoder()), &plain()).unwrap();
    let expected = "repaired: dropped 4 bytes after line 1,234 (the last write was cut)";
    assert_eq!(dataset.counts().torn.as_deref(), Some(expected));
}

#[test]
fn c68_bom_crlf_blank_lines_and_no_last_line_end_are_accepted() {
    let plain_file = format!("{GOOD}\n{GOOD}\n");
    let expected = samples(&open(plain_file.as_bytes(), Some(Chat::Gemma.encoder()), &plain()).unwrap());
    let files = [
        (format!("\u{feff}{GOOD}\n{GOOD}"), [1, 2], 0),
        (format!("\u{feff}\r\n{GOOD}\r\n \t\r\n{GOOD}\r\n\r\n"), [2, 4], 3),
        (format!("\n\n  {GOOD}  \n{GOOD}"), [3, 4], 2),
        (format!("[{GOOD},{GOOD}]"), [1, 1], 0),
        (format!("\u{feff}[\r\n{GOOD}\r\n,\r\n{GOOD}]\r\n\r\n"), [2, 4], 0),
    ];
    for (file, lines, n_blank) in files {
        let dataset = open(file.as_bytes(), Some(Chat::Gemma.encoder()), &plain()).unwrap_or_else(|e| panic!("{e}"));
        let got = samples(&dataset);
        assert_eq!([got[0].line, got[1].line], lines, "{file:?}");
        assert!(got.iter().zip(&expected).all(|(a, b)| a.ids == b.ids && a.labels == b.labels) && got.len() == 2);
        assert_eq!((dataset.counts().bad, dataset.counts().blank), (0, n_blank), "{file:?}");
    }
}

#[test]
fn c70_long_rows_are_named() {
    let long = format!("{{\"input_ids\": [{}0]}}\n", "1,".repeat(1203));
    let file = format!("{{\"input_ids\": [1, 2]}}\n\n{}", long.repeat(7));
    for (truncation, done, n_cut, n_dropped) in [(Truncation::Cut, "cut", 7, 0), (Truncation::Drop, "skipped", 0, 7)] {
        let options = DataOptions { max_seq: 512, truncation, ..plain() };
        let dataset = open(file.as_bytes(), None, &options).unwrap();
        let counts = dataset.counts();
        assert_eq!((counts.cut, counts.dropped, counts.usable), (n_cut, n_dropped, 1 + n_cut));
        assert_eq!(counts.long_notes.len(), 5);
        assert_eq!(counts.long_notes[0], format!("line 3: 1,204 tokens, context is 512: {done}"));
        assert_eq!(counts.tokens, (2 + 512 * n_cut) as u64);
        assert_eq!(counts.labelled_tokens, (1 + 511 * n_cut) as u64);
        assert_eq!(counts.longest, if n_cut > 0 { 512 } else { 2 });
    }
}

#[test]
fn c72_nothing_usable_is_an_error() {
    let long = "{\"input_ids\": [1, 2, 3]}\n".repeat(88);
    let bad = "{\"input_ids\": 1}\n".repeat(32);
    let empty = "{\"text\": \"\"}\n".repeat(3);
    let options = DataOptions { max_seq: 2, truncation: Truncation::Drop, ..plain() };
    let cases = [
        (format!("{long}{bad}"), "no usable samples in 120 lines (88 too long, 32 bad): nothing to train"),
        (
            format!("{bad}{long}\n{empty}{{"),
            "no usable samples in 124 lines (88 too long, 32 bad, 3 without labels, 1 torn): nothing to train",
        ),
        (String::new(), "no usable samples in 0 lines: nothing to train"),
        ("\u{feff}\r\n".into(), "no usable samples in 0 lines: nothing to train"),
        ("[ ]".into(), "no usable samples in 0 lines: nothing to train"),
    ];
    for (file, expected) in cases {
        let error = open(file.as_bytes(), Some(Chat::Gemma.encoder()), &options).err();
        assert_eq!(error, Some(format!("DIR/data.jsonl: {expected}")));
    }
    // Equal rows, and equal ids of rows, are the data set's business.
    let twice = r#"{"id": 1, "input_ids": [1, 2]}"#;
    assert_eq!(open(format!("{twice}\n{twice}").as_bytes(), None, &plain()).unwrap().n_train(), 2);
}
