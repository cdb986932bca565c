//! The program on a CUDA device, as its users run it: on the emulator as each architecture, and on a machine with a GPU
//! (`make gpu-check`) with the very same tests.

mod refusals;
mod support;

use lichen_tests::programs::{fixture, is_machine, TempDir};
use support::{any_machine, has_kernels, machine_of, Machine, ARCHS};

/// Longer than a prefill tile, and not a multiple of one.
const LONG_PROMPT: &str = "What is the capital of Karnataka? And which river is the longest in India? Say also which \
    language people speak in Mysuru, and how many days a week has.";

const GREEDY: [&str; 6] = ["generate", "--temperature", "0", "--max-new-tokens", "24", "--json"];

/// The CPU's tokens on the device, with the kernels of one architecture.
fn tokens_equal_the_cpus(arch: u32, args: &[&str]) {
    let Some(machine) = machine_of(arch) else { return };
    let args = [&GREEDY, args].concat();
    let want = machine.lichen(&[&args[..], &["--device", "cpu"]].concat()).token_ids();
    let got = machine.lichen(&[&args[..], &["--device", "cuda"]].concat()).token_ids();
    assert_eq!(got, want, "sm_{arch} {args:?}");
    assert!(!got.is_empty());
}

fn demo_model(arch: u32) {
    if has_kernels() {
        tokens_equal_the_cpus(arch, &["--prompt", "What is the capital of India?"]);
        tokens_equal_the_cpus(arch, &["--prompt", LONG_PROMPT]);
    }
}

#[test]
fn demo_model_sm_53() {
    demo_model(53);
}

#[test]
fn demo_model_sm_72() {
    demo_model(72);
}

#[test]
fn demo_model_sm_80() {
    demo_model(80);
}

#[test]
fn demo_model_sm_87() {
    demo_model(87);
}

#[test]
fn demo_model_sm_90() {
    demo_model(90);
}

/// The prompt of the fixtures' goldens would do as well; this one crosses the window of tiny-gemma3.
const TOKENS: &str =
    "3,1,4,15,9,26,5,35,8,97,9,32,38,46,26,43,38,32,79,50,28,8,4,19,71,69,39,9,37,51,5,8,20,97,49,44,59,23,7,81";

#[test]
fn every_weight_format_and_family() {
    if !has_kernels() {
        return;
    }
    let models = [
        "tiny-gemma3",
        "tiny-gemma3/tiny-gemma3-q8_0.gguf",
        "tiny-gemma3-nf4",
        "tiny-qwen2-tied/tiny-qwen2-tied-q8_0.gguf",
        "tiny-qwen2-untied/tiny-qwen2-untied-q8_0.gguf",
    ];
    for (i, model) in models.iter().enumerate() {
        // Each model on two of the architectures, all of them in use.
        for arch in [ARCHS[i], ARCHS[(i + 3) % ARCHS.len()]] {
            tokens_equal_the_cpus(arch, &["--model", &fixture(model), "--tokens", TOKENS]);
        }
    }
}

#[test]
fn adapters() {
    if !has_kernels() {
        return;
    }
    let adapter = fixture("tiny-gemma3-lora");
    for model in ["tiny-gemma3", "tiny-gemma3-nf4"] {
        for arch in [53, 80] {
            let model = fixture(model);
            tokens_equal_the_cpus(arch, &["--model", &model, "--adapter", &adapter, "--tokens", TOKENS]);
        }
    }
}

#[test]
fn key_value_caches() {
    if !has_kernels() {
        return;
    }
    for format in ["f32", "f16", "int8"] {
        for arch in [53, 80] {
            let model = fixture("tiny-qwen2-tied");
            tokens_equal_the_cpus(arch, &["--model", &model, "--kv-cache", format, "--tokens", TOKENS]);
        }
    }
}

/// The demo model's facts, several at once: the CPU's texts.
#[test]
fn a_file_of_prompts() {
    if !has_kernels() {
        return;
    }
    let questions = ["What is the capital of India?", "What is the capital of Japan?", "Who are you?", LONG_PROMPT];
    let input: String = questions.iter().map(|q| format!("{}\n", serde_json::json!({"prompt": q}))).collect();
    for arch in [53, 80] {
        let Some(machine) = machine_of(arch) else { continue };
        let texts = |device: &str| {
            let args = ["generate", "--prompts", "-", "--batch", "3", "--temperature", "0", "--max-new-tokens", "10"];
            let run = machine.lichen_with_input(&[&args[..], &["--device", device]].concat(), &input);
            assert_eq!(run.code, Some(0), "{}", run.stderr);
            let line = |line: &str| {
                let answer: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
                (answer["line"].as_u64().expect("a number"), answer["text"].as_str().expect("a text").to_string())
            };
            let mut texts: Vec<(u64, String)> = run.stdout.lines().map(line).collect();
            texts.sort();
            texts
        };
        let (got, want) = (texts("cuda"), texts("cpu"));
        assert_eq!((got.len(), got), (4, want), "sm_{arch}");
    }
}

/// On one device the same seed gives the same text, and a saved conversation goes on as if it had never stopped.
#[test]
fn a_saved_conversation_goes_on() {
    if !has_kernels() {
        return;
    }
    let dir = TempDir::new("cuda-state");
    let (machine, state, model) = (any_machine(), dir.file("state"), fixture("tiny-gemma3"));
    let args =
        ["chat", "--device", "cuda", "--model", &model, "--max-new-tokens", "12", "--temperature", "1", "--seed", "7"];
    let save = format!("one two three\n/save {state}\nfour five\n");
    let whole = machine.lichen_with_input(&args, &save);
    assert_eq!(whole.code, Some(0), "{}", whole.stderr);
    let resumed = machine.lichen_with_input(&args, &format!("/load {state}\nfour five\n"));
    assert_eq!(resumed.code, Some(0), "{}", resumed.stderr);
    assert!(
        !resumed.stdout.is_empty() && whole.stdout.ends_with(&resumed.stdout),
        "{:?} {:?}",
        whole.stdout,
        resumed.stdout
    );
}

/// A newer device runs the oldest PTX: what an H100 does with the very kernels of a Nano.
#[test]
fn the_nanos_kernels_on_a_newer_device() {
    if !has_kernels() {
        return;
    }
    let machine = if is_machine() { Machine::default() } else { Machine::emulated(&[90]) };
    let forced = machine.clone().with("LICHEN_CUDA_ARCH", 53);
    let args = [&GREEDY[..], &["--prompt", LONG_PROMPT]].concat();
    let want = machine.lichen(&[&args[..], &["--device", "cpu"]].concat()).token_ids();
    let got = forced.lichen(&[&args[..], &["--device", "cuda"]].concat()).token_ids();
    assert_eq!(got, want);
    let info = forced.lichen(&["info", "--device", "cuda", "--json"]).json();
    assert!(info["device"].as_str().expect("a device").contains("sm_53"), "{}", info["device"]);
}

/// A board needs a while to make machine code of the kernels: it says so, once.
#[test]
fn the_first_start_compiles_and_the_second_does_not() {
    if !has_kernels() {
        return;
    }
    let cache = TempDir::new("cuda-cache");
    let machine = any_machine().with("LICHEN_CACHE_DIR", cache.file("new"));
    let starts = [(); 2].map(|()| machine.lichen(&[&GREEDY[..], &["--prompt", "Hello", "--device", "cuda"]].concat()));
    for start in &starts {
        assert_eq!(start.code, Some(0), "{}", start.stderr);
    }
    assert!(starts[0].stderr.contains("compiling CUDA kernels"), "{}", starts[0].stderr);
    assert!(!starts[1].stderr.contains("compil"), "{}", starts[1].stderr);
}

#[test]
fn info_names_the_device() {
    if !has_kernels() {
        return;
    }
    let run = any_machine().lichen(&["info", "--device", "cuda"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.stdout.lines().any(|l| l.starts_with("device") && l.contains("cuda (")), "{}", run.stdout);
}

/// The second of two devices is another architecture.
#[test]
fn a_device_by_number() {
    if !has_kernels() || is_machine() {
        return;
    }
    let machine = Machine::emulated(&[53, 87]);
    for (device, arch) in [("cuda:0", "sm_53"), ("cuda:1", "sm_87")] {
        let info = machine.lichen(&["info", "--device", device, "--json"]).json();
        assert!(info["device"].as_str().expect("a device").contains(arch), "{device}: {}", info["device"]);
    }
}
