//! Malformed vocabularies, tokenizer files and templates: each refused in one exact sentence, and nothing panics or
//! hangs on mutations of good ones.

#[path = "text_support/checks.rs"]
mod checks;
#[path = "text_support/mod.rs"]
mod text_support;

use std::path::PathBuf;
use std::time::Instant;

use lichen_runtime::text::tokenizer::{Tokenizer, TokenizerArrays};
use serde_json::{json, Value};
use text_support::{byte_level_arrays, byte_level_json, spm_arrays, spm_json, Random};

fn spm_message(change: impl Fn(&mut TokenizerArrays)) -> String {
    let mut arrays = spm_arrays();
    let rows = arrays.tokens.len();
    change(&mut arrays);
    Tokenizer::from_arrays(arrays, rows).unwrap_err().message().to_string()
}

fn byte_level_message(change: impl Fn(&mut TokenizerArrays)) -> String {
    let mut arrays = byte_level_arrays();
    let rows = arrays.tokens.len();
    change(&mut arrays);
    Tokenizer::from_arrays(arrays, rows).unwrap_err().message().to_string()
}

#[test]
fn arrays_that_disagree_are_refused() {
    let n = spm_arrays().tokens.len();
    // C27
    let empty = TokenizerArrays { tokens: vec![], ..spm_arrays() };
    let error = Tokenizer::from_arrays(empty, 262_144).unwrap_err();
    assert_eq!(error.message(), "vocabulary has 0 tokens, the embedding 262,144 rows");
    let error = Tokenizer::from_arrays(spm_arrays(), 262_144).unwrap_err();
    assert_eq!(error.message(), format!("vocabulary has {n} tokens, the embedding 262,144 rows"));
    // C28
    assert_eq!(spm_message(|a| a.scores.truncate(4)), format!("tokenizer.ggml.scores has 4 items for {n} tokens"));
    let want = format!("tokenizer.ggml.token_type has {} items for {n} tokens", n + 1);
    assert_eq!(spm_message(|a| a.token_type.push(1)), want);
    assert_eq!(spm_message(|a| a.scores[300] = f32::NAN), "tokenizer.ggml.scores[300] is NaN");
    // C30
    let want = format!("eos token id {n} is outside the vocabulary of {n}");
    assert_eq!(spm_message(|a| a.eos_id = Some(n as u32)), want);
    let want = format!("bos token id 4294967295 is outside the vocabulary of {n}");
    assert_eq!(spm_message(|a| a.bos_id = Some(u32::MAX)), want);
    // C31
    let want = "token 255 \"<0x-1>\" is marked as a byte but is not <0xHH>";
    assert_eq!(spm_message(|a| a.tokens[255] = "<0x-1>".into()), want);
    assert!(spm_message(|a| a.tokens[255] = "<0xZZ>".into()).contains("\"<0xZZ>\" is marked as a byte"));
    assert!(spm_message(|a| a.tokens[255] = "<0xef>".into()).contains("is not <0xHH>"), "lower case");
    assert_eq!(spm_message(|a| a.token_type[16 + 0x41] = 1), "the byte token <0x41> is missing");
    // C32
    assert_eq!(spm_message(|a| a.tokens[9] = a.tokens[4].clone()), "token 9 equals token 4 (\"<start_of_turn>\")");
    assert_eq!(spm_message(|a| a.tokens[9].clear()), "token 9 is empty");
    assert_eq!(spm_message(|a| a.tokens[9] = "x".repeat(5000)), "token 9 is 5,000 bytes long; at most 1,024");
    assert_eq!(spm_message(|a| a.token_type[9] = 7), "token 9 has type 7; 1 to 6 are known");
    // C61, C62
    assert_eq!(byte_level_message(|a| a.merges[3] = "a b".into()), "merge 3 \"a b\": no token \"ab\"");
    assert_eq!(byte_level_message(|a| a.merges[3] = "h zz".into()), "merge 3: \"zz\" is not a token");
    assert_eq!(
        byte_level_message(|a| a.merges[3] = "he".into()),
        "merge 3 \"he\": two tokens with a space between expected"
    );
    assert!(byte_level_message(|a| a.merges[3] = "h e l".into()).starts_with("merge 3 \"h e l\""));
}

#[test]
fn any_arrays_are_refused_or_work() {
    let mut random = Random::new(21);
    let mut n_accepted = 0;
    for _ in 0..3000 {
        let mut arrays = if random.below(2) == 0 { spm_arrays() } else { byte_level_arrays() };
        let n = arrays.tokens.len();
        for _ in 0..=random.below(3) {
            let (a, b) = (random.below(n), random.below(n));
            match random.below(9) {
                0 => arrays.tokens.swap(a, b),
                1 => arrays.token_type[a] = random.below(8) as i32 - 1,
                2 if !arrays.scores.is_empty() => arrays.scores[a] = f32::from_bits(random.next() as u32),
                3 => arrays.tokens[a] = arrays.tokens[b].chars().rev().collect(),
                4 => arrays.eos_id = Some(random.below(2 * n) as u32),
                5 if !arrays.merges.is_empty() => {
                    let at = a % arrays.merges.len();
                    arrays.merges[at] = format!("{} {}", arrays.tokens[a], arrays.tokens[b]);
                }
                6 if !arrays.merges.is_empty() => arrays.merges.swap(0, a % 3),
                7 => arrays.add_space_prefix = true,
                _ => arrays.tokens[a] = format!("{}{}", arrays.tokens[a], arrays.tokens[b]),
            }
        }
        let Ok(tokenizer) = Tokenizer::from_arrays(arrays, n) else { continue };
        n_accepted += 1;
        for text in text_support::NASTY_TEXTS {
            if let Ok(ids) = tokenizer.encode(text) {
                assert!(ids.iter().all(|&id| !tokenizer.is_control(id)), "{text:?}");
                tokenizer.decode(&ids);
            }
        }
    }
    assert!(n_accepted > 300, "{n_accepted}");
}

fn json_message(file: &Value, rows: usize) -> String {
    match Tokenizer::from_json_bytes(file.to_string().as_bytes(), rows) {
        Ok(_) => "accepted".to_string(),
        Err(error) => error.message().to_string(),
    }
}

/// Where a good file is changed, what is put there, and the sentence it is refused with.
type Change = (&'static str, Value, &'static str);

fn component_changes() -> Vec<Change> {
    vec![
        // C64
        (
            "/normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": "AA=="}),
            "normalizer \"Precompiled\" is not supported",
        ),
        (
            "/normalizer",
            json!({"type": "Sequence", "normalizers": [{"type": "Strip", "left": true, "right": true}]}),
            "normalizer \"Strip\" is not supported",
        ),
        ("/normalizer", json!({"type": "Prepend", "prepend": "x"}), "normalizer \"Prepend\" is not supported"),
        ("/normalizer", Value::Null, "normalizer is missing; Replace (Gemma) or NFC (Qwen) is needed"),
        ("/normalizer", json!({"type": "NFC"}), "model: byte_fallback is true, which the normalizer rules out"),
        (
            "/normalizer",
            json!({"type": "Replace", "pattern": {"Regex": "(a*)*"}, "content": "x"}),
            "normalizer \"Replace\" is not supported",
        ),
        ("/normalizer", json!([]), "normalizer has no type"),
        (
            "/pre_tokenizer",
            json!({"type": "FixedLength", "length": 0}),
            "pre-tokenizer \"FixedLength\" is not supported",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": false}),
            "pre-tokenizer \"Split\": this pattern is not supported",
        ),
        (
            "/decoder",
            json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
            "decoder \"Strip\" is not supported",
        ),
        ("/decoder", Value::Null, "decoder: \"Replace\" and \"ByteFallback\" are needed"),
        ("/decoder", json!({"type": "Sequence"}), "decoder \"Sequence\" has no \"decoders\""),
        (
            "/post_processor",
            json!({"type": "BertProcessing", "sep": ["x", 0], "cls": ["y", 1]}),
            "post-processor \"BertProcessing\" is not supported",
        ),
        ("/truncation", json!(7), "truncation is not an object"),
        ("/model/type", json!("Unigram"), "model \"Unigram\" is not supported"),
        ("/model/dropout", json!(0.5), "model: dropout is 0.5; only 0 gives the same ids twice"),
        ("/model/continuing_subword_prefix", json!("##"), "model: \"continuing_subword_prefix\" is not supported"),
        ("/model/end_of_word_suffix", json!("</w>"), "model: \"end_of_word_suffix\" is not supported"),
        // C63
        (
            "/post_processor/single/0/SpecialToken/id",
            json!("[CLS]"),
            "post-processor uses \"[CLS]\", which is not declared",
        ),
        (
            "/post_processor/special_tokens/<bos>/ids/0",
            json!(300_000),
            "post-processor: \"<bos>\" has id 300000; the model has 327",
        ),
    ]
}

fn vocabulary_changes() -> Vec<Change> {
    vec![
        // C65
        ("/added_tokens/0/id", json!(300_000), "added token \"<pad>\" has id 300000; the model has 327"),
        ("/added_tokens/0/id", json!(5), "added token \"<pad>\" has id 5; the vocabulary gives it 0"),
        ("/added_tokens/0/content", json!("<x>"), "added token \"<x>\" has id 0, which is \"<pad>\""),
        ("/added_tokens/0/lstrip", json!(true), "added token \"<pad>\": \"lstrip\" is not supported"),
        ("/model/vocab/the", json!(9), "tokens \"\\n\\n\" and \"the\" share the id 9"),
        ("/model/vocab/the", json!(4_000_000_000u32), "token \"the\" has id 4000000000; the model has 327"),
        // C61, C62
        ("/model/merges/12", json!(["<", "0"]), "merge 12 \"< 0\": no token \"<0\""),
        ("/model/merges/12", json!(["zz", "a"]), "merge 12: \"zz\" is not a token"),
        ("/model/merges/12", json!("zz a"), "merge 12: \"zz\" is not a token"),
    ]
}

fn byte_level_changes() -> Vec<Change> {
    vec![
        (
            "/pre_tokenizer/pretokenizers/1/use_regex",
            json!(true),
            "pre-tokenizer \"ByteLevel\": \"use_regex\" must be false",
        ),
        (
            "/pre_tokenizer/pretokenizers/1",
            json!({"type": "Digits", "individual_digits": true}),
            "pre-tokenizer \"Digits\" is not supported",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}),
            "pre-tokenizer: one \"Split\" and one \"ByteLevel\" are needed",
        ),
        ("/decoder", json!({"type": "Fuse"}), "decoder \"Fuse\" is not supported"),
        ("/model/byte_fallback", json!(true), "model: byte_fallback is true, which the normalizer rules out"),
    ]
}

#[test]
fn tokenizer_files_with_other_parts_are_refused() {
    let (spm, rows) = (spm_json(&spm_arrays()), spm_arrays().tokens.len());
    let (qwen, qwen_rows) = (byte_level_json(&byte_level_arrays()), byte_level_arrays().tokens.len());
    assert_eq!(rows, 327, "the sentences below say so");
    let mut wrong = String::new();
    let tables = [
        (&spm, rows, component_changes()),
        (&spm, rows, vocabulary_changes()),
        (&qwen, qwen_rows, byte_level_changes()),
    ];
    for (good, rows, changes) in tables {
        assert_eq!(json_message(good, rows), "accepted");
        for (path, value, want) in changes {
            let mut file = good.clone();
            *file.pointer_mut(path).unwrap() = value;
            let got = json_message(&file, rows);
            if got != want {
                wrong.push_str(&format!("{path}\n  want {want}\n  got  {got}\n"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn files_that_are_no_tokenizer_are_named_for_what_they_are() {
    let message = |bytes: &[u8]| Tokenizer::from_json_bytes(bytes, 10).unwrap_err().message().to_string();
    // C60
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 33384568\n";
    assert_eq!(message(pointer), "is a Git LFS pointer, not the file itself: run git lfs pull");
    assert_eq!(message(b"\n<!doctype html><html>"), "is a web page, not the file itself: download it again");
    assert_eq!(message(b"{\"model\": nope}"), "is not JSON: line 1 column 12: expected ident");
    assert_eq!(message(b""), "is not JSON: line 1 column 0: EOF while parsing a value");
    assert_eq!(message(b"{}"), "is not a tokenizer: line 1 column 2: missing field `model`");
    // C66
    assert_eq!(message(&[b'['; 10_000]), "is nested deeper than 64");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tokenizer-files");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("tokenizer.json");
    std::fs::File::create(&path).unwrap().set_len(200 << 20).unwrap();
    let error = Tokenizer::from_json(&path, 10).unwrap_err();
    assert_eq!(error.message(), format!("{}: is 200 MB; at most 64 MB", path.display()));
    std::fs::remove_file(&path).unwrap();
    let error = Tokenizer::from_json(&folder, 10).unwrap_err();
    assert_eq!(error.message(), format!("{}: is not a regular file", folder.display()));
}

#[test]
fn the_config_beside_names_begin_and_end() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("tokenizer-config");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("tokenizer.json");
    std::fs::write(&path, spm_json(&spm_arrays()).to_string()).unwrap();
    let rows = spm_arrays().tokens.len();
    let config = json!({"bos_token": "<bos>", "eos_token": {"content": "<end_of_turn>"}, "pad_token": null, "add_bos_token": false});
    std::fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
    let tokenizer = Tokenizer::from_json(&path, rows).unwrap();
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.add_bos()), (Some(2), Some(5), false));
    std::fs::write(folder.join("tokenizer_config.json"), "{\"eos_token\": \"<nope>\"}").unwrap();
    let error = Tokenizer::from_json(&path, rows).unwrap_err();
    assert!(error.message().ends_with("tokenizer_config.json: eos_token \"<nope>\" is not in the vocabulary"));
}

/// Bytes changed, removed, repeated and spliced with what parsers trip over.
fn mutate(random: &mut Random, good: &[u8], tokens: &[&str]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1)).min(bytes.len());
        let end = (at + random.below(20)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] = random.next() as u8,
            1 => drop(bytes.drain(at..end)),
            2 => drop(
                bytes.splice(at..at, good[random.below(good.len())..].iter().take(30).copied().collect::<Vec<u8>>()),
            ),
            3 => bytes.truncate(at.max(1)),
            _ => drop(bytes.splice(at..end, tokens[random.below(tokens.len())].bytes())),
        }
    }
    bytes
}

#[test]
fn mutated_tokenizer_files_never_panic() {
    let tokens = [
        "null",
        "-1",
        "1e999",
        "\"\"",
        "[]",
        "{}",
        "4294967295",
        "18446744073709551616",
        "true",
        "\"Split\"",
        "\\ud800",
        "\"<0x41>\"",
        ",",
        ":",
        "\"type\"",
    ];
    let mut random = Random::new(31);
    let start = Instant::now();
    // Small vocabularies, so that 20,000 take seconds: the bytes are the ballast.
    let mut files = [spm_json(&spm_arrays()), byte_level_json(&byte_level_arrays())];
    files[0]["model"]["merges"].as_array_mut().unwrap().truncate(20);
    let files = files.map(|file| file.to_string().into_bytes());
    let n_accepted =
        (0..20_000).filter(|round| checks::tokenizer_json(&mutate(&mut random, &files[round % 2], &tokens))).count();
    assert!(n_accepted > 100, "{n_accepted} accepted");
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
}

#[test]
fn mutated_templates_never_panic() {
    let seeds = [
        "{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + message['role'] + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}",
        "{%- set ns = namespace(x='a') -%}{% for m in messages %}{% if m.role == 'user' and loop.index0 % 2 == 1 %}{{ m.content.split('a')[0].strip() }}{% elif not loop.last %}{% set ns.x = ns.x ~ m.content %}{% else %}{{ raise_exception('x') }}{% endif %}{% endfor %}{{ ns.x }}",
        "{% macro f(x, y=1) -%}{{ x | tojson }}{{ {'a': [1, 2.5], 'b': none}.items() | list }}{%- endmacro %}{{ f(messages) }}{{ messages[1:] | length }}{{ strftime_now('%Y') }}",
        "{% for m in messages %}{% if '<end_of_turn>' in m.content %}{% generation %}{{ m.content.split('<end_of_turn>')[-1] }}{% endgeneration %}{% else %}{% continue %}{% endif %}<end_of_turn>{{ m.content.find('>') }}{% endfor %}",
        "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ {'b': m.content, 'a': 1.5} | tojson(indent=1, ensure_ascii=true, sort_keys=true) }}{{ '{} {x}'.format(m.role, x=m.content.partition('<')) }}{% endfor %}",
    ];
    let tokens = [
        "{%",
        "%}",
        "{{",
        "}}",
        "{#",
        "#}",
        "-%}",
        "{% if 1 %}",
        "{% endif %}",
        "range(99999999)",
        "|",
        "~ x",
        "[",
        "(",
        "'",
        "\"",
        "**",
        "1e9",
        "messages",
        "{% raw %}",
        ".replace('a', 'aaaaaaaa')",
        "loop",
        "self",
        "{% endfor %}",
        "{% for i in range(9999) %}",
        "| tojson(indent=2)",
        "{% generation %}",
        "{% break %}",
        ".split('<')",
        "\u{1F600}",
    ];
    let arrays = spm_arrays();
    let rows = arrays.tokens.len();
    let tokenizer = Tokenizer::from_arrays(arrays, rows).unwrap();
    let mut random = Random::new(33);
    let start = Instant::now();
    let n_rendered = (0..30_000)
        .filter(|round| {
            checks::chat_template(&mutate(&mut random, seeds[round % seeds.len()].as_bytes(), &tokens), &tokenizer)
        })
        .count();
    assert!(n_rendered > 1000, "{n_rendered} rendered");
    assert!(start.elapsed().as_secs() < 120, "{:?}", start.elapsed());
}
