use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lichen_runtime::files::disk::refuse_full;
use lichen_runtime::files::formats::safetensors::Dtype;
use lichen_runtime::files::formats::safetensors_write::{Layout, NewTensor};
use lichen_tests::models::{fixture, temp_dir};
use lichen_tests::programs::{self, lichen_host, Run};
use serde_json::{json, Value};

use crate::names;

fn run(arguments: &[&str]) -> Run {
    programs::run(&mut programs::command(lichen_host(), arguments))
}

#[test]
fn exit_codes_and_messages() {
    let dir = temp_dir("quantize-exit");
    let (model, out) = (fixture("tiny-gemma3"), dir.join("m.gguf"));
    let (model, out) = (model.to_str().unwrap(), out.to_str().unwrap());
    let arguments = ["quantize", "--model", model, "--format", "q8_0", "--out", out];
    let done = run(&[&arguments[..], &["--json"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let report = done.json();
    assert_eq!(report["format"], "q8_0");
    assert_eq!(report["out_bytes"], std::fs::metadata(out).unwrap().len());
    assert!(report["formats"][0]["mean_squared_error"].as_f64().unwrap() > 0.0);

    let again = run(&arguments);
    assert_eq!(again.code, Some(1));
    assert_eq!(again.stderr, format!("error: {out}: already exists: choose another name or remove it first\n"));
    let usage = run(&["quantize", "--model", model, "--format", "q3", "--out", out]);
    assert_eq!(usage.code, Some(2));
    let flag =
        "error: invalid value 'q3' for '--format <FORMAT>' [possible values: q8_0, q5_0, q4_0, nf4, f16, bf16, f32]\n";
    assert_eq!(usage.stderr, flag);
    let named = run(&["quantize", "--model", model, "--format", "nf4", "--out", out, "--name", "x"]);
    assert_eq!(named.code, Some(2));
    assert_eq!(named.stderr, "error: --name is for GGUF files; an nf4 folder is called as --out is\n");
    let help = run(&["quantize", "--help"]);
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("lichen-host quantize --model gemma-3-1b-it --format q8_0 --out"));
    assert!(help.stdout.contains("embedding and head stay q8_0"));
}

/// A limit on the size of files stands for a full disk: writes fail in the middle.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let dir = temp_dir("quantize-full");
    for format in ["q8_0", "nf4"] {
        let command = format!(
            "trap '' XFSZ; ulimit -f 100; exec {} quantize --model {} --format {format} --out {}",
            lichen_host().display(),
            fixture("tiny-gemma3").display(),
            dir.join("out").display()
        );
        let done = programs::run(Command::new("sh").args(["-c", &command]));
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        assert!(done.stderr.contains("File too large"), "{}", done.stderr);
        assert_eq!(names(&dir), [""; 0], "{format}");
    }
}

#[test]
fn a_disk_that_is_too_small_is_refused_with_numbers() {
    let dir = temp_dir("quantize-small-disk");
    refuse_full(&dir.join("x"), 1).expect("a byte fits");
    let error = refuse_full(&dir.join("x"), u64::MAX).expect_err("no disk is that large");
    assert!(error.message().contains("needs 18,446,744,073,709,551,615 bytes, and "), "{error}");
    assert!(error.message().contains("are free on the disk"), "{error}");
}

/// A Gemma folder of 116 MB in bf16, in two layers.
fn large_model(dir: &Path) -> u64 {
    const DIM: usize = 1536;
    const HIDDEN: usize = 6144;
    std::fs::create_dir(dir).unwrap();
    let small = fixture("tiny-gemma3");
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        std::fs::copy(small.join(name), dir.join(name)).unwrap();
    }
    let mut config: Value = serde_json::from_slice(&std::fs::read(small.join("config.json")).unwrap()).unwrap();
    for (name, value) in [("hidden_size", DIM), ("intermediate_size", HIDDEN), ("num_hidden_layers", 2)] {
        config[name] = json!(value);
    }
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut tensors = Vec::new();
    let mut add = |name: String, shape: &[usize]| tensors.push(NewTensor::new(name, Dtype::BF16, shape));
    add("model.embed_tokens.weight".into(), &[320, DIM]);
    add("model.norm.weight".into(), &[DIM]);
    for layer in 0..2 {
        let mut add = |name: &str, shape: &[usize]| add(format!("model.layers.{layer}.{name}.weight"), shape);
        for (name, rows) in [("q", 128), ("k", 32), ("v", 32)] {
            add(&format!("self_attn.{name}_proj"), &[rows, DIM]);
        }
        add("self_attn.o_proj", &[DIM, 128]);
        add("self_attn.q_norm", &[32]);
        add("self_attn.k_norm", &[32]);
        add("mlp.gate_proj", &[HIDDEN, DIM]);
        add("mlp.up_proj", &[HIDDEN, DIM]);
        add("mlp.down_proj", &[DIM, HIDDEN]);
        for name in ["input", "post_attention", "pre_feedforward", "post_feedforward"] {
            add(&format!("{name}_layernorm"), &[DIM]);
        }
    }
    let layout = Layout::new(tensors, &[]).unwrap();
    let mut file = std::io::BufWriter::new(std::fs::File::create(dir.join("model.safetensors")).unwrap());
    let mut data = layout.start(&mut file).unwrap();
    // Finite bf16 of small exponents: the upper byte is 0x3c or 0xbc.
    let block: Vec<u8> = (0..4096u32).flat_map(|i| [(i * 37) as u8, 0x3c | (i as u8 & 1) << 7]).collect();
    for tensor in layout.tensors() {
        let mut missing = tensor.size_bytes();
        while missing > 0 {
            let n = missing.min(block.len());
            data.write(&block[..n]).unwrap();
            missing -= n;
        }
    }
    data.finish();
    layout.file_bytes()
}

/// Pages of the source count as long as they are not given back: without that the peak would be the file's length.
#[test]
fn memory_stays_far_below_the_model_and_ctrl_c_leaves_nothing() {
    let dir = temp_dir("quantize-memory");
    let model = dir.join("model");
    let bytes = large_model(&model);
    assert!(bytes > 100 << 20);
    for format in ["q8_0", "q4_0", "nf4"] {
        let out = dir.join(format);
        let arguments = ["quantize", "--model", model.to_str().unwrap(), "--format", format, "--json", "--out"];
        let done = run(&[&arguments[..], &[out.to_str().unwrap()]].concat());
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        let report = done.json();
        let peak = report["peak_rss_bytes"].as_u64().expect("Linux says");
        println!("{format}: peak {peak} bytes for a model of {bytes}");
        assert!(peak < bytes / 3, "{format}: peak {peak} bytes for a model of {bytes}");
    }

    let out = dir.join("stopped");
    let arguments = ["quantize", "--model", model.to_str().unwrap(), "--format", "nf4", "--out", out.to_str().unwrap()];
    let mut child = programs::spawn(&mut programs::command(lichen_host(), &arguments));
    let hidden = |name: &String| name.starts_with(".stopped");
    let started = Instant::now();
    while !names(&dir).iter().any(hidden) {
        assert!(started.elapsed() < Duration::from_secs(60), "the temporary folder never appeared");
        std::thread::sleep(Duration::from_millis(1));
    }
    programs::send(&child, libc::SIGINT);
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert_eq!(names(&dir), ["model", "nf4", "q4_0", "q8_0"]);
    std::fs::remove_dir_all(&dir).expect("removed");
}
