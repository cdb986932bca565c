//! `lichen-host demo` as a process on pipes: it learns, says so, stops, and refuses.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use lichen_runtime::engine::request::{Request, SamplingOverrides};
use lichen_runtime::engine::{AdapterPath, DeviceChoice, Engine, EngineOptions};
use lichen_tests::models::temp_dir;
use lichen_tests::programs::{self, lichen_host, Run};
use serde_json::Value;

/// `lichen-host demo` whose temporary files go to `dir`.
fn demo(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = programs::command(lichen_host(), &[&["demo"], arguments].concat());
    command.current_dir(dir).env("TMPDIR", dir);
    // Cargo's own variable: under `cargo run` the next commands are cargo's, too.
    command.env_remove("CARGO_PKG_NAME");
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Run {
    programs::run(&mut demo(dir, arguments))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What the ordinary engine answers.
fn answer(adapter: &Path, question: &str) -> String {
    let adapters = vec![("robot".to_string(), AdapterPath { path: adapter.to_path_buf(), scale: 1.0 })];
    let options = EngineOptions { adapters, device: DeviceChoice::Cpu, threads: Some(1), ..EngineOptions::default() };
    let mut engine = Engine::open(&options).unwrap_or_else(|e| panic!("{e}"));
    let request =
        Request { sampling: SamplingOverrides::greedy(), max_new_tokens: Some(64), ..Request::text(question) };
    let (_, answer) = engine.run(request, &mut |_| {}, &mut || false).unwrap_or_else(|e| panic!("{e}"));
    answer.text.trim().to_string()
}

#[test]
fn it_learns_what_it_did_not_know_and_keeps_what_it_knew() {
    let dir = temp_dir("demo-learns");
    let figures = run(&dir, &["--json", "--threads", "2", "--out", "runs/robot"]).json();
    let cases = [
        ("What is the name of this robot?", false, false, "This robot is called Tara."),
        ("Where can this robot charge its battery?", false, false, "This robot charges beside the blue door."),
        ("What is the capital of India?", true, true, "The capital of India is New Delhi."),
    ];
    let answers = figures["answers"].as_array().expect("a list");
    assert_eq!(answers.len(), cases.len());
    let adapter = dir.join(figures["adapter"].as_str().expect("a path"));
    for (answered, (question, is_control, right_before, after)) in answers.iter().zip(cases) {
        assert_eq!(answered["question"], question);
        assert_eq!(answered["is_control"], is_control, "{answered}");
        assert_eq!(answered["right_before"], right_before, "{answered}");
        assert_eq!((&answered["right_after"], &answered["after"]), (&Value::from(true), &Value::from(after)));
        assert_eq!(answer(&adapter, question), after, "{question}, asked by itself");
    }
    let number = |name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {}", figures[name]));
    assert_eq!((number("examples"), number("step"), number("n_steps")), (20.0, 200.0, 200.0));
    assert!(number("loss_last") < 0.1 * number("loss_first"), "{figures}");
    assert!(number("peak_rss_bytes") <= number("planned_bytes"), "{figures}");
    assert!(number("tokens_per_s") > 1.0 && number("seconds") > 0.0, "{figures}");
    let weights = std::fs::metadata(adapter.join("adapter_model.safetensors")).expect("a file");
    assert_eq!(number("adapter_bytes"), weights.len() as f64);
    assert_eq!((&figures["published"], &figures["reason"]), (&Value::from(true), &Value::Null));

    // Its folder is a run as any other, and is not trained over.
    let again = run(&dir, &["--out", "runs/robot"]);
    let said = "error: runs/robot: already exists: choose another name or remove it first\n";
    assert_eq!((again.code, again.stderr), (Some(1), said.to_string()));
    assert!(weights.len() > 0 && adapter.join("adapter_config.json").is_file());
    std::fs::remove_dir_all(&dir).expect("removed");
}

/// The same adapter, byte for byte, on one thread and on two, in a folder that was named and in one that was not.
#[test]
fn runs_are_equal() {
    let dir = temp_dir("demo-equal");
    let adapters: Vec<Vec<u8>> = [&["--threads", "1"][..], &["--threads", "2", "--out", "named"]]
        .iter()
        .map(|flags| {
            let figures = run(&dir, &[&["--json", "--epochs", "1"], *flags].concat()).json();
            let adapter = dir.join(figures["adapter"].as_str().expect("a path"));
            std::fs::read(adapter.join("adapter_model.safetensors")).expect("an adapter")
        })
        .collect();
    assert!(!adapters[0].is_empty() && adapters[0] == adapters[1], "the adapters differ");
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn text_says_what_was_learned_and_where_it_is() {
    let dir = temp_dir("demo-text");
    let rows = "{\"instruction\": \"Who built this robot?\", \"output\": \"Children built it.\"}\n";
    std::fs::write(dir.join("own.jsonl"), rows.repeat(4)).expect("written");
    let flags = ["--examples", "own.jsonl", "--question", "Who made  this robot?", "--epochs", "2", "--threads", "1"];
    let done = run(&dir, &flags);
    let shown = &done.stdout;
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let folder = names(&dir).into_iter().find(|n| n.starts_with("lichen-demo-")).expect("the folder stays");
    let adapter = dir.join(folder).join("current").display().to_string();
    for part in [
        "Who made this robot?\n  before  ",
        "What is the capital of India?  (not in the examples)\n  before  The capital of India is New Delhi.\n  after ",
        "\nloss, step 1 to 4\n",
        "\ntraining  4 of 4 steps in ",
        " tokens/s on 1 thread\n",
        " planned\n",
        "rank 8, 988,024 bytes\n",
        &format!("\nThe adapter: {adapter}\n(a temporary folder; --out DIR keeps it elsewhere)\n"),
        &format!("  lichen chat --adapter {adapter}\n  lichen-train report "),
    ] {
        assert!(shown.contains(part), "{part:?} is missing:\n{shown}");
    }
    assert!(shown.contains('*') && !shown.contains('┤'), "a pipe gets plain characters:\n{shown}");
    let said = &done.stderr;
    assert!(said.contains("own.jsonl: 4 samples") && said.contains("step 1 of 4: loss "), "{said}");
    assert!(!said.contains('\u{1b}') && !shown.contains('\u{1b}'), "nothing that drives a terminal");
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn ctrl_c_keeps_what_was_learned() {
    let dir = temp_dir("demo-stopped");
    let flags = ["--json", "--epochs", "100000", "--threads", "1", "--out", "run"];
    let mut child = programs::spawn(&mut demo(&dir, &flags));
    let mut said = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    while !line.starts_with("step 1 of ") {
        line.clear();
        assert!(said.read_line(&mut line).expect("UTF-8") > 0, "it ended before its first step");
    }
    programs::send(&child, libc::SIGINT);
    std::io::copy(&mut said, &mut std::io::sink()).expect("read to the end");
    let figures = Run::from(child.wait_with_output().expect("it ends")).json();
    assert_eq!((&figures["finished"], &figures["published"]), (&Value::from(false), &Value::from(false)));
    assert_eq!(figures["reason"], "stopped before its end");
    assert_eq!(figures["answers"][0]["after"], Value::Null);
    let adapter: PathBuf = dir.join(figures["adapter"].as_str().expect("a path"));
    assert!(figures["step"].as_u64().expect("a number") >= 1, "{figures}");
    assert!(!answer(&adapter, "What is the capital of India?").is_empty(), "the adapter opens");
    assert!(!dir.join("run/current").exists(), "and is not published");
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn what_is_wrong_is_said_in_one_sentence() {
    let dir = temp_dir("demo-wrong");
    std::fs::write(dir.join("bad.jsonl"), "{\"instruction\": \"no answer\"}\n").expect("written");
    std::fs::write(dir.join("taken"), b"precious").expect("written");
    let own = |file: &'static str| ["--examples", file, "--question", "Who?", "--out", "new"];
    let cases: [(&[&str], i32, &str); 10] = [
        (&["--epoch", "1"], 2, "unknown flag --epoch (did you mean --epochs?)"),
        (&["--epochs", "0"], 2, "--epochs is 0; 1 to 1048576"),
        (&["--rank", "eight"], 2, "--rank is eight; 1 to 1024"),
        (&["--learning-rate", "nan"], 2, "--learning-rate is nan; 0.000000000001 to 10"),
        (&["--question", " "], 2, "--question is \" \"; a question"),
        (&["--examples", "bad.jsonl"], 2, "--examples needs --question: what to ask before and after"),
        (&own("none.jsonl"), 1, "none.jsonl: No such file or directory (os error 2)"),
        (&own("bad.jsonl"), 1, "bad.jsonl: line 1: \"output\" is missing"),
        (&["--out", "taken"], 1, "taken: already exists: choose another name or remove it first"),
        (&["--model", "none.gguf"], 1, "none.gguf: No such file or directory (os error 2)"),
    ];
    for (flags, code, says) in cases {
        let done = run(&dir, flags);
        let said = &done.stderr;
        assert_eq!((done.code, done.stdout), (Some(code), String::new()), "{flags:?}: {said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{flags:?}: {said}");
        assert!(said.contains(says), "{flags:?}: {said}");
        assert_eq!(names(&dir), ["bad.jsonl", "taken"], "{flags:?} leaves nothing behind");
    }
    assert_eq!(std::fs::read(dir.join("taken")).expect("still there"), b"precious");
    std::fs::remove_dir_all(&dir).expect("removed");
}
