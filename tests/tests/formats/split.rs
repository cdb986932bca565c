//! Models that are split over several GGUF files (C24).

use std::path::{Path, PathBuf};

use lichen_runtime::{ModelSource, Part};
use lichen_tests::formats::corpus::{check, report, Case, TempDir};
use lichen_tests::formats::gguf_file::{self as g, tiny_gemma3, GgufFile};

fn part_name(number: usize, count: usize) -> String {
    format!("m-{number:05}-of-{count:05}.gguf")
}

fn write(dir: &TempDir, parts: &[GgufFile]) -> Vec<PathBuf> {
    let name = |i: usize| part_name(i + 1, parts.len());
    parts.iter().enumerate().map(|(i, part)| dir.write(&name(i), part.bytes())).collect()
}

fn open(path: &Path) -> ModelSource {
    ModelSource::open(path).unwrap_or_else(|e| panic!("{e}"))
}

/// Any part, and the folder, stand for the whole; and it is the same model as the file that was split.
#[test]
fn every_part_stands_for_the_whole() {
    let whole = tiny_gemma3();
    let source = ModelSource::from_bytes("m", std::sync::Arc::new(whole.bytes())).expect("sound");
    for n in [1, 2, 3, 7] {
        let dir = TempDir::new();
        let paths = write(&dir, &whole.split(n));
        for path in paths.iter().map(PathBuf::as_path).chain([dir.path()]) {
            let split = open(path);
            assert_eq!(split.config(), source.config(), "{n}");
            assert_eq!((split.files(), split.mapped_files().len()), (paths.clone(), n));
            assert_eq!((split.stop_ids(), split.fingerprint()), (source.stop_ids(), source.fingerprint()));
            for layer in [0, 1] {
                let matrix = |source: &ModelSource| source.matrix(Part::FfnDown, Some(layer)).expect("sound");
                assert!(matrix(&split).bytes() == matrix(&source).bytes(), "{n}: layer {layer}");
            }
        }
    }
}

/// Writers that repeat the metadata in every part, and a name that only looks like a part's.
#[test]
fn other_writers() {
    let dir = TempDir::new();
    let repeated: Vec<GgufFile> = tiny_gemma3()
        .split(2)
        .into_iter()
        .map(|part| part.set("general.architecture", g::string("gemma3")).set("general.name", g::string("tiny")))
        .collect();
    open(&write(&dir, &repeated)[1]);
    let without_total: Vec<GgufFile> =
        tiny_gemma3().split(2).into_iter().map(|part| part.without("split.tensors.count")).collect();
    open(&write(&dir, &without_total)[0]);
    open(&dir.write("n-00001-of-00001.gguf", tiny_gemma3().bytes()));
}

/// What is wrong with a split model: the parts as they are written, and the one that is opened.
struct Broken {
    parts: Vec<(String, Vec<u8>)>,
    open: String,
}

fn broken(
    id: &'static str,
    parts: Vec<GgufFile>,
    change: impl Fn(&mut Vec<(String, Vec<u8>)>),
    open: usize,
    message: &str,
) -> Case<Broken> {
    let count = parts.len();
    let mut parts: Vec<_> = parts.iter().enumerate().map(|(i, p)| (part_name(i + 1, count), p.bytes())).collect();
    change(&mut parts);
    Case::new(id, Broken { parts, open: part_name(open, count) }, message)
}

fn three() -> Vec<GgufFile> {
    tiny_gemma3().split(3)
}

fn keep(_: &mut Vec<(String, Vec<u8>)>) {}

#[test]
fn parts_that_do_not_belong_together() {
    let set = |i: usize, key: &str, value: Vec<u8>| {
        let mut parts = three();
        parts[i] = parts[i].clone().set(key, value);
        parts
    };
    let with_tensor_twice = || {
        let mut parts = three();
        let tensor = parts[0].tensors[1].clone();
        parts[2].tensors.push(tensor);
        let n: usize = parts.iter().map(|p| p.tensors.len()).sum();
        parts.into_iter().map(|p| p.set("split.tensors.count", g::i32(n as i32))).collect::<Vec<_>>()
    };
    let without_head = || {
        let mut parts = three();
        parts[1] = parts[1].clone().without("split.no").without("split.count");
        parts
    };
    let n = tiny_gemma3().tensors.len();
    refuse(vec![
        broken(
            "C24",
            three(),
            |p| {
                let second = p[1].1.clone();
                p[2].1 = second;
            },
            1,
            "DIR/m-00003-of-00003.gguf: \"split.no\" is 1; part 3 of 3 by its name has 2",
        ),
        broken(
            "C24",
            set(1, "split.count", g::u16(4)),
            keep,
            1,
            "DIR/m-00002-of-00003.gguf: \"split.count\" is 4; its name says 3",
        ),
        broken(
            "C24",
            set(2, "split.tensors.count", g::i32(99)),
            keep,
            2,
            &format!("DIR/m-00003-of-00003.gguf: \"split.tensors.count\" is 99; the 3 parts hold {n} tensors together"),
        ),
        broken(
            "C24",
            with_tensor_twice(),
            keep,
            1,
            "DIR/m-00003-of-00003.gguf: tensor \"output_norm.weight\" is in part 1 as well",
        ),
        broken(
            "C24",
            without_head(),
            keep,
            1,
            "DIR/m-00002-of-00003.gguf: is named as part 2 of 3 but has no \"split.count\"",
        ),
        broken(
            "C24",
            set(0, "split.no", g::i32(-1)),
            keep,
            1,
            "DIR/m-00001-of-00003.gguf: \"split.no\" is -1; 0 to 65535 expected",
        ),
    ]);
}

#[test]
fn parts_that_are_missing_or_cut() {
    refuse(vec![
        broken(
            "C24",
            three(),
            |p| drop(p.remove(1)),
            1,
            "DIR/m-00001-of-00003.gguf: 1 of the model's 3 parts is missing beside it: m-00002-of-00003.gguf",
        ),
        broken(
            "C24",
            three(),
            |p| p.truncate(1),
            3,
            "DIR/m-00003-of-00003.gguf: 2 of the model's 3 parts are missing beside it: m-00002-of-00003.gguf, \
             m-00003-of-00003.gguf",
        ),
        broken(
            "C1",
            three(),
            |p| p[1].1.truncate(10),
            1,
            "DIR/m-00002-of-00003.gguf: is 10 bytes long; a GGUF header needs 24",
        ),
    ]);
}

fn refuse(cases: Vec<Case<Broken>>) {
    let n_cases = cases.len();
    let mut failures = Vec::new();
    for case in cases {
        let dir = TempDir::new();
        let n_bytes = case.input.parts.iter().map(|(name, bytes)| (dir.write(name, bytes), bytes.len()).1).sum();
        let path = dir.path().join(&case.input.open);
        failures.extend(check(&case, dir.path(), n_bytes, || ModelSource::open(&path)).err());
    }
    report(failures, n_cases);
}

#[test]
fn a_split_that_is_not_there_is_an_ordinary_missing_file() {
    let dir = TempDir::new();
    let error = ModelSource::open(&dir.path().join(part_name(1, 2))).err().expect("refused").to_string();
    assert!(error.contains("No such file"), "{error}");
}
