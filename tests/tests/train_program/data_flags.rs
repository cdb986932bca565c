//! What the program says of its data before the first step, and how files of data are given.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{run, text, Run, TempDir};

const COMMON: &str = "--max-steps 2 --accumulate 1 --rank 2 --max-seq 64 --device cpu --threads 2";

/// A short run of the demo model: these flags behind the common ones, of which the last counts.
fn train(out: &Path, flags: &[&str]) -> Run {
    let common: Vec<&str> = COMMON.split(' ').collect();
    run(&[&["lora", "--out", out.to_str().expect("UTF-8")], &common[..], flags].concat())
}

/// Rows of a question and its answer.
fn rows(n: usize, question: &str) -> String {
    (0..n).map(|i| format!("{{\"instruction\": \"{question} {i}\", \"output\": \"it is {i}\"}}\n")).collect()
}

fn lines(said: &str) -> Vec<&str> {
    said.lines().map(str::trim).collect()
}

#[test]
fn what_is_trained_on_and_held_out_is_said_first() {
    let folder = TempDir::new("said");
    let data = folder.file("data.jsonl");
    fs::write(&data, rows(8, "where")).expect("written");
    let cases: [(&[&str], &str); 4] = [
        (&[], "7 samples are trained on, 1 sample is held out (--eval-split is 0.05); --loss-on answers: 2 steps of 1 sample, "),
        (&["--eval-split", "0"], "8 samples are trained on, none is held out; --loss-on answers: 2 steps of 1 sample, "),
        (&["--eval-split", "0.25", "--loss-on", "all"], "6 samples are trained on, 2 samples are held out (--eval-split is 0.25); --loss-on all: 2 steps of 1 sample, "),
        (&["--accumulate", "3", "--eval-split", "0"], "8 samples are trained on, none is held out; --loss-on answers: 2 steps of 3 samples, "),
    ];
    for (i, (more, want)) in cases.iter().enumerate() {
        let out = folder.path(&format!("run{i}"));
        let ended = train(&out, &[&["--data", &*data], *more].concat()).ok();
        assert!(lines(&ended.stderr).iter().any(|line| line.starts_with(want)), "{want}: {}", ended.stderr);
    }
    let json = train(&folder.path("json"), &["--data", &data, "--json"]).ok().json();
    assert_eq!(
        (&json["train_samples"], &json["eval_samples"], &json["rows_left_out"]),
        (&7.into(), &1.into(), &0.into())
    );
}

#[test]
fn odd_numbers_of_steps_are_said() {
    let folder = TempDir::new("odd");
    let data = folder.file("data.jsonl");
    fs::write(&data, rows(8, "where")).expect("written");
    let flags = |more: &str| -> Vec<String> {
        let out = folder.file(&format!("run {more}"));
        let flags = ["lora", "--out", &out, "--data", &data, "--rank", "2", "--device", "cpu"];
        flags.iter().map(|f| f.to_string()).chain(more.split(' ').map(String::from)).collect()
    };
    let one = run(&flags("--eval-split 0.1")).ok().stderr;
    let said = "this is one step in all: the weights are updated once (lower --gradient-accumulation-steps, or raise \
                --epochs)";
    assert!(lines(&one).contains(&said), "{one}");
    let warm = run(&flags("--eval-split 0 --accumulate 4 --warmup 100")).ok().stderr;
    let said =
        "--warmup is 100 steps, and the run has 2 steps: --learning-rate rises all the time and never reaches 0.0002";
    assert!(lines(&warm).contains(&said), "{warm}");
    let usual = run(&flags("--eval-split 0 --accumulate 4")).ok().stderr;
    assert!(!usual.contains("one step") && !usual.contains("rises"), "{usual}");
}

/// Twice, by a pattern, in a job file, by both: the flags are what counts.
#[test]
fn several_files_are_given_in_every_way() {
    let folder = TempDir::new("several");
    for (name, n) in [("a.jsonl", 3), ("b.jsonl", 2), ("c.jsonl", 1)] {
        fs::write(folder.path(name), rows(n, name)).expect("written");
    }
    let [a, b, c, pattern] = ["a.jsonl", "b.jsonl", "c.jsonl", "[ab].jsonl"].map(|name| folder.file(name));
    let job = folder.file("job.toml");
    fs::write(&job, format!("data = [\"{a}\", \"{b}\"]\neval_data = \"{c}\"\n")).expect("written");
    let cases: [(&[&str], &str); 4] = [
        (&["--data", &a, "--data", &b, "--eval-split", "0"], "5 samples are trained on, none is held out"),
        (&["--data", &pattern, "--eval-data", &c], "5 samples are trained on, 1 sample is held out (--eval-data)"),
        (&[&job], "5 samples are trained on, 1 sample is held out (--eval-data)"),
        (&[&job, "--data", &c, "--eval-data", &b], "1 sample is trained on, 2 samples are held out (--eval-data)"),
    ];
    let mut trained = Vec::new();
    for (i, (flags, want)) in cases.iter().enumerate() {
        let out = folder.path(&format!("run{i}"));
        let (files, rest): (Vec<&str>, Vec<&str>) = flags.iter().partition(|f| f.ends_with(".toml"));
        let ended = train(&out, &[files, rest].concat()).ok();
        assert!(lines(&ended.stderr).iter().any(|line| line.starts_with(want)), "{want}: {}", ended.stderr);
        trained.push(fs::read(out.join("step-00000002/optimizer.safetensors")).unwrap_or_default());
    }
    assert!(trained[1] == trained[2] && !trained[1].is_empty(), "a job file is flags");
    let out = folder.path("refused");
    let refused = [
        (
            vec!["--data", &*a, "--eval-data", &c, "--eval-split", "0.1"],
            "--eval-split cannot be used with --eval-data".to_string(),
        ),
        (vec!["--data", &a, "--data", &a], format!("{a}: is given twice as --data")),
        (
            vec!["--data", &a, "--eval-data", &a],
            format!("{a}: is among --data and --eval-data: what is trained on tells nothing about what is learned"),
        ),
        (
            vec![&*b, "--data", &a],
            format!("{b}: is no job file: --data is given for each file to train on, or once with a pattern in quotes"),
        ),
        (vec!["--data", ""], "--data is \"\"; a path".to_string()),
    ];
    for (flags, said) in refused {
        let ended = train(&out, &flags);
        assert_eq!(ended.error(), said, "{flags:?}");
        assert!(!out.exists(), "{flags:?}");
    }
}

#[test]
fn files_of_other_kinds_are_refused_by_what_they_are() {
    let folder = TempDir::new("kinds");
    let cases: [(&str, &[u8], &str); 4] = [
        (
            "a.csv",
            b"instruction,output\na,b\n",
            "is CSV with the columns instruction, output; write it as JSON lines first",
        ),
        ("a.parquet", b"PAR1\x15\x04\x15", "is a Parquet file; write it as JSON lines first"),
        ("a.jsonl.gz", b"\x1f\x8b\x08\0", "is compressed with gzip; unpack it first (gunzip)"),
        ("a.txt", b"It was a dark night.\n", "is plain text, not rows of JSON; "),
    ];
    for (name, bytes, said) in cases {
        let path = folder.file(name);
        fs::write(&path, bytes).expect("written");
        let ended = train(&folder.path("run"), &["--data", &path]);
        assert!(ended.code == Some(1) && ended.error().starts_with(&format!("{path}: {said}")), "{ended:?}");
    }
}

/// The earlier flag is the later one, and what is learned stands in the run's record.
#[test]
fn what_is_learned_is_recorded() {
    let folder = TempDir::new("loss-on");
    let data = folder.file("data.jsonl");
    fs::write(&data, rows(4, "where")).expect("written");
    let names = ["answers", "all", "earlier"];
    let flags: [&[&str]; 3] = [&["--loss-on", "answers"], &["--loss-on", "all"], &["--train-on-prompt"]];
    let mut adapters = Vec::new();
    for (name, more) in names.iter().zip(flags) {
        let out = folder.path(name);
        train(&out, &[&["--data", &*data, "--eval-split", "0"], more].concat()).ok();
        let record: Value = serde_json::from_str(&text(&out.join("current/adapter.json"))).expect("JSON");
        let want = if *name == "answers" { "answers" } else { "all" };
        assert_eq!(record["settings"]["loss_on"], want, "{record}");
        adapters.push(fs::read(out.join("current/optimizer.safetensors")).expect("moments"));
    }
    assert!(adapters[0] != adapters[1] && adapters[1] == adapters[2]);
    let ended = train(&folder.path("answers"), &["--data", &data, "--eval-split", "0", "--loss-on", "all", "--resume"]);
    assert!(ended.error().contains("the run was started with --loss-on answers, and now it is all"), "{ended:?}");
}
