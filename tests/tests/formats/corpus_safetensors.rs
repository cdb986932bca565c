//! Broken safetensors files (C37 to C46): each is refused with its golden sentence.

use std::sync::Arc;

use lichen_runtime::files::formats::safetensors::SafeTensors;
use lichen_tests::formats::corpus::{check, report, Case};
use lichen_tests::formats::safetensors_file::with_header;

fn run(cases: Vec<Case<Vec<u8>>>) {
    let mut failures = Vec::new();
    for case in &cases {
        let owner = Arc::new(case.input.clone());
        let open = || SafeTensors::parse(owner.clone());
        failures.extend(check(case, "DIR".as_ref(), case.input.len(), open).err());
    }
    report(failures, cases.len());
}

fn case(id: &'static str, bytes: Vec<u8>, message: &str) -> Case<Vec<u8>> {
    Case::new(id, bytes, message)
}

/// `{"a": ..}` of these JSON values, over `n` bytes of data.
fn one(dtype: &str, shape: &str, offsets: &str, n: usize) -> Vec<u8> {
    let header = format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#);
    with_header(header, &vec![0; n])
}

/// Tensors of bytes with these ranges, over `n` bytes of data.
fn ranges(list: &[(&str, usize, usize)], n: usize) -> Vec<u8> {
    let entries: Vec<String> = list
        .iter()
        .map(|(name, a, b)| format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{a},{b}]}}"#, b - a))
        .collect();
    with_header(format!("{{{}}}", entries.join(",")), &vec![0; n])
}

#[test]
fn header() {
    let length = |n: u64| [&n.to_le_bytes()[..], b"{}"].concat();
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(200), "]".repeat(200));
    run(vec![
        case("C37", vec![], "is 0 bytes long; a safetensors header needs 8"),
        case("C37", vec![0; 5], "is 5 bytes long; a safetensors header needs 8"),
        case("C38", length(0), "header is not JSON: line 1 column 1: an object is needed"),
        case("C38", length(3), "header of 3 bytes does not fit in a file of 10"),
        case("C38", length(100_000_001), "header of 100000001 bytes does not fit in a file of 10"),
        case("C38", length(u64::MAX), "header of 18446744073709551615 bytes does not fit in a file of 10"),
        case("C39", with_header(b"{\"\xff\":1}", &[]), "header is not JSON: not UTF-8 from byte 2"),
        case("C39", with_header("[1]", &[]), "header is not JSON: line 1 column 1: an object is needed"),
        case("C39", with_header(" {}", &[]), "header is not JSON: line 1 column 1: an object is needed"),
        case(
            "C39",
            with_header("{\"a\": 12", &[]),
            "header: line 1 column 8: invalid type: integer `12`, expected an object with dtype, shape and data_offsets",
        ),
        case("C39", with_header("{\"a\": {", &[]), "header is not JSON: line 1 column 7: EOF while parsing an object"),
        case("C39", with_header("{} x", &[]), "header is not JSON: line 1 column 4: trailing characters"),
        case(
            "C39",
            with_header(deep, &[]),
            "header: line 1 column 5: invalid type: sequence, expected an object with dtype, shape and data_offsets",
        ),
        case(
            "C39",
            with_header(format!("{{\"a\":{{\"x\":{}", "[".repeat(200)), &[]),
            "header is not JSON: line 1 column 210: EOF while parsing a list",
        ),
        case(
            "C60",
            b"version https://git-lfs.github.com/spec/v1\n".to_vec(),
            "is a Git LFS pointer, not the file itself: run git lfs pull",
        ),
    ]);
}

#[test]
fn large_header_needs_no_memory() {
    let mut bytes = vec![b' '; 100_000_020];
    bytes[..8].copy_from_slice(&100_000_001u64.to_le_bytes());
    run(vec![case("C38", bytes, "header of 100000001 bytes; at most 100000000 are allowed")]);
}

#[test]
fn entries() {
    let twice =
        r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
    let escaped = twice.replacen("\"a\"", "\"\\u0061\"", 1);
    run(vec![
        case("C40", with_header(twice, &[0]), "tensor \"a\" is declared twice"),
        case("C40", with_header(escaped, &[0]), "tensor \"a\" is declared twice"),
        case("C41", one("Q4", "[2]", "[0,2]", 2), "tensor \"a\": dtype \"Q4\" is not supported"),
        case("C41", one("f32", "[2]", "[0,8]", 8), "tensor \"a\": dtype \"f32\" is not supported"),
        case("C41", one("F4", "[2]", "[0,1]", 1), "tensor \"a\": dtype \"F4\" is not supported"),
        case("C42", one("F32", "[2,2]", "[0,12]", 12), "tensor \"a\": [2, 2] F32 needs 16 bytes, data_offsets give 12"),
        case("C42", one("I64", "[]", "[0,4]", 4), "tensor \"a\": [] I64 needs 8 bytes, data_offsets give 4"),
        case("C43", one("F32", "[2]", "[16,8]", 16), "tensor \"a\": data_offsets [16, 8] run backwards"),
        case(
            "C43",
            one("F32", "[2]", "[0,8]", 4),
            "tensor \"a\": bytes 0..8 lie outside the file's 4 data bytes (download incomplete?)",
        ),
        case("C43", one("F32", "[2]", "[0,8,8]", 8), "tensor \"a\": data_offsets has 3 numbers; 2 are needed"),
        case(
            "C43",
            one("U8", "[0]", "[9223372036854775808,9223372036854775808]", 0),
            "tensor \"a\": data_offsets [9223372036854775808, 9223372036854775808] are larger than any file",
        ),
        case(
            "C43",
            one("F32", "[2]", "[-8,0]", 0),
            "header: line 1 column 50: invalid value: integer `-8`, expected u64",
        ),
        case(
            "C45",
            one("F32", "[4398046511104,4398046511104]", "[0,8]", 8),
            "tensor \"a\": shape [4398046511104, 4398046511104] is larger than any file",
        ),
        case(
            "C45",
            one("F32", "[4611686018427387904]", "[0,0]", 0),
            "tensor \"a\": shape [4611686018427387904] is larger than any file",
        ),
        case("C45", one("U8", "[1,1,1,1,1]", "[0,1]", 1), "tensor \"a\": 5 dimensions; at most 4 are allowed"),
    ]);
}

#[test]
fn ownership_of_bytes() {
    run(vec![
        case("C44", ranges(&[("a", 0, 64), ("b", 32, 96)], 96), "tensors \"a\" and \"b\" share bytes"),
        case("C44", ranges(&[("a", 0, 64), ("b", 0, 64)], 64), "tensors \"a\" and \"b\" share bytes"),
        case("C44", ranges(&[("a", 0, 64), ("b", 128, 192)], 192), "bytes 64..128 belong to no tensor"),
        case("C44", ranges(&[("a", 8, 64)], 64), "bytes 0..8 belong to no tensor"),
        case("C44", ranges(&[("a", 0, 64)], 80), "bytes 64..80 belong to no tensor"),
    ]);
}

#[test]
fn metadata() {
    let with = |value: &str| with_header(format!("{{\"__metadata__\":{value}}}"), &[]);
    run(vec![
        case("C46", with(r#"{"format":1}"#), "__metadata__.format is a number; strings only"),
        case("C46", with(r#"{"format":null}"#), "__metadata__.format is null; strings only"),
        case("C46", with(r#"{"format":[{}]}"#), "__metadata__.format is an array; strings only"),
        case("C46", with(r#"{"format":{"a":1}}"#), "__metadata__.format is an object; strings only"),
        case("C46", with("3"), "header: line 1 column 17: invalid type: integer `3`, expected an object of strings"),
        case("C46", with(r#"{},"__metadata__":{}"#), "__metadata__ is declared twice"),
    ]);
}

/// Many small entries are where a table of contents could outgrow its file.
#[test]
fn tables_stay_near_the_size_of_their_header() {
    let n = 20_000;
    let entries: Vec<String> =
        (0..n).map(|i| format!(r#""{i:x}":{{"dtype":"U8","shape":[],"data_offsets":[{i},{}]}}"#, i + 1)).collect();
    let bytes = with_header(format!("{{{}}}", entries.join(",")), &vec![0; n]);
    let owner = Arc::new(bytes.clone());
    let (file, heap) = lichen_tests::heap::measure(|| SafeTensors::parse(owner));
    assert_eq!(file.expect("sound").tensors().len(), n);
    assert!(heap.peak_bytes <= 4 * bytes.len() + (1 << 20), "{heap:?} for {}", bytes.len());
}
