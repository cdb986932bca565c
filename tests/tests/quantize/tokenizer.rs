use std::path::{Path, PathBuf};

use lichen_host_tools::quantize::Target;
use lichen_runtime::files::formats::gguf::Value as GgufValue;
use lichen_runtime::text::tokenizer::{arrays_from_json, Tokenizer};
use lichen_tests::models::{fixture, temp_dir};
use serde_json::{json, Value};

use crate::{copy_folder, open_gguf, quantize};

fn corpus() -> Vec<String> {
    let text = std::fs::read_to_string(fixture("tokenizers/nasty_corpus.jsonl")).expect("the corpus");
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["text"].as_str().unwrap().to_string();
    text.lines().map(line).collect()
}

/// What is written into a GGUF cuts every text as the tokenizer.json does.
#[test]
fn arrays_made_of_a_tokenizer_json_give_the_same_ids() {
    let dir = temp_dir("quantize-tokenizer");
    for (name, rows) in [("gemma", 2000), ("qwen2", 2000), ("qwen2", 2064)] {
        let path = dir.join("tokenizer.json");
        std::fs::copy(fixture(&format!("tokenizers/{name}.json")), &path).unwrap();
        let rows = rows.max(Tokenizer::from_json(&path, 1 << 20).unwrap_or_else(|e| panic!("{e}")).vocab_size());
        let arrays = arrays_from_json(&path, rows).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((arrays.tokens.len(), arrays.token_type.len()), (rows, rows));
        let ours = Tokenizer::from_arrays(arrays, rows).unwrap_or_else(|e| panic!("{e}"));
        let theirs = Tokenizer::from_json(&path, rows).unwrap_or_else(|e| panic!("{e}"));
        let corpus = corpus();
        assert!(corpus.len() > 100);
        for text in corpus {
            assert_eq!(ours.encode(&text), theirs.encode(&text), "{name}: {text:?}");
            assert_eq!(ours.encode_with_markers(&text), theirs.encode_with_markers(&text), "{name}: {text:?}");
        }
    }
}

/// Scores stand for an order of pieces. A merge list in another order, or without some pair, is not SentencePiece's.
#[test]
fn merges_that_scores_cannot_express_are_refused() {
    let dir = temp_dir("quantize-merges");
    let path = dir.join("tokenizer.json");
    let text = std::fs::read_to_string(fixture("tokenizers/gemma.json")).unwrap();
    let refused = |change: fn(&mut Vec<Value>), what: &str| {
        let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
        change(tokenizer["model"]["merges"].as_array_mut().unwrap());
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        let error = arrays_from_json(&path, 2000).expect_err(what);
        assert!(error.message().contains(what), "{error}");
    };
    // Past the merges of newlines, which are added tokens and never met.
    refused(|merges| drop(merges.remove(100)), "GGUF");
    refused(|merges| merges.swap(100, 900), "is out of place for a SentencePiece vocabulary");
    refused(|merges| drop(merges.pop()), "is missing");
}

/// `tokenizer.model` as protobuf: pieces of `(text, score, type)`.
fn sentencepiece(pieces: &[(String, f32, u8)]) -> Vec<u8> {
    let varint = |mut n: usize, out: &mut Vec<u8>| loop {
        let low = (n & 0x7f) as u8;
        n >>= 7;
        out.push(if n > 0 { low | 0x80 } else { low });
        if n == 0 {
            break;
        }
    };
    let mut model = Vec::new();
    for (text, score, kind) in pieces {
        let mut piece = vec![0x0a];
        varint(text.len(), &mut piece);
        piece.extend(text.as_bytes());
        piece.push(0x15);
        piece.extend(score.to_le_bytes());
        piece.extend([0x18, *kind]);
        model.push(0x0a);
        varint(piece.len(), &mut model);
        model.extend(piece);
    }
    model
}

fn folder_with_model(dir: &Path, change: impl Fn(usize, &mut (String, f32, u8))) -> PathBuf {
    let folder = copy_folder(&fixture("tiny-gemma3"), dir);
    let arrays = arrays_from_json(&folder.join("tokenizer.json"), 320).unwrap_or_else(|e| panic!("{e}"));
    let piece = |(id, text): (usize, &String)| {
        let mut piece = (text.clone(), -0.25 * id as f32, arrays.token_type[id] as u8);
        change(id, &mut piece);
        piece
    };
    let pieces: Vec<(String, f32, u8)> = arrays.tokens.iter().enumerate().map(piece).collect();
    std::fs::write(folder.join("tokenizer.model"), sentencepiece(&pieces)).unwrap();
    folder
}

fn scores(path: &Path) -> Vec<f32> {
    let gguf = open_gguf(path);
    let Some(GgufValue::Array(array)) = gguf.metadata().get("tokenizer.ggml.scores") else { panic!("no scores") };
    array.iter().map(|v| if let GgufValue::F32(v) = v { v } else { panic!("{v:?}") }).collect()
}

#[test]
fn scores_come_from_tokenizer_model_where_there_is_one() {
    let dir = temp_dir("quantize-spm");
    let folder = folder_with_model(&dir, |_, _| {});
    let out = dir.join("m.gguf");
    let report = quantize(&folder, Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    let scores = scores(&out);
    // Normal pieces have the file's score; added tokens the converter's -1000.
    assert_eq!((scores[263], scores[300], scores[4]), (-65.75, -75.0, -1000.0));
}

/// The vocabulary is tokenizer.json's. A tokenizer.model of another one gives no scores, and the report says so.
#[test]
fn a_foreign_tokenizer_model_is_not_used() {
    let dir = temp_dir("quantize-spm-foreign");
    let folder = folder_with_model(&dir, |id, piece| {
        if id == 270 {
            piece.0 = "zz".into();
        }
    });
    let (out, plain) = (dir.join("m.gguf"), dir.join("plain.gguf"));
    let report = quantize(&folder, Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.notes[0].starts_with("tokenizer.model names piece 270 \"zz\""), "{:?}", report.notes);
    quantize(&fixture("tiny-gemma3"), Target::Q8_0, &plain).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(scores(&out), scores(&plain));

    std::fs::write(folder.join("tokenizer.model"), b"\x0a\xff").unwrap();
    let error = quantize(&folder, Target::Q8_0, &dir.join("other.gguf")).expect_err("cut");
    assert!(error.message().contains("tokenizer.model: is not a SentencePiece model"), "{error}");
}

/// Rows of the embedding beyond the vocabulary get names, so that every reader finds as many tokens as rows.
#[test]
fn rows_without_a_token_are_padded() {
    let dir = temp_dir("quantize-padding");
    let folder = copy_folder(&fixture("tiny-qwen2-tied"), &dir);
    let path = folder.join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    tokenizer["model"]["vocab"].as_object_mut().unwrap().retain(|text, _| !text.starts_with("[PAD"));
    std::fs::write(&path, json!(tokenizer).to_string()).unwrap();
    let out = dir.join("m.gguf");
    let report = quantize(&folder, Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
    let (ours, theirs) = (open_gguf(&out), open_gguf(&fixture("tiny-qwen2-tied/tiny-qwen2-tied-q8_0.gguf")));
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.token_type", "tokenizer.ggml.merges"] {
        let show =
            |gguf: &lichen_runtime::files::formats::gguf::Gguf| crate::show(gguf.metadata().get(key).expect("there"));
        assert_eq!(show(&ours), show(&theirs), "{key}");
    }
    let note = report.notes.iter().find(|note| note.contains("have no token")).expect("said");
    assert!(note.ends_with("written as [PAD<id>]"), "{note}");
}
