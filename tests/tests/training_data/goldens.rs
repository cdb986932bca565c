//! Forty conversations against jinja2 and Hugging Face's `tokenizers` (`fixtures/make_labels.py`): every id and every label.

use std::sync::Arc;

use lichen_runtime::text::chat_template::{ChatTemplate, JinjaTemplate};
use lichen_runtime::text::tokenizer::Tokenizer;
use lichen_tests::fixture;
use lichen_trainer::data::{Dataset, TextEncoder, IGNORED};
use serde_json::{json, Value};

use crate::support::plain;

/// More ids than either vocabulary has.
const ROWS: usize = 4096;

/// A golden's template with the tokenizer that it was made with.
fn encoder(name: &str, templates: &Value) -> TextEncoder {
    let file = if name.starts_with("gemma") { "tokenizers/gemma.json" } else { "training/labels/qwen2.json" };
    let tokenizer = Tokenizer::from_json(&fixture(file), ROWS).expect("a fixture");
    let source = templates[name].as_str().expect("a template");
    let template = JinjaTemplate::new(source, "<bos>", "").unwrap_or_else(|e| panic!("{name}: {e}"));
    TextEncoder::new(Arc::new(tokenizer), ChatTemplate::Jinja(Box::new(template)))
}

#[test]
fn ids_and_labels_are_those_of_jinja2_and_tokenizers() {
    let read = |name: &str| std::fs::read_to_string(fixture(&format!("training/labels/{name}"))).expect("a fixture");
    let templates: Value = serde_json::from_str(&read("templates.json")).expect("JSON");
    let (mut n, mut n_at_border, mut n_tools) = (0, 0, 0);
    for line in read("conversations.jsonl").lines() {
        let golden: Value = serde_json::from_str(line).expect("JSON");
        let name = golden["template"].as_str().expect("a name");
        let row = json!({"messages": golden["messages"], "tools": golden["tools"]});
        let dir = lichen_tests::formats::corpus::TempDir::new();
        let path = dir.write("data.jsonl", row.to_string());
        let dataset = Dataset::open(&path, Some(encoder(name, &templates)), ROWS, &plain());
        let dataset = dataset.unwrap_or_else(|e| panic!("{row}: {e}"));
        assert_eq!(dataset.counts().bad_notes, [""; 0], "{row}");
        let sample = dataset.train(0, 0).unwrap();
        let numbers = |key: &str| -> Vec<i64> {
            golden[key].as_array().expect("a list").iter().map(|id| id.as_i64().expect("a number")).collect()
        };
        let ids: Vec<i64> = sample.ids.iter().map(|&id| i64::from(id)).collect();
        assert_eq!(ids, numbers("ids"), "{name}: ids of {row}");
        let labels: Vec<i64> = sample.labels.iter().map(|&label| i64::from(label)).collect();
        assert_eq!(labels, numbers("labels"), "{name}: labels of {row}");
        assert!(sample.labels.iter().any(|&label| label != IGNORED));
        n += 1;
        n_at_border += usize::from(golden["merges_at_border"] == true);
        n_tools += usize::from(golden["tools"].is_array());
    }
    assert!(n >= 40 && n_at_border >= 10 && n_tools >= 5, "{n}, {n_at_border}, {n_tools}");
}
