//! The program as its users run it.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;

use lichen_runtime::files::formats::safetensors::SafeTensors;
use lichen_runtime::files::mapped_file::MappedFile;
use lichen_tests::programs::{fixture, TempDir};

use crate::{command, lichen, lichen_with_input};

fn values<T: bytemuck::Pod>(path: &Path, name: &str) -> Vec<T> {
    let file = SafeTensors::parse(MappedFile::open(path).unwrap()).unwrap();
    let bytes = file.tensor_slice(file.tensor(name).unwrap());
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

fn golden<T: bytemuck::Pod>(folder: &str, name: &str) -> Vec<T> {
    values(Path::new(&fixture(&format!("{folder}/golden.safetensors"))), name)
}

fn list(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn greedy_tokens_equal_transformers() {
    for name in ["tiny-gemma3", "tiny-qwen2-tied", "tiny-qwen2-untied", "tiny-gemma3-nf4"] {
        let prompt = list(&golden::<i64>(name, "tokens")[..40]);
        let model = fixture(name);
        let args = ["generate", "--model", &model, "--tokens", &prompt, "--max-new-tokens", "32", "--temperature", "0"];
        let json = lichen(&[&args[..], &["--json"]].concat()).json();
        let ids: Vec<i64> = json["token_ids"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect();
        let want: Vec<i64> = golden(name, "greedy");
        // The goldens do not stop at end tokens.
        assert_eq!(ids, want[..ids.len()], "{name}");
        let stopped = json["finish_reason"] == "stop";
        assert!(ids.len() == want.len() || stopped, "{name}: {json}");
        assert_eq!(json["prompt_tokens"], 40);
        assert!(json["timings"]["prefill_tokens_per_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn logits_equal_transformers() {
    let dir = TempDir::new("commands");
    for (name, adapter) in [("tiny-gemma3", None), ("tiny-qwen2-tied", Some("tiny-qwen2-tied-lora"))] {
        let out = dir.file("logits.safetensors");
        let (model, adapter_path) = (fixture(name), adapter.map(fixture));
        let tokens = list(&golden::<i64>(adapter.unwrap_or(name), "tokens"));
        let mut args = vec!["logits", "--model", &model, "--tokens", &tokens, "--out", &out];
        args.extend(adapter_path.iter().flat_map(|path| ["--adapter", path.as_str()]));
        let run = lichen(&args);
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let got: Vec<f32> = values(Path::new(&out), "logits");
        let want: Vec<f32> = golden(adapter.unwrap_or(name), "logits");
        assert_eq!(got.len(), want.len());
        for (i, (a, b)) in got.iter().zip(&want).enumerate() {
            let close = (a - b).abs() <= 1e-4;
            assert!(close, "{name}: logit {i}: got {a}, want {b}");
        }
    }
}

#[test]
fn tokens_need_no_tokenizer() {
    let dir = TempDir::new("commands");
    for name in ["config.json", "model.safetensors", "generation_config.json"] {
        std::fs::copy(fixture(&format!("tiny-gemma3/{name}")), dir.path(name)).unwrap();
    }
    let model = dir.file("");
    let args = ["generate", "--model", &model, "--max-new-tokens", "3", "--temperature", "0"];
    let json = lichen(&[&args[..], &["--tokens", "3,1,4", "--json"]].concat()).json();
    assert_eq!(json["token_ids"].as_array().unwrap().len(), 3);
    assert!(json["text"].is_null());
    let refused = lichen(&[&args[..], &["--prompt", "hello"]].concat());
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("no tokenizer.json in this folder"), "{}", refused.stderr);
}

/// A setting of a request is a flag and a key of a line alike.
#[test]
fn flags_and_lines_say_the_same() {
    let question = "What is the capital of India?";
    let settings = [("max_new_tokens", "40"), ("temperature", "0"), ("repeat_penalty", "1.5"), ("repeat_last_n", "8")];
    let mut flags = vec!["generate".to_string(), "--prompt".into(), question.into(), "--json".into()];
    let mut line = format!("{{\"prompt\": \"{question}\", \"ignore_eos\": true");
    for (name, value) in settings {
        flags.extend([format!("--{}", name.replace('_', "-")), value.to_string()]);
        line += &format!(", \"{name}\": {value}");
    }
    flags.push("--ignore-eos".to_string());
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let typed = lichen(&flags).json();
    assert_eq!((&typed["finish_reason"], typed["token_ids"].as_array().unwrap().len()), (&"length".into(), 40));
    let written = lichen_with_input(&["generate", "--prompts", "-"], &(line + "}\n")).json();
    assert_eq!((&written["text"], &written["new_tokens"]), (&typed["text"], &40.into()));
    let without: Vec<&str> = flags.into_iter().filter(|flag| *flag != "--ignore-eos").collect();
    assert_ne!(lichen(&without).json()["finish_reason"], "length");
}

#[test]
fn a_later_turn_computes_only_what_is_new() {
    let run = lichen_with_input(
        &["chat", "--temperature", "0", "--threads", "1"],
        "What is the capital of India?\n/stats\nAnd of Japan?\n/stats\n",
    );
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stderr.contains("lichen-demo"), "{}", run.stderr);
    assert!(run.stdout.starts_with("The capital of India is New Delhi.\n"), "{}", run.stdout);
    let prompts: Vec<Vec<usize>> = run.stdout.lines().filter(|l| l.starts_with("prompt ")).map(numbers).collect();
    let (first, second) = (&prompts[0], &prompts[1]);
    assert_eq!(first[1], 0);
    // Reused: the first prompt and every token of its answer that was fed back.
    assert!(second[1] >= first[0] && second[2] < second[0] / 2 + 8, "{prompts:?}");
    assert_eq!(second[0], second[1] + second[2]);
}

fn numbers(line: &str) -> Vec<usize> {
    line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

#[test]
fn a_saved_conversation_goes_on_as_if_it_had_never_stopped() {
    let dir = TempDir::new("commands");
    let (model, file) = (fixture("tiny-gemma3"), dir.file("state"));
    let args = ["chat", "--model", &model, "--max-new-tokens", "12", "--temperature", "1", "--seed", "7"];
    let whole = lichen_with_input(&args, &format!("one two three\n/save {file}\nfour five\n"));
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    let resumed = lichen_with_input(&args, &format!("/load {file}\nfour five\n"));
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(whole.stdout.ends_with(&resumed.stdout), "{:?} {:?}", whole.stdout, resumed.stdout);
    let other = fixture("tiny-gemma3-nf4");
    let refused = lichen_with_input(&["chat", "--model", &other], &format!("/load {file}\n"));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("was saved with another model"), "{}", refused.stderr);
}

#[test]
fn a_full_context_is_said_and_can_be_left() {
    let model = fixture("tiny-gemma3");
    let args = ["chat", "--model", &model, "--context", "40", "--temperature", "0", "--max-new-tokens", "200"];
    let run = lichen_with_input(&args, "abc abc\nabc abc\n/reset\nabc\n");
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains("context") && run.stderr.contains("/reset starts over"), "{}", run.stderr);
    let answers = run.stdout.lines().count();
    assert!(answers >= 2, "{}", run.stdout);
}

#[test]
fn model_text_cannot_drive_the_terminal() {
    let model = fixture("tiny-gemma3");
    // Greedy decoding of these falls into the token of the byte 0x16.
    let run =
        lichen(&["generate", "--model", &model, "--tokens", "3,1,4", "--max-new-tokens", "5", "--temperature", "0"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let hostile = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    assert!(!run.stdout.chars().any(hostile), "{:?}", run.stdout);
    assert!(run.stdout.contains("\\u{16}"), "{:?}", run.stdout);
}

#[test]
fn a_reader_that_leaves_ends_the_program_quietly() {
    let model = fixture("tiny-gemma3");
    for args in [&["info", "--model", &model][..], &["--help"], &["generate", "--model", &model, "--prompt", "x"]] {
        let mut child = command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}: {stderr}");
        assert_eq!(stderr, "", "{args:?}");
    }
}

#[test]
fn a_file_cut_short_under_a_running_program_is_named() {
    let dir = TempDir::new("commands");
    let model = dir.file("cut.gguf");
    std::fs::copy(fixture("tiny-gemma3/tiny-gemma3-f32.gguf"), &model).unwrap();
    // The prompt comes from a pipe, so the model is open before the text is there.
    let mut child = command(&["chat", "--model", &model, "--max-new-tokens", "400", "--temperature", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    std::io::Write::write_all(&mut stdin, b"/stats\n").unwrap();
    let mut first = [0; 8];
    stdout.read_exact(&mut first).unwrap();
    std::fs::OpenOptions::new().write(true).open(&model).unwrap().set_len(4096).unwrap();
    std::io::Write::write_all(&mut stdin, b"hello\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains("cut.gguf: was cut short"), "{stderr}");
}

#[test]
fn bench_plan_and_info_report_figures() {
    let model = fixture("tiny-gemma3/tiny-gemma3-q8_0.gguf");
    let args = ["bench", "--model", &model, "--prompt-tokens", "16", "--new-tokens", "4", "--threads", "1"];
    let json = lichen(&[&args[..], &["--repeat", "2", "--json"]].concat()).json();
    let keys = "prefill_tokens_per_s decode_tokens_per_s decode_bytes_per_token memory_bandwidth_gb_per_s \
                memory_bandwidth_fraction load_s time_to_first_token_s peak_rss_bytes";
    for key in keys.split_whitespace() {
        assert!(json[key].as_f64().is_some_and(|v| v > 0.0), "{key}: {json}");
    }
    assert_eq!((json["format"].as_str(), json["threads"].as_u64()), (Some("Q8_0"), Some(1)));
    let info = lichen(&["info", "--model", &model, "--json"]).json();
    assert_eq!(info["formats"]["attention"]["Q8_0"], 28);
    assert_eq!(info["layers"], 7);
    let plan = lichen(&["plan", "--model", &model, "--json"]).json();
    assert_eq!(plan["fits"], true);
}

#[test]
fn perplexity_counts_each_predicted_token_once() {
    let dir = TempDir::new("commands");
    std::fs::write(dir.path("text"), "The capital of India is New Delhi.\n\nThe capital of Japan is Tokyo.\n").unwrap();
    let text = dir.file("text");
    let measure = |context: &str| lichen(&["perplexity", "--text", &text, "--context", context, "--json"]).json();
    let (whole, cut) = (measure("64"), measure("4"));
    assert_eq!(whole["documents"], 2);
    // With BOS in front of every window each token is predicted, however the text is cut.
    assert_eq!(whole["tokens"], cut["tokens"]);
    assert!(whole["perplexity"].as_f64().unwrap() < cut["perplexity"].as_f64().unwrap());
    let mean = whole["nll_per_token"].as_f64().unwrap();
    assert!((mean.exp() - whole["perplexity"].as_f64().unwrap()).abs() < 1e-9);
}
