//! Ids of Hugging Face's `tokenizers` over the nasty corpus, for both routes (fixtures/tokenizers, made by
//! `make_tokenizers.py`).

use std::path::{Path, PathBuf};

use lichen_runtime::text::tokenizer::{Tokenizer, TokenizerArrays, TokenizerKind};
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/tokenizers")
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder().join(path)).unwrap()).unwrap()
}

fn strings(value: &Value) -> Vec<String> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap().to_string()).collect()
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn arrays(name: &str) -> TokenizerArrays {
    let file = json(&format!("{name}-arrays.json"));
    let scores = file["scores"].as_array().map(Vec::as_slice).unwrap_or_default();
    TokenizerArrays {
        kind: if file["model"] == "llama" { TokenizerKind::SentencePiece } else { TokenizerKind::ByteLevel },
        tokens: strings(&file["tokens"]),
        scores: scores.iter().map(|score| score.as_f64().unwrap() as f32).collect(),
        token_type: file["token_type"].as_array().unwrap().iter().map(|t| t.as_i64().unwrap() as i32).collect(),
        merges: strings(&file["merges"]),
        bos_id: None,
        eos_id: None,
        unknown_id: None,
        padding_id: None,
        add_bos: false,
        add_space_prefix: false,
    }
}

fn check(name: &str) {
    let arrays = arrays(name);
    let rows = arrays.tokens.len();
    let routes = [
        ("arrays", Tokenizer::from_arrays(arrays, rows).unwrap()),
        ("json", Tokenizer::from_json(&folder().join(format!("{name}.json")), rows).unwrap()),
    ];
    let corpus = std::fs::read_to_string(folder().join("nasty_corpus.jsonl")).unwrap();
    let mut n_texts = 0;
    for line in corpus.lines().filter(|line| !line.trim().is_empty()) {
        let case: Value = serde_json::from_str(line).unwrap();
        let text = case["text"].as_str().unwrap();
        for (route, tokenizer) in &routes {
            let with_markers = tokenizer.encode_with_markers(text).unwrap();
            assert_eq!(with_markers, ids(&case[format!("{name}_ids")]), "{name} {route} with markers: {text:?}");
            let plain = tokenizer.encode(text).unwrap();
            assert_eq!(plain, ids(&case[format!("{name}_ids_plain")]), "{name} {route} plain: {text:?}");
            assert!(plain.iter().all(|&id| !tokenizer.is_control(id)), "{text:?}");
        }
        n_texts += 1;
    }
    assert!(n_texts > 100, "{n_texts}");
}

#[test]
fn gemma_ids_are_hugging_faces() {
    check("gemma");
}

#[test]
fn qwen2_ids_are_hugging_faces() {
    check("qwen2");
}
