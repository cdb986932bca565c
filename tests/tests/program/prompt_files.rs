//! `lichen generate --prompts` as its users run it.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lichen_tests::programs::{self, fixture, Run, TempDir};
use serde_json::Value;

use crate::{command, lichen, lichen_with_input};

const QUESTIONS: [&str; 5] = [
    "What is the capital of India?",
    "What is the capital of Japan?",
    "ಕರ್ನಾಟಕದ ರಾಜಧಾನಿ ಯಾವುದು?",
    "What is the name of this robot?",
    "Stop",
];

/// A line for each of `n` questions.
fn prompts(n: usize) -> String {
    let line = |i: usize| serde_json::json!({"prompt": QUESTIONS[i % QUESTIONS.len()], "id": format!("q{i}")});
    (0..n).map(|i| format!("{}\n", line(i))).collect()
}

/// Lines of answers by the lines they answer; each is whole and answers another.
fn answers(text: &str) -> BTreeMap<u64, Value> {
    let mut answers = BTreeMap::new();
    for line in text.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let number = value["line"].as_u64().unwrap_or_else(|| panic!("{line}"));
        assert!(answers.insert(number, value).is_none(), "line {number} is answered twice");
    }
    assert!(text.is_empty() || text.ends_with('\n'));
    answers
}

fn read(path: &Path) -> BTreeMap<u64, Value> {
    answers(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

fn check(run: &Run, code: i32) {
    assert_eq!(run.code, Some(code), "{}", run.stderr);
}

#[test]
fn every_line_is_answered_as_it_would_be_alone() {
    let dir = TempDir::new("prompt-files");
    std::fs::write(dir.path("p"), prompts(23)).unwrap();
    let (file, out) = (dir.file("p"), dir.file("a"));
    let flags = ["--temperature", "0.8", "--max-new-tokens", "24", "--threads", "1", "--device", "cpu"];
    let args = [&["generate", "--prompts", &file, "--out", &out, "--seed", "40"][..], &flags].concat();
    let summary = lichen(&[&args[..], &["--batch", "8", "--json"]].concat()).json();
    assert_eq!((summary["answers"].as_u64(), summary["batch"].as_u64()), (Some(23), Some(8)));
    let got = read(&dir.path("a"));
    assert_eq!(got.len(), 23);
    for number in [1, 2, 8, 23] {
        let answer = &got[&number];
        assert_eq!(answer["id"], format!("q{}", number - 1));
        let seed = (39 + number).to_string();
        assert_eq!(answer["seed"].to_string(), seed);
        let prompt = answer["prompt"].as_str().unwrap();
        let alone = lichen(&[&["generate", "--prompt", prompt, "--seed", &seed, "--json"][..], &flags].concat()).json();
        for field in ["text", "finish_reason", "prompt_tokens"] {
            assert_eq!(answer[field], alone[field], "line {number}: {field}");
        }
    }
    let total: u64 = got.values().map(|a| a["new_tokens"].as_u64().unwrap()).sum();
    assert_eq!(summary["new_tokens"].as_u64(), Some(total));
}

#[test]
fn bad_lines_are_named_and_left_out() {
    let lines = [
        r#"{"prompt": "What is the capital of India?", "temperature": 0, "max_new_tokens": 3, "lang": {"a": 1}}"#,
        "no json",
        "",
        r#"{"messages": [{"role": "user", "content": "What is the capital of India?"}], "temperature": 0}"#,
        r#"{"prompt": "x", "temperature": 9}"#,
        r#"{"tokens": [5, 99999999]}"#,
        r#"{"prompt": "Q: Q", "stop": [""]}"#,
        r#"{"tokens": [5, 6], "max_new_tokens": 2, "temperature": 0}"#,
    ];
    let long = format!("{{\"prompt\": \"{}\"}}", "word ".repeat(3000));
    let input = format!("{}\n{long}\n", lines.join("\n"));
    let run = lichen_with_input(&["generate", "--prompts", "-", "--batch", "3", "--context", "256"], &input);
    check(&run, 1);
    let got = answers(&run.stdout);
    assert_eq!(got.keys().copied().collect::<Vec<_>>(), [1, 4, 8]);
    assert_eq!((&got[&1]["new_tokens"], &got[&1]["lang"]["a"]), (&Value::from(3), &Value::from(1)));
    assert_eq!(got[&4]["text"], "The capital of India is New Delhi.");
    assert_eq!(got[&8]["token_ids"].as_array().unwrap().len(), 2);
    for expected in [
        "standard input: line 2: is no JSON: expected ident at column 2",
        "standard input: line 5: \"temperature\" is 9; 0 to 5",
        "standard input: line 6: token 99999999 is outside the vocabulary",
        "standard input: line 7: \"stop\" is 0 bytes long",
        "standard input: line 9: the prompt has",
        "3 answers, 5 lines left out",
    ] {
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
}

#[test]
fn the_first_bad_lines_are_shown_and_all_are_counted() {
    let run = lichen_with_input(&["generate", "--prompts", "-"], &"nothing\n".repeat(500));
    check(&run, 1);
    assert_eq!(run.stderr.matches("standard input: line").count(), 20, "{}", run.stderr);
    assert!(run.stderr.contains("0 answers, 500 lines left out"), "{}", run.stderr);
}

#[test]
fn a_summary_counts_as_people_do() {
    for (input, code, expected) in [
        ("{\"tokens\": [5, 6], \"max_new_tokens\": 1}\nnothing\n", 1, "1 answer, 1 line left out; 1 token in "),
        ("nothing\nnothing\n", 1, "0 answers, 2 lines left out; 0 tokens in "),
        ("{\"tokens\": [5, 6], \"max_new_tokens\": 2, \"temperature\": 0}\n", 0, "1 answer; 2 tokens in "),
    ] {
        let run = lichen_with_input(&["generate", "--prompts", "-"], input);
        check(&run, code);
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
}

/// On a terminal: what is said begins a line of its own, and what is left of a line of progress does not stand before it.
#[test]
fn nothing_is_written_behind_the_progress() {
    let dir = TempDir::new("prompt-files");
    // As long as a few lines of progress, and then some that are refused.
    std::fs::write(dir.path("p"), prompts(200) + &"nothing\n".repeat(3)).unwrap();
    let program = programs::lichen();
    let flags = "--batch 1 --threads 1 --device cpu --max-new-tokens 24";
    let line =
        format!("'{}' generate --prompts '{}' --out '{}' {flags}", program.display(), dir.file("p"), dir.file("a"));
    let run = match Command::new("script").args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output() {
        Ok(output) => Run::from(output),
        Err(e) => return println!("no terminal here: {e}"),
    };
    let said = run.stdout;
    assert!(said.matches(" of the prompts read").count() > 1, "it was over before any progress: {said}");
    for what in ["error: ", "200 answers, 3 lines left out"] {
        let at: Vec<usize> = said.match_indices(what).map(|(at, _)| at).collect();
        assert!(!at.is_empty(), "{what}: {said}");
        for at in at {
            let before = &said[..at];
            assert!(before.ends_with('\n') || before.ends_with("\r\u{1b}[K"), "{what}: {}", said.escape_debug());
        }
    }
}

#[test]
fn an_interrupted_file_is_continued() {
    let dir = TempDir::new("prompt-files");
    std::fs::write(dir.path("p"), prompts(40)).unwrap();
    let (prompts_file, out) = (dir.file("p"), dir.file("a"));
    let args = ["generate", "--prompts", &prompts_file, "--out", &out, "--temperature", "0", "--seed", "1"];
    check(&lichen(&args), 0);
    let whole = read(&dir.path("a"));
    // Nothing is overwritten.
    let refused = lichen(&args);
    check(&refused, 1);
    assert!(refused.stderr.contains("already exists: --resume goes on with it"), "{}", refused.stderr);
    // Cut in the middle of a line, as a power cut does.
    let text = std::fs::read_to_string(dir.path("a")).unwrap();
    std::fs::write(dir.path("a"), &text.as_bytes()[..text.len() / 2]).unwrap();
    let resumed = lichen(&[&args[..], &["--resume", "--json"]].concat());
    assert!(resumed.stderr.contains("the last write was cut"), "{}", resumed.stderr);
    let summary = resumed.json();
    let (n, before) = (summary["answers"].as_u64().unwrap(), summary["answered_before"].as_u64().unwrap());
    assert!(n + before == 40 && before > 10, "{summary}");
    assert!(read(&dir.path("a")) == whole);
    // With all of it there, nothing is left to do; with other prompts it is refused.
    assert_eq!(lichen(&[&args[..], &["--resume", "--json"]].concat()).json()["answers"], 0);
    std::fs::write(dir.path("p"), prompts(41).replace("q3\"", "q3b\"")).unwrap();
    let refused = lichen(&[&args[..], &["--resume"]].concat());
    check(&refused, 1);
    assert!(refused.stderr.contains("line 4: has changed since it was answered"), "{}", refused.stderr);
    for (flags, expected) in [(&["--json"][..], "--out FILE is needed"), (&["--stop", ""], "--stop is 0 bytes long")] {
        let usage = lichen(&[&["generate", "--prompts", &prompts_file][..], flags].concat());
        check(&usage, 2);
        assert!(usage.stderr.lines().count() == 1 && usage.stderr.contains(expected), "{}", usage.stderr);
    }
}

#[test]
fn ctrl_c_finishes_what_has_begun() {
    let dir = TempDir::new("prompt-files");
    let (out, text) = (dir.file("a"), prompts(60));
    let args = ["generate", "--prompts", "-", "--out", &out, "--batch", "4", "--temperature", "0"];
    let mut child = command(&args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // The pipe stays open: more prompts could come.
    let mut stdin = child.stdin.take().expect("piped");
    let first: String = text.lines().take(30).map(|l| format!("{l}\n")).collect();
    stdin.write_all(first.as_bytes()).unwrap();
    let start = Instant::now();
    while std::fs::read(&out).is_ok_and(|bytes| bytes.is_empty()) || !Path::new(&out).exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "no answer");
        std::thread::sleep(Duration::from_millis(5));
    }
    programs::send(&child, libc::SIGINT);
    let run: Run = child.wait_with_output().unwrap().into();
    drop(stdin);
    // What was begun is saved, and the rest can be resumed: nothing is lost, and nothing failed.
    check(&run, 0);
    assert!(run.stderr.contains("answers are finished first"), "{}", run.stderr);
    let n = read(&dir.path("a")).len();
    assert!((1..=30).contains(&n), "{n} answers");
    // All prompts, the first thirty among them.
    std::fs::write(dir.path("p"), &text).unwrap();
    let args = ["generate", "--prompts", &dir.file("p"), "--out", &out, "--resume", "--temperature", "0", "--json"];
    let summary = lichen(&args).json();
    assert_eq!(summary["answered_before"].as_u64(), Some(n as u64));
    assert_eq!(read(&dir.path("a")).len(), 60);
}

#[test]
fn models_without_a_tokenizer_answer_in_ids() {
    let dir = TempDir::new("prompt-files");
    for name in ["config.json", "model.safetensors", "generation_config.json"] {
        std::fs::copy(fixture(&format!("tiny-gemma3/{name}")), dir.path(name)).unwrap();
    }
    let model = dir.file("");
    let args = ["generate", "--model", &model, "--prompts", "-", "--max-new-tokens", "3", "--temperature", "0"];
    let run = lichen_with_input(&args, "{\"tokens\": [3, 1, 4]}\n{\"prompt\": \"hello\"}\n");
    check(&run, 1);
    let got = answers(&run.stdout);
    assert_eq!(got[&1]["token_ids"].as_array().unwrap().len(), 3);
    assert!(got[&1].get("text").is_none());
    assert!(run.stderr.contains("line 2: ") && run.stderr.contains("no tokenizer.json"), "{}", run.stderr);
}

#[test]
fn adapters_are_applied_and_a_run_that_never_began_leaves_no_file() {
    let dir = TempDir::new("prompt-files");
    std::fs::write(dir.path("p"), "{\"tokens\": [3, 1, 4, 15, 9, 26]}\n{\"tokens\": [5, 35, 8, 97]}\n").unwrap();
    let (file, out, model) = (dir.file("p"), dir.file("a"), fixture("tiny-qwen2-tied"));
    let adapter = fixture("tiny-qwen2-tied-lora");
    let flags = ["--max-new-tokens", "8", "--temperature", "0", "--device", "cpu"];
    let nobody = lichen(&["generate", "--model", "/nowhere", "--prompts", &file, "--out", &out]);
    check(&nobody, 1);
    assert!(!Path::new(&out).exists());
    let (batch, one) = (["generate", "--prompts", &file, "--out", &out], ["generate", "--tokens", "3,1,4,15,9,26"]);
    let with = ["--model", &model, "--adapter", &adapter];
    check(&lichen(&[&batch[..], &with, &flags].concat()), 0);
    let ids = |adapter: &[&str]| lichen(&[&one[..], adapter, &flags, &["--json"]].concat()).json()["token_ids"].clone();
    let got = &read(&dir.path("a"))[&1]["token_ids"];
    assert_eq!(*got, ids(&with));
    assert_ne!(*got, ids(&with[..2]), "the adapter changes nothing: this shows nothing");
}

#[test]
fn bench_and_plan_speak_of_batches() {
    let model = fixture("tiny-gemma3/tiny-gemma3-q8_0.gguf");
    let common = ["--model", &model, "--threads", "1", "--device", "cpu", "--context", "40", "--json"];
    let args = [&["bench", "--new-tokens", "8", "--batch", "3", "--repeat", "1"][..], &common].concat();
    let bench = lichen(&args).json();
    assert_eq!((bench["batch"].as_u64(), bench["prompt_tokens"].as_u64()), (Some(3), Some(32)));
    assert!(bench["decode_tokens_per_s"].as_f64().unwrap() > 0.0);
    let items = |batch: &[&str]| {
        let plan = lichen(&[&["plan"][..], batch, &common].concat()).json();
        let items: BTreeMap<String, u64> = plan["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| (i["name"].as_str().unwrap().to_string(), i["bytes"].as_u64().unwrap()))
            .collect();
        (plan, items)
    };
    let (plan, batch) = items(&["--batch", "6"]);
    let (_, session) = items(&[]);
    assert_eq!((plan["batch"].as_u64(), plan["batch_contexts"].as_u64()), (Some(6), Some(6)));
    // Two pages of 32 positions for 40, for each of six.
    assert_eq!(batch["kv pages, global layers"], session["kv cache, global layers"] / 40 * 64 * 6);
    assert_eq!(batch["logits"], session["logits"] * 8);
    // A budget that is tight leaves room for fewer, and one that is too tight for nobody.
    let least = plan["total_bytes"].as_u64().unwrap() - batch["kv pages, global layers"] / 2;
    let (plan, _) = items(&["--batch", "6", "--memory-budget", &least.to_string()]);
    assert!((1..6).contains(&plan["batch_contexts"].as_u64().unwrap()), "{plan}");
    let args = [&["plan", "--batch", "6", "--memory-budget", "1MiB"][..], &common].concat();
    let refused = lichen(&args);
    check(&refused, 1);
    assert!(refused.stderr.contains("lower --context (now 40) or --parallel (now 6)"), "{}", refused.stderr);
}
