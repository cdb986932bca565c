//! Wrong flags and files: one sentence, the right exit code, never a panic.

use lichen_tests::programs::{fixture, TempDir};

use crate::{lichen, lichen_with_input};

const SUBCOMMANDS: [&str; 7] = ["chat", "generate", "info", "plan", "bench", "perplexity", "logits"];

#[test]
fn help_ends_with_an_example() {
    for name in SUBCOMMANDS {
        let run = lichen(&[name, "--help"]);
        assert_eq!(run.code, Some(0), "{name}");
        assert!(run.stdout.contains("Example") && run.stdout.contains(&format!("lichen {name}")), "{}", run.stdout);
    }
    assert_eq!(lichen(&["--version"]).stdout, format!("lichen {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(lichen(&[]).code, Some(2));
}

struct Case {
    flags: &'static [&'static str],
    message: &'static str,
}

const SIZE: &str = "bytes, or a number with KiB, MiB, GiB, KB, MB or GB, above 0 and at most 1024 GiB";

const CASES: [Case; 33] = [
    Case { flags: &["--top-p", "2"], message: "--top-p is 2; 0 to 1" },
    Case { flags: &["--top-p", "nan"], message: "--top-p is nan; 0 to 1" },
    Case { flags: &["--top-p", "-1"], message: "--top-p is -1; 0 to 1" },
    Case { flags: &["--top-p", ""], message: "--top-p is \"\"; 0 to 1" },
    Case { flags: &["--min-p", "NaN"], message: "--min-p is NaN; 0 to 1" },
    Case { flags: &["--min-p", "1.5"], message: "--min-p is 1.5; 0 to 1" },
    Case { flags: &["--temperature", "inf"], message: "--temperature is inf; 0 to 5" },
    Case { flags: &["--temperature", "-0.1"], message: "--temperature is -0.1; 0 to 5" },
    Case { flags: &["--repeat-penalty", "0"], message: "--repeat-penalty is 0; 0.1 to 10" },
    Case { flags: &["--top-k", "-1"], message: "--top-k is -1; 0 to 16777216" },
    Case { flags: &["--top-k", "9223372036854775808"], message: "--top-k is 9223372036854775808; 0 to 16777216" },
    Case { flags: &["--seed", "-1"], message: "--seed is -1; 0 to 18446744073709551615" },
    Case { flags: &["--threads", "0"], message: "--threads is 0; 1 to 1024" },
    Case { flags: &["--threads", "1025"], message: "--threads is 1025; 1 to 1024" },
    Case { flags: &["--context", "0"], message: "--context is 0; 1 to 16777216" },
    Case { flags: &["--context", "513"], message: "--context is 513; 1 to 512 for this model" },
    Case { flags: &["--prefill-chunk", "0"], message: "--prefill-chunk is 0; 1 to 4096" },
    Case { flags: &["--max-new-tokens", "-3"], message: "--max-new-tokens is -3; 0 to 16777216" },
    Case { flags: &["--max-new-tokens", "1e3"], message: "--max-new-tokens is 1e3; 0 to 16777216" },
    Case { flags: &["--memory-budget", "5XB"], message: "--memory-budget is 5XB; {size}" },
    Case { flags: &["--memory-budget", "nan"], message: "--memory-budget is nan; {size}" },
    Case { flags: &["--memory-budget", "-1GiB"], message: "--memory-budget is -1GiB; {size}" },
    Case { flags: &["--device", "gpu"], message: "--device is gpu; auto, cpu, cuda or cuda:N" },
    Case { flags: &["--device", "cuda:x"], message: "--device is cuda:x; auto, cpu, cuda or cuda:N" },
    Case { flags: &["--kv-cache", "q4"], message: "--kv-cache is q4; auto, f32, f16 or int8" },
    Case { flags: &["--adapter", "a:nan"], message: "--adapter is a:nan; a path, with a scale from -100 to 100" },
    Case { flags: &["--temprature", "1"], message: "unknown flag --temprature (did you mean --temperature?)" },
    Case { flags: &["--seed", "1", "--seed", "2"], message: "the argument '--seed <N>' cannot be used multiple times" },
    Case { flags: &["--stop", ""], message: "--stop is 0 bytes long; 1 to 1024" },
    Case { flags: &["--raw"], message: "the argument '--tokens <IDS>' cannot be used with '--raw'" },
    Case { flags: &["--system", "x"], message: "the argument '--tokens <IDS>' cannot be used with '--system <TEXT>'" },
    Case { flags: &["--prompt", "x"], message: "the argument '--tokens <IDS>' cannot be used with '--prompt <TEXT>'" },
    Case { flags: &["--top-p", "\u{1b}]0;x\u{7}"], message: "--top-p is \"\\u{1b}]0;x\\u{7}\"; 0 to 1" },
];

#[test]
fn wrong_flags_are_refused_in_one_sentence() {
    let model = fixture("tiny-gemma3");
    for (i, case) in CASES.iter().enumerate() {
        let mut args = vec!["generate", "--model", &model, "--tokens", "1,2"];
        args.extend(case.flags);
        let run = lichen(&args);
        let want = format!("error: {}\n", case.message.replace("{size}", SIZE));
        assert_eq!(run.stderr, want, "case {i}");
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "case {i}");
    }
}

#[test]
fn what_cannot_be_done_exits_with_1() {
    let dir = TempDir::new("usage");
    let model = fixture("tiny-gemma3");
    std::fs::write(dir.path("x.gguf"), b"GGUF").unwrap();
    std::fs::write(dir.path("latin1.txt"), b"caf\xe9").unwrap();
    std::fs::write(dir.path("empty.txt"), b"\n\n").unwrap();
    let (bad, latin1, empty) = (dir.file("x.gguf"), dir.file("latin1.txt"), dir.file("empty.txt"));
    let out = dir.file("no/such/folder.safetensors");
    let cases: [(&[&str], String); 9] = [
        (&["generate", "--tokens", "1", "--model", "/nope"], "/nope: No such file".into()),
        (&["generate", "--tokens", "1", "--model", &bad], format!("{bad}: ")),
        (&["generate", "--tokens", "1,999", "--model", &model], "token 999 is outside the vocabulary of 320".into()),
        (&["generate", "--tokens", "1", "--model", &model, "--device", "cuda:99"], "--device cuda: no CUDA d".into()),
        (&["plan", "--model", &model, "--memory-budget", "1MiB"], "and the budget is 1.0 MiB".into()),
        (&["generate", "--tokens", "1", "--model", &model, "--adapter", "/nope"], "/nope".into()),
        (&["perplexity", "--model", &model, "--text", &latin1], format!("{latin1}: byte 3 is not UTF-8")),
        (&["perplexity", "--model", &model, "--text", &empty], format!("{empty}: the text holds no token")),
        (&["logits", "--model", &model, "--tokens", "1", "--out", &out], format!("{out}: No such file")),
    ];
    for (args, message) in cases {
        let run = lichen(args);
        assert_eq!(run.code, Some(1), "{args:?}: {}", run.stderr);
        let lines: Vec<&str> = run.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with("error: "), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(&message), "{args:?}: {}", run.stderr);
    }
}

#[test]
fn a_budget_is_enforced_before_the_weights_are_read() {
    let refused = lichen(&["bench", "--geometry", "qwen2.5-72b", "--format", "bf16", "--memory-budget", "4GiB"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("weights, heap 138") && refused.stderr.contains("--context"), "{}", refused.stderr);
    let plan = lichen(&["plan", "--geometry", "gemma-3-1b", "--format", "q8_0", "--context", "2048", "--json"]).json();
    let items = plan["items"].as_array().unwrap();
    let sum: u64 = items.iter().map(|i| i["bytes"].as_u64().unwrap()).sum();
    assert_eq!(plan["total_bytes"].as_u64(), Some(sum));
    assert!(sum < 1126 << 20, "{sum}");
}

#[test]
fn an_unknown_command_in_a_chat_does_not_end_it() {
    let model = fixture("tiny-gemma3");
    let args = ["chat", "--model", &model, "--max-new-tokens", "4", "--temperature", "0"];
    let run = lichen_with_input(&args, "/bogus\n/save\n/stats\n/quit\nnever read\n");
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stderr, "error: unknown command /bogus; /help lists them\nerror: /save needs a file\n");
    assert!(run.stdout.starts_with("context   0 of 512 tokens in 0 turns\n"), "{}", run.stdout);
}
