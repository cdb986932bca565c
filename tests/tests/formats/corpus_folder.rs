//! Broken Hugging Face folders: the index (C47), config.json (as C26), JSON files (C60, C66).

use std::ffi::CString;
use std::path::Path;

use lichen_runtime::ModelSource;
use lichen_tests::formats::corpus::{check, report, Case, TempDir};
use lichen_tests::formats::safetensors_file::SafetensorsFile;
use serde_json::{json, Value};

/// What a folder holds besides being a folder.
#[derive(Clone)]
pub struct Folder {
    config: Value,
    weights: SafetensorsFile,
    /// Other files, or these instead of the above.
    files: Vec<(&'static str, Vec<u8>)>,
    without: Vec<&'static str>,
}

impl Folder {
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    pub fn weights(mut self, change: impl Fn(SafetensorsFile) -> SafetensorsFile) -> Self {
        self.weights = change(self.weights);
        self
    }

    pub fn file(mut self, name: &'static str, bytes: impl AsRef<[u8]>) -> Self {
        self.files.push((name, bytes.as_ref().to_vec()));
        self
    }

    pub fn without(mut self, name: &'static str) -> Self {
        self.without.push(name);
        self
    }

    pub fn write(&self, dir: &Path) -> usize {
        let mut n_bytes = 0;
        let mut write = |name: &str, bytes: &[u8]| {
            n_bytes += bytes.len();
            std::fs::write(dir.join(name), bytes).expect("temporary file");
        };
        write("config.json", self.config.to_string().as_bytes());
        write("model.safetensors", &self.weights.bytes());
        self.files.iter().for_each(|(name, bytes)| write(name, bytes));
        for name in &self.without {
            std::fs::remove_file(dir.join(name)).expect("was written");
        }
        n_bytes
    }
}

/// A Qwen 2 of five tokens and one layer, wide enough for whole NF4 blocks: dim 64, 2 heads of 32, hidden 64.
pub fn tiny_qwen2() -> Folder {
    let layer = |name: &str| format!("model.layers.0.{name}");
    let mut weights = SafetensorsFile::default()
        .add_f32("model.embed_tokens.weight", &[5, 64])
        .add_f32("model.norm.weight", &[64])
        .add_f32(&layer("input_layernorm.weight"), &[64])
        .add_f32(&layer("post_attention_layernorm.weight"), &[64]);
    for (name, rows) in [("q", 64), ("k", 32), ("v", 32)] {
        weights = weights
            .add_f32(&layer(&format!("self_attn.{name}_proj.weight")), &[rows, 64])
            .add_f32(&layer(&format!("self_attn.{name}_proj.bias")), &[rows]);
    }
    weights = weights.add_f32(&layer("self_attn.o_proj.weight"), &[64, 64]);
    for name in ["gate", "up", "down"] {
        weights = weights.add_f32(&layer(&format!("mlp.{name}_proj.weight")), &[64, 64]);
    }
    let config = json!({
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-6, "rope_theta": 1000000.0, "hidden_act": "silu", "use_sliding_window": false,
        "tie_word_embeddings": true, "eos_token_id": 4
    });
    Folder { config, weights, files: Vec::new(), without: Vec::new() }
}

pub fn run(cases: Vec<Case<Folder>>) {
    let mut failures = Vec::new();
    for case in &cases {
        let dir = TempDir::new();
        let n_bytes = case.input.write(dir.path());
        failures.extend(check(case, dir.path(), n_bytes, || ModelSource::open(dir.path())).err());
    }
    report(failures, cases.len());
}

pub fn case(id: &'static str, folder: Folder, message: &str) -> Case<Folder> {
    Case::new(id, folder, message)
}

#[test]
fn the_sound_folder_opens() {
    let dir = TempDir::new();
    tiny_qwen2().write(dir.path());
    let source = ModelSource::open(dir.path()).expect("sound");
    assert_eq!((source.config().n_layers, source.stop_ids()), (1, vec![4]));
}

#[test]
fn index() {
    let sharded = |index: Value| {
        let whole = tiny_qwen2().weights.bytes();
        tiny_qwen2()
            .without("model.safetensors")
            .file("model-1.safetensors", whole)
            .file("model.safetensors.index.json", index.to_string())
    };
    let map = |shard: &str| json!({"weight_map": {"model.norm.weight": shard}});
    let at = "DIR/model.safetensors.index.json: index:";
    let leaves = |name: &str| format!("{at} shard name \"{name}\" leaves the model folder");
    let mut cases: Vec<Case<Folder>> = ["../x", "/etc/passwd", "..", ".hidden", "", "a/b", "a\\b"]
        .into_iter()
        .map(|name| case("C47", sharded(map(name)), &leaves(name)))
        .collect();
    cases.push(case("C47", sharded(map("nope.safetensors")), &format!("{at} shard \"nope.safetensors\" is missing")));
    cases.push(case(
        "C47",
        sharded(json!({"weight_map": {"model.other": "model-1.safetensors"}})),
        &format!("{at} tensor \"model.other\" is not in shard \"model-1.safetensors\""),
    ));
    cases.push(case(
        "C47",
        sharded(json!({"weight_map": {"model.norm.weight": "model-1.safetensors", "b": "model-2.safetensors"}})).file(
            "model-2.safetensors",
            SafetensorsFile::default().add_f32("b", &[1]).add_f32("model.norm.weight", &[64]).bytes(),
        ),
        "DIR: tensor \"model.norm.weight\" is in two shards",
    ));
    cases.push(case(
        "C47",
        sharded(json!({"weights": {}})),
        "DIR/model.safetensors.index.json: line 1 column 14: missing field `weight_map`",
    ));
    run(cases);
    let dir = TempDir::new();
    let all: serde_json::Map<String, Value> =
        tiny_qwen2().weights.tensors.iter().map(|t| (t.0.clone(), json!("model-1.safetensors"))).collect();
    sharded(json!({"metadata": {"total_size": 1}, "weight_map": all})).write(dir.path());
    ModelSource::open(dir.path()).expect("a sound index");
}

/// A pipe as a shard must not hang the program, nor a folder confuse it.
#[test]
#[allow(unsafe_code)]
fn shards_that_are_no_files() {
    let write = || {
        let dir = TempDir::new();
        let index = json!({"weight_map": {"model.norm.weight": "s"}}).to_string();
        tiny_qwen2().without("model.safetensors").file("model.safetensors.index.json", index).write(dir.path());
        dir
    };
    let message = |dir: &TempDir| {
        let error = ModelSource::open(dir.path()).err().expect("refused").to_string();
        error.replace(&dir.path().display().to_string(), "DIR")
    };
    let dir = write();
    let name = CString::new(dir.path().join("s").to_str().expect("UTF-8")).expect("no NUL");
    // SAFETY:
    // - `name` is a NUL-terminated string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert_eq!(message(&dir), "DIR/s: is a pipe, socket or device; a regular file is expected");
    let dir = write();
    std::fs::create_dir(dir.path().join("s")).expect("folder");
    assert_eq!(message(&dir), "DIR/s: is a folder; a file is expected");
}

#[test]
fn files_that_are_something_else() {
    let big = vec![b' '; (1 << 20) + 1];
    let lfs = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 33384568\n";
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    run(vec![
        case(
            "C60",
            tiny_qwen2().file("config.json", lfs),
            "DIR/config.json: is a Git LFS pointer, not the file itself: run git lfs pull",
        ),
        case(
            "C60",
            tiny_qwen2().file("model.safetensors", lfs),
            "DIR/model.safetensors: is a Git LFS pointer, not the file itself: run git lfs pull",
        ),
        case(
            "C60",
            tiny_qwen2().file("generation_config.json", "\n<!DOCTYPE html>"),
            "DIR/generation_config.json: is an HTML or XML page, not JSON (a failed download?)",
        ),
        case(
            "C60",
            tiny_qwen2().file("config.json", "{\"a\": }"),
            "DIR/config.json: is not JSON: line 1 column 7: expected value",
        ),
        case("C60", tiny_qwen2().file("config.json", b"{\"\xff\": 1}"), "DIR/config.json: is not UTF-8 from byte 2"),
        case(
            "C60",
            tiny_qwen2().file("config.json", "[]"),
            "DIR/config.json: the file is an array; an object is needed",
        ),
        case("C66", tiny_qwen2().file("config.json", big), "DIR/config.json: is 2 MB; at most 1 MB"),
        case(
            "C66",
            tiny_qwen2().file("config.json", deep),
            "DIR/config.json: is not JSON: line 1 column 128: recursion limit exceeded",
        ),
        case("C24", tiny_qwen2().without("config.json"), "DIR: has no config.json: not a model folder"),
        case("C24", tiny_qwen2().without("model.safetensors"), "DIR: has no model.safetensors"),
        case(
            "C24",
            tiny_qwen2().without("model.safetensors").file("pytorch_model.bin", "PK"),
            "DIR: has no model.safetensors (pickled .bin weights are not read: convert them to safetensors)",
        ),
    ]);
}

#[test]
fn config_fields() {
    let with = |key: &str, value: Value, message: &str| {
        case("C26", tiny_qwen2().config(key, value), &format!("DIR/config.json: {message}"))
    };
    run(vec![
        with(
            "model_type",
            json!("llama"),
            "model_type \"llama\" is not supported (supported: gemma3_text, gemma3, qwen2)",
        ),
        with("model_type", json!(null), "model_type is missing"),
        with("model_type", json!("gemma3"), "text_config is missing"),
        with("hidden_size", json!(0), "hidden_size is 0; 1 to 65536 expected"),
        with("hidden_size", json!("64"), "hidden_size is \"64\"; 1 to 65536 expected"),
        with("hidden_size", json!(-64), "hidden_size is -64; 1 to 65536 expected"),
        with("hidden_size", json!(63), "hidden_size is 63; num_attention_heads 2 does not divide it"),
        with("num_hidden_layers", json!(1_000_000_000), "num_hidden_layers is 1000000000; 1 to 512 expected"),
        with("num_hidden_layers", json!(1.5), "num_hidden_layers is 1.5; 1 to 512 expected"),
        with("num_key_value_heads", json!(3), "2 query heads do not divide over 3 key/value heads"),
        with("rms_norm_eps", json!(0), "rms_norm_eps is 0; a number above 0 and at most 0.1 expected"),
        with("rope_theta", json!([]), "rope_theta is an array; a number above 0 and at most 1000000000000 expected"),
        with(
            "rope_scaling",
            json!({"type": "longrope", "factor": 4}),
            "rope_scaling.rope_type \"longrope\" is not supported (default, linear, yarn)",
        ),
        with(
            "rope_parameters",
            json!({"rope_type": "llama3"}),
            "rope_parameters.rope_type \"llama3\" is not supported (default, linear, yarn)",
        ),
        with("hidden_act", json!("relu"), "hidden_act is \"relu\"; only \"silu\" is supported"),
        with(
            "layer_types",
            json!(["sliding_attention"]),
            "layer_types holds \"sliding_attention\"; qwen2 is supported without windows",
        ),
        with("layer_types", json!(["full_attention", "full_attention"]), "layer_types has 2 entries for 1 layers"),
        with(
            "layer_types",
            json!(["linear"]),
            "layer_types holds \"linear\"; \"full_attention\" or \"sliding_attention\" expected",
        ),
        with("tie_word_embeddings", json!(1), "tie_word_embeddings is 1; true or false expected"),
        with("eos_token_id", json!([4, 7]), "eos token id 7 is outside the vocabulary of 5"),
        with("eos_token_id", json!(-1), "eos token id -1 is outside the vocabulary of 5"),
        with(
            "quantization_config",
            json!({"quant_method": "gptq"}),
            "quantization_config.quant_method \"gptq\" is not supported (supported: bitsandbytes, quanto)",
        ),
        with(
            "quantization_config",
            json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "fp4"}),
            "bitsandbytes quant_type \"fp4\" is not supported (supported: nf4)",
        ),
    ]);
    let windowed = tiny_qwen2().config("use_sliding_window", json!(true)).config("sliding_window", json!(32));
    let refused = "DIR/config.json: use_sliding_window is true; qwen2 is supported without windows";
    run(vec![case("C26", windowed.clone().config("max_window_layers", json!(0)), refused)]);
    let dir = TempDir::new();
    windowed.config("max_window_layers", json!(1)).write(dir.path());
    ModelSource::open(dir.path()).expect("no layer would be windowed");
}

#[test]
fn gemma_fields() {
    let gemma = |key: &str, value: Value, message: &str| {
        let mut folder = tiny_qwen2();
        folder.config = json!({
            "model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
            "hidden_activation": "gelu_pytorch_tanh"
        });
        case("C26", folder.config(key, value), &format!("DIR/config.json: {message}"))
    };
    run(vec![
        gemma("final_logit_softcapping", json!(30.0), "final_logit_softcapping is 30.0; soft-capping is not supported"),
        gemma("attn_logit_softcapping", json!(50.0), "attn_logit_softcapping is 50.0; soft-capping is not supported"),
        gemma("attention_bias", json!(true), "attention_bias is true; that is not supported"),
        gemma("use_bidirectional_attention", json!(true), "use_bidirectional_attention is true; that is not supported"),
        gemma(
            "hidden_activation",
            json!("gelu"),
            "hidden_activation is \"gelu\"; only \"gelu_pytorch_tanh\" is supported",
        ),
        gemma("sliding_window", json!(0), "sliding_window is 0; 1 to 16777216 expected"),
        gemma("sliding_window_pattern", json!(0), "sliding_window_pattern is 0; 1 to 512 expected"),
        gemma(
            "query_pre_attn_scalar",
            json!(-256),
            "query_pre_attn_scalar is -256; a number above 0 and at most 1000000 expected",
        ),
        gemma("head_dim", json!(33), "head_dim is 33; RoPE needs an even number"),
        gemma(
            "rope_parameters",
            json!({"sliding_attention": {"rope_type": "linear", "factor": 8}}),
            "rope_parameters.sliding_attention.factor: scaled local layers are not supported",
        ),
    ]);
}

#[test]
fn tensors_against_the_config() {
    let q = "model.layers.0.self_attn.q_proj.weight";
    run(vec![
        case(
            "C24",
            tiny_qwen2().weights(|w| w.without(q)),
            &format!("DIR: tensor \"{q}\" is missing (config.json says 1 layers)"),
        ),
        case(
            "C24",
            tiny_qwen2().weights(|w| w.without("model.embed_tokens.weight")),
            "DIR: tensor \"model.embed_tokens.weight\" is missing",
        ),
        case(
            "C24",
            tiny_qwen2().config("tie_word_embeddings", json!(false)),
            "DIR: tensor \"lm_head.weight\" is missing",
        ),
        case(
            "C25",
            tiny_qwen2().weights(|w| w.set(q, "F32", &[32, 64], vec![0; 8192])),
            &format!("DIR/model.safetensors: tensor \"{q}\": 32 x 64 here, 64 x 64 by config.json"),
        ),
        case(
            "C25",
            tiny_qwen2().config("vocab_size", json!(6)),
            "DIR/model.safetensors: tensor \"model.embed_tokens.weight\": 5 x 64 here, 6 x 64 by config.json",
        ),
        case(
            "C25",
            tiny_qwen2().weights(|w| w.set("model.norm.weight", "F32", &[], vec![0; 4])),
            "DIR/model.safetensors: tensor \"model.norm.weight\": a scalar here, 64 by config.json",
        ),
        case(
            "C25",
            tiny_qwen2().weights(|w| w.set("model.norm.weight", "I64", &[64], vec![0; 512])),
            "DIR/model.safetensors: tensor \"model.norm.weight\": I64 is not a weight; F32, F16 or BF16 is needed",
        ),
    ]);
}
