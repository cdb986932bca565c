//! GGUF files whose container is broken (C1 to C23): each is refused with its golden sentence.

use lichen_runtime::ModelSource;
use lichen_tests::formats::corpus::{check, report, Case, TempDir};
use lichen_tests::formats::gguf_file::{self as g, tiny_gemma3, GgufFile};

pub fn run(cases: Vec<Case<Vec<u8>>>) {
    let dir = TempDir::new();
    let path = dir.path().join("m.gguf");
    let mut failures = Vec::new();
    for case in &cases {
        std::fs::write(&path, &case.input).expect("temporary file");
        failures.extend(check(case, dir.path(), case.input.len(), || ModelSource::open(&path)).err());
    }
    report(failures, cases.len());
}

pub fn case(id: &'static str, bytes: Vec<u8>, message: impl AsRef<str>) -> Case<Vec<u8>> {
    Case::new(id, bytes, format!("DIR/m.gguf: {}", message.as_ref()))
}

const SUPPORTED: &str =
    "(supported: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ1_S, \
    IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS)";

#[test]
fn the_sound_file_opens() {
    let dir = TempDir::new();
    let path = dir.write("m.gguf", tiny_gemma3().bytes());
    let source = ModelSource::open(&path).expect("sound");
    assert_eq!(source.config().n_layers, 2);
    assert_eq!(source.stop_ids(), [1]);
    let counts_as_u64 = tiny_gemma3().set("gemma3.block_count", g::u64(2)).bytes();
    ModelSource::open(&dir.write("m.gguf", counts_as_u64)).expect("u64 counts are as good");
    let version_2 = GgufFile { version: 2, ..tiny_gemma3() }.bytes();
    ModelSource::open(&dir.write("m.gguf", version_2)).expect("version 2");
}

#[test]
fn header() {
    let sound = tiny_gemma3();
    let with = |change: &dyn Fn(&mut GgufFile)| {
        let mut file = sound.clone();
        change(&mut file);
        file.bytes()
    };
    let follow = lichen_runtime::escape::thousands(sound.bytes().len() as u64 - 24);
    let mut swapped = sound.bytes();
    swapped[4..8].copy_from_slice(&3u32.to_be_bytes());
    run(vec![
        case("C1", vec![], "is 0 bytes long; a GGUF header needs 24"),
        case("C1", b"GGUF".to_vec(), "is 4 bytes long; a GGUF header needs 24"),
        case("C1", sound.bytes()[..23].to_vec(), "is 23 bytes long; a GGUF header needs 24"),
        case("C2", with(&|f| f.magic = *b"FUGG"), "not a GGUF file (starts with 46 55 47 47)"),
        case("C2", with(&|f| f.magic = *b"ggjt"), "not a GGUF file (starts with 67 67 6a 74)"),
        case("C2", with(&|f| f.version = 0), "GGUF version 0; 2 and 3 are supported"),
        case("C2", with(&|f| f.version = 1), "GGUF version 1; 2 and 3 are supported"),
        case("C2", with(&|f| f.version = 4), "GGUF version 4; 2 and 3 are supported"),
        case("C2", swapped, "big-endian GGUF is not supported"),
        case(
            "C3",
            with(&|f| f.n_tensors = Some(1 << 63)),
            format!("declares 9223372036854775808 tensors, but only {follow} bytes follow"),
        ),
        case(
            "C4",
            with(&|f| f.n_metadata = Some(u64::MAX)),
            format!("declares 18446744073709551615 metadata entries, but only {follow} bytes follow"),
        ),
        case(
            "C60",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec(),
            "is a Git LFS pointer, not the file itself: run git lfs pull",
        ),
    ]);
}

/// A file of `n` sound entries and then this raw entry.
fn with_entry(n: usize, raw: &[u8]) -> Vec<u8> {
    let mut file = GgufFile::empty();
    for i in 0..n {
        file = file.set(&format!("k{i}"), g::u32(1));
    }
    file.n_metadata = Some(n as u64 + 1);
    let mut bytes = file.bytes();
    bytes.truncate(24 + n * (8 + 2 + 8));
    bytes.extend(raw);
    bytes
}

fn entry(key_len: u64, key: &[u8], rest: &[u8]) -> Vec<u8> {
    [&key_len.to_le_bytes(), key, rest].concat()
}

#[test]
fn metadata_keys() {
    let key = |key: &[u8]| entry(key.len() as u64, key, &g::u32(1));
    let twice = [key(b"general.name"), key(b"general.name")].concat();
    let mut two = with_entry(3, &twice);
    two[16] = 5;
    run(vec![
        case("C5", with_entry(7, &key(b"")), "metadata entry 7: key length 0; at least 1 is needed"),
        case(
            "C5",
            with_entry(7, &entry(u64::MAX, b"key", &g::u32(1))),
            "metadata entry 7: key length 18446744073709551615 runs past the end of the file",
        ),
        case(
            "C5",
            with_entry(7, &entry(12, b"key", &g::u32(1))),
            "metadata entry 7: key length 12 runs past the end of the file",
        ),
        case("C6", with_entry(7, &key(b"gene\xffral")), "metadata entry 7: key is not UTF-8 (\"gene\\xffral\")"),
        case(
            "C6",
            with_entry(7, &key(b"\x1b]52;c;x")),
            "metadata entry 7: key \"\\u{1b}]52;c;x\" holds a control character",
        ),
        case("C7", two, "metadata key \"general.name\" appears twice"),
    ]);
}

#[test]
fn metadata_values() {
    let value = |rest: &[u8]| with_entry(0, &entry(1, b"x", rest));
    let type_id = |id: u32| value(&[&id.to_le_bytes()[..], &[0; 16]].concat());
    let nested = |depth: usize| {
        let mut bytes = 9u32.to_le_bytes().to_vec();
        for _ in 0..depth {
            bytes.extend(9u32.to_le_bytes());
            bytes.extend(1u64.to_le_bytes());
        }
        value(&bytes)
    };
    let string_of = |n: u64, text: &[u8]| value(&[&8u32.to_le_bytes()[..], &n.to_le_bytes(), text].concat());
    let items = [&9u64.to_le_bytes()[..], b"short"].concat();
    run(vec![
        case("C8", type_id(13), "metadata \"x\": unknown value type 13"),
        case("C8", type_id(u32::MAX), "metadata \"x\": unknown value type 4294967295"),
        case("C8", value(&g::array(13, 1, [0; 8])), "metadata \"x\": unknown value type 13"),
        case("C14", value(&[4, 0, 0, 0, 1, 0]), "metadata \"x\": the file ends inside its value"),
        case("C14", with_entry(1, &entry(1, b"x", &[4, 0, 0])), "metadata \"x\": the file ends inside its value"),
        case(
            "C15",
            value(&g::array(4, 1 << 61, [0; 64])),
            "metadata \"x\": array of 2305843009213693952 items needs more bytes than remain",
        ),
        case(
            "C15",
            value(&g::array(8, u64::MAX, [0; 64])),
            "metadata \"x\": array of 18446744073709551615 items needs more bytes than remain",
        ),
        case("C15", value(&g::array(0, 65, [0; 64])), "metadata \"x\": array of 65 items needs more bytes than remain"),
        case("C16", nested(2), "metadata \"x\": nested arrays are not supported"),
        case("C16", nested(1000), "metadata \"x\": nested arrays are not supported"),
        case("C17", string_of(6, b"hello"), "metadata \"x\": string of 6 bytes runs past the end"),
        case(
            "C17",
            string_of(u64::MAX, b"hello"),
            "metadata \"x\": string of 18446744073709551615 bytes runs past the end",
        ),
        case("C17", value(&g::array(8, 1, items)), "metadata \"x\": string of 9 bytes runs past the end"),
    ]);
}

#[test]
fn a_million_keys() {
    let entry = |i: u32| {
        let mut bytes = vec![4, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(i.to_be_bytes().map(|b| b % 94 + 33));
        bytes.extend([0, 0, 0, 0, 7]);
        bytes
    };
    let mut bytes = GgufFile { n_metadata: Some(1_000_000), ..GgufFile::empty() }.bytes();
    bytes.truncate(24);
    (0..1_000_000).for_each(|i| bytes.extend(entry(i)));
    run(vec![case("C18", bytes, "more than 65,536 metadata entries")]);
}

#[test]
fn as_many_keys_as_are_allowed() {
    let mut file = tiny_gemma3();
    while file.metadata.len() < 65_536 {
        file.metadata.push(g::Entry { key: format!("{:x}", file.metadata.len()).into(), value: g::u8(0) });
    }
    let dir = TempDir::new();
    let path = dir.write("m.gguf", file.bytes());
    let (source, heap) = lichen_tests::heap::measure(|| ModelSource::open(&path));
    source.expect("sound");
    assert!(heap.peak_bytes <= 4 * file.bytes().len() + (1 << 20), "{heap:?}");
}

#[test]
fn tensor_descriptions() {
    let q = "blk.0.attn_q.weight";
    let with = |change: &dyn Fn(&mut g::Tensor)| tiny_gemma3().tensor(q, change).bytes();
    let type_id = |id: u32| with(&|t| t.type_id = id);
    let refused = |what: &str| format!("tensor \"{q}\": type {what} is not supported {SUPPORTED}");
    let dims = |dims: &'static [u64]| with(&move |t| t.dims = dims.to_vec());
    let n_dims = |n: u32| with(&move |t| t.n_dims = n);
    run(vec![
        case("C9", with(&|t| (t.dims, t.data) = (vec![32, 0], vec![])), format!("tensor \"{q}\": dimension 0 is 0")),
        case("C9", with(&|t| (t.dims, t.data) = (vec![0, 32], vec![])), format!("tensor \"{q}\": dimension 1 is 0")),
        case("C10", n_dims(0), format!("tensor \"{q}\": 0 dimensions; 1 to 4 are allowed")),
        case("C10", n_dims(5), format!("tensor \"{q}\": 5 dimensions; 1 to 4 are allowed")),
        case("C10", n_dims(1 << 31), format!("tensor \"{q}\": 2147483648 dimensions; 1 to 4 are allowed")),
        case("C11", dims(&[1 << 42, 1 << 42]), format!("tensor \"{q}\": shape 2^42 x 2^42 is larger than any file")),
        case(
            "C11",
            dims(&[1 << 31, 1 << 32]),
            format!("tensor \"{q}\": shape 2^32 x 2147483648 is larger than any file"),
        ),
        case("C11", dims(&[1 << 63, 1]), format!("tensor \"{q}\": shape 1 x 2^63 is larger than any file")),
        case("C19", type_id(9), refused("9 (Q8_1)")),
        case("C19", type_id(34), refused("34 (TQ1_0)")),
        case("C19", type_id(4), refused("4")),
        case("C19", type_id(31), refused("31")),
        case("C19", type_id(40), refused("40 (NVFP4)")),
        case("C19", type_id(255), refused("255")),
        case(
            "C20",
            with(&|t| (t.type_id, t.dims) = (8, vec![33, 32])),
            format!("tensor \"{q}\": row of 33 values; Q8_0 needs a multiple of 32"),
        ),
        case("C20", type_id(22), format!("tensor \"{q}\": row of 32 values; IQ2_S needs a multiple of 256")),
        case(
            "C21",
            with(&|t| t.name = b"blk.0.attn_k.weight".to_vec()),
            "tensor \"blk.0.attn_k.weight\" appears twice",
        ),
        case("C23", with(&|t| t.name = vec![b'a'; 65]), "tensor 3: name is 65 bytes; at most 64"),
        case("C23", with(&|t| t.name = vec![b'a'; 300]), "tensor 3: name is 300 bytes; at most 64"),
        case("C23", with(&|t| t.name = vec![]), "tensor 3: name is 0 bytes; at least 1"),
        case("C23", with(&|t| t.name = b"blk\xff".to_vec()), "tensor 3: name is not UTF-8 (\"blk\\xff\")"),
    ]);
}

#[test]
fn alignment() {
    let with = |value: Vec<u8>| tiny_gemma3().set("general.alignment", value).bytes();
    let refused = |n: u32| format!("general.alignment is {n}; a power of two from 8 to 65536 is needed");
    run(vec![
        case("C12", with(g::u32(0)), refused(0)),
        case("C12", with(g::u32(13)), refused(13)),
        case("C12", with(g::u32(4)), refused(4)),
        case("C12", with(g::u32(1 << 31)), refused(1 << 31)),
        case("C12", with(g::i32(32)), "general.alignment is of type i32; u32 is needed"),
        case("C12", with(g::string("32")), "general.alignment is of type string; u32 is needed"),
    ]);
}

#[test]
fn tensor_places() {
    let two = |offset_b: u64| {
        let file = GgufFile::empty().f32_tensor("a", &[32]).f32_tensor("b", &[96]);
        file.tensor("b", |t| t.offset = Some(offset_b)).bytes()
    };
    let sound = tiny_gemma3().bytes();
    let last = "blk.1.post_ffw_norm.weight";
    let early = |n: usize, text: &str| {
        let needed = lichen_runtime::escape::thousands(sound.len() as u64);
        let message = format!("ends {text} early: tensor \"{last}\" needs bytes up to {needed} (download incomplete?)");
        case("C14", sound[..sound.len() - n].to_vec(), message)
    };
    run(vec![
        case("C13", two(100), "tensor \"b\": offset 100 is not a multiple of the alignment 32"),
        case("C13", two(1 << 20), "tensor \"b\": bytes 1048576..1048960 lie outside the file's 512 data bytes"),
        case("C13", two(u64::MAX - 31), "tensor \"b\": offset 18446744073709551584 is larger than any file"),
        case("C13", two((i64::MAX as u64) & !31), "tensor \"b\": offset 9223372036854775776 is larger than any file"),
        early(1, "1 byte"),
        early(2048, "2,048 bytes"),
        case("C22", two(0), "tensors \"a\" and \"b\" share bytes 0..128"),
        case("C22", two(64), "tensors \"a\" and \"b\" share bytes 64..128"),
    ]);
}

/// Cut anywhere, a file is refused, and the sentence says that it is too short.
#[test]
fn cut_at_every_length() {
    let sound = tiny_gemma3().bytes();
    for len in (0..4096).chain((4096..sound.len()).step_by(61)) {
        let Err(error) = ModelSource::from_bytes("m", std::sync::Arc::new(sound[..len].to_vec())) else {
            panic!("accepted after {len} of {} bytes", sound.len());
        };
        let text = error.to_string();
        let says_short =
            ["header needs", "bytes follow", "past the end", "the file ends", "more bytes than remain", "early"];
        assert!(says_short.iter().any(|s| text.contains(s)), "{len}: {text}");
    }
}
