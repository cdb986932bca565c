use lichen_runtime::files::formats::gguf::Gguf;
use lichen_runtime::files::mapped_file::MappedFile;
use lichen_tests::models::{fixture, temp_dir};
use lichen_tests::programs::{self, lichen_host, Run};
use serde_json::Value;

use crate::names;

fn run(arguments: &[&str]) -> Run {
    programs::run(&mut programs::command(lichen_host(), arguments))
}

/// Flags by name, below `adapter convert` or `adapter merge`; paths are fixtures, or OUT below the test's folder.
struct Case {
    command: &'static str,
    adapter: &'static str,
    model: &'static str,
    out: &'static str,
    more: &'static [&'static str],
    code: i32,
    /// How the sentence ends.
    says: &'static str,
}

const CASES: [Case; 14] = [
    convert(
        "tiny-gemma3-lora",
        "tiny-gemma3",
        "a",
        &["--out-type", "f16"],
        2,
        "--out-type f16 is for GGUF files: let --out end in .gguf, or leave it away",
    ),
    convert(
        "tiny-gemma3-lora",
        "tiny-gemma3",
        "a.gguf",
        &["--out-type", "q8_0"],
        2,
        "invalid value 'q8_0' for '--out-type <OUT_TYPE>' [possible values: f32, f16]",
    ),
    convert(
        "tiny-gemma3-lora",
        "tiny-gemma3",
        "a.gguf",
        &["--adaptor", "x"],
        2,
        "unknown flag --adaptor (did you mean --adapter?)",
    ),
    convert("nothing-here", "tiny-gemma3", "a.gguf", &[], 1, "nothing-here: No such file or directory (os error 2)"),
    convert(
        "tiny-gemma3-lora",
        "nothing-here",
        "a.gguf",
        &[],
        1,
        "nothing-here: No such file or directory (os error 2)",
    ),
    convert("tiny-gemma3", "tiny-gemma3", "a.gguf", &[], 1, "tiny-gemma3: no adapter_config.json in this folder"),
    convert(
        "tiny-gemma3/tiny-gemma3-q8_0.gguf",
        "tiny-gemma3",
        "a",
        &[],
        1,
        "is a model, not an adapter: pass it with --model",
    ),
    convert(
        "tiny-gemma3-lora",
        "tiny-gemma3",
        "taken.gguf",
        &[],
        1,
        "taken.gguf: already exists: choose another name or remove it first",
    ),
    merge(
        "tiny-gemma3-lora",
        "tiny-gemma3",
        "a.gguf",
        &["--format", "q3"],
        2,
        "[possible values: q8_0, q5_0, q4_0, nf4, f16, bf16, f32]",
    ),
    merge(
        "tiny-gemma3-lora:1000",
        "tiny-gemma3",
        "a.gguf",
        &["--format", "q8_0"],
        2,
        "a path, with a scale from -100 to 100",
    ),
    merge(
        "tiny-gemma3-lora",
        "tiny-gemma3",
        "a",
        &["--format", "nf4", "--name", "x"],
        2,
        "--name is for GGUF files; an nf4 folder is called as --out is",
    ),
    merge(
        "tiny-gemma3-lora",
        "tiny-gemma3",
        "a.gguf",
        &[],
        2,
        "the following required arguments were not provided: --format <FORMAT>",
    ),
    merge(
        "nothing-here:0.5",
        "tiny-gemma3",
        "a.gguf",
        &["--format", "f32"],
        1,
        "nothing-here: No such file or directory (os error 2)",
    ),
    merge(
        "tiny-gemma3-lora",
        "tiny-gemma3",
        "taken.gguf",
        &["--format", "f32"],
        1,
        "taken.gguf: already exists: choose another name or remove it first",
    ),
];

const fn convert(
    adapter: &'static str,
    model: &'static str,
    out: &'static str,
    more: &'static [&'static str],
    code: i32,
    says: &'static str,
) -> Case {
    Case { command: "convert", adapter, model, out, more, code, says }
}

const fn merge(
    adapter: &'static str,
    model: &'static str,
    out: &'static str,
    more: &'static [&'static str],
    code: i32,
    says: &'static str,
) -> Case {
    Case { command: "merge", ..convert(adapter, model, out, more, code, says) }
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let dir = temp_dir("adapters-wrong");
    std::fs::write(dir.join("taken.gguf"), b"precious").unwrap();
    for case in &CASES {
        let path = |name: &str| fixture(name).display().to_string();
        let (adapter, model, out) = (path(case.adapter), path(case.model), dir.join(case.out));
        let flags = ["adapter", case.command, "--adapter", &adapter, "--model", &model, "--out", out.to_str().unwrap()];
        let done = run(&[&flags[..], case.more].concat());
        let (said, shown) = (&done.stderr, format!("{} {} {:?}", case.command, case.adapter, case.more));
        assert_eq!((done.code, done.stdout), (Some(case.code), String::new()), "{shown}: {said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{shown}: {said}");
        assert!(said.ends_with(&format!("{}\n", case.says)), "{shown}: {said}");
        assert_eq!(names(&dir), ["taken.gguf"], "{shown}");
        assert_eq!(std::fs::read(dir.join("taken.gguf")).unwrap(), b"precious");
    }
}

/// An adapter of another base, of the same family and of another one.
#[test]
fn an_adapter_of_another_base_is_refused() {
    let dir = temp_dir("adapters-other");
    let out = dir.join("a.gguf");
    let lora = |name: &str| fixture(name).display().to_string();
    let in_gguf = dir.join("qwen.gguf").display().to_string();
    let (qwen, gemma) = (fixture("tiny-qwen2-tied"), fixture("tiny-gemma3"));
    let arguments = ["adapter", "convert", "--adapter", &lora("tiny-qwen2-tied-lora"), "--model"];
    let made = run(&[&arguments[..], &[qwen.to_str().unwrap(), "--out", &in_gguf]].concat());
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    for (adapter, says) in [
        (in_gguf.as_str(), "qwen.gguf: made for architecture \"qwen2\"; this model is gemma3"),
        (&lora("tiny-qwen2-tied-lora"), "adapter_model.safetensors: "),
    ] {
        for command in [&["convert"][..], &["merge", "--format", "q8_0"]] {
            let flags = ["--adapter", adapter, "--model", gemma.to_str().unwrap(), "--out", out.to_str().unwrap()];
            let done = run(&[&["adapter"], command, &flags[..]].concat());
            let said = &done.stderr;
            assert_eq!(done.code, Some(1), "{said}");
            assert!(said.starts_with("error: ") && said.lines().count() == 1 && said.contains(says), "{said}");
            assert_eq!(names(&dir), ["qwen.gguf"]);
        }
    }
}

#[test]
fn reports() {
    let dir = temp_dir("adapters-reports");
    let (model, adapter) = (fixture("tiny-gemma3"), fixture("tiny-gemma3-lora"));
    let (model, adapter) = (model.to_str().unwrap(), adapter.to_str().unwrap());
    let ran = |arguments: &[&str]| {
        let done = run(&[&["adapter"], arguments, &["--model", model]].concat());
        assert_eq!((done.code, done.stderr), (Some(0), String::new()));
        done.stdout
    };
    let gguf = dir.join("a.gguf").display().to_string();
    let said = ran(&["convert", "--adapter", adapter, "--out", &gguf, "--out-type", "f16"]);
    let bytes = std::fs::metadata(&gguf).unwrap().len();
    assert!(said.contains(", 49 matrices of rank 4 or less, alpha 8, for tiny-gemma3\n"), "{said}");
    assert!(said.contains("rounding to f16: squared error "), "{said}");
    let folder = dir.join("a").display().to_string();
    let report: Value =
        serde_json::from_str(&ran(&["convert", "--adapter", &gguf, "--out", &folder, "--json"])).unwrap();
    assert_eq!((&report["format"], &report["matrices"]), (&"peft".into(), &49.into()));
    assert_eq!(names(&dir.join("a")), ["README.md", "adapter_config.json", "adapter_model.safetensors"]);
    assert!(bytes > 0);

    let merged = dir.join("my-model.gguf").display().to_string();
    let said = ran(&["merge", "--adapter", adapter, "--format", "q8_0", "--out", &merged]);
    assert!(said.contains(&format!("merged 49 of 49 matrices of {adapter} (its base: tiny-gemma3)")), "{said}");
    assert!(!said.contains("note:"), "{said}");
    let file = Gguf::parse(MappedFile::open(dir.join("my-model.gguf").as_path()).unwrap()).unwrap();
    assert_eq!(file.metadata().string("general.name"), Ok(Some("my-model")));
    let (half, again) = (format!("{adapter}:0.5"), dir.join("b.gguf").display().to_string());
    let report = ran(&["merge", "--adapter", &half, "--format", "bf16", "--out", &again, "--json", "--name", "mine"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["merge"]["matrices_merged"], &report["merge"]["matrices"]), (&49.into(), &49.into()));
    assert_eq!((&report["merge"]["scale"], &report["format"]), (&0.5.into(), &"bf16".into()));
    let file = Gguf::parse(MappedFile::open(dir.join("b.gguf").as_path()).unwrap()).unwrap();
    assert_eq!(file.metadata().string("general.name"), Ok(Some("mine")));
    assert_eq!(file.metadata().integer("general.file_type", 0, 100), Ok(Some(32)));
}

#[test]
fn help_names_what_there_is() {
    for (arguments, code, words) in [
        (&["adapter"][..], 2, &["convert", "merge"][..]),
        (&["adapter", "--help"], 0, &["convert", "merge"]),
        (&["adapter", "convert", "--help"], 0, &["--out-type", ".gguf", "multiplied into B"]),
        (&["adapter", "merge", "--help"], 0, &["PATH[:SCALE]", "bf16", "decoded, added to and rounded again"]),
    ] {
        let done = run(arguments);
        assert_eq!(done.code, Some(code));
        // Wrapped at the width of a terminal that is not there.
        let said = (done.stdout + &done.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(said.contains(word), "{arguments:?}: no {word} in {said}");
        }
    }
    let unknown = run(&["adapter", "marge"]);
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.starts_with("error: unknown subcommand marge (did you mean merge?)"));
}
