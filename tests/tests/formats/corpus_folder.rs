//! Broken Hugging Face folders: the index (C47), NF4 layers (C48), config.json (as C26), JSON files (C60, C66).

use std::ffi::CString;
use std::path::Path;

use lichen_runtime::ModelSource;
use lichen_tests::formats::corpus::{check, report, Case, TempDir};
use lichen_tests::formats::safetensors_file::SafetensorsFile;
use serde_json::{json, Value};

/// What a folder holds besides being a folder.
#[derive(Clone)]
struct Folder {
    config: Value,
    weights: SafetensorsFile,
    /// Other files, or these instead of the above.
    files: Vec<(&'static str, Vec<u8>)>,
    without: Vec<&'static str>,
}

impl Folder {
    fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    fn weights(mut self, change: impl Fn(SafetensorsFile) -> SafetensorsFile) -> Self {
        self.weights = change(self.weights);
        self
    }

    fn file(mut self, name: &'static str, bytes: impl AsRef<[u8]>) -> Self {
        self.files.push((name, bytes.as_ref().to_vec()));
        self
    }

    fn without(mut self, name: &'static str) -> Self {
        self.without.push(name);
        self
    }

    fn write(&self, dir: &Path) -> usize {
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
fn tiny_qwen2() -> Folder {
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

fn run(cases: Vec<Case<Folder>>) {
    let mut failures = Vec::new();
    for case in &cases {
        let dir = TempDir::new();
        let n_bytes = case.input.write(dir.path());
        failures.extend(check(case, dir.path(), n_bytes, || ModelSource::open(dir.path())).err());
    }
    report(failures, cases.len());
}

fn case(id: &'static str, folder: Folder, message: &str) -> Case<Folder> {
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
            json!({"type": "yarn", "factor": 4}),
            "rope_scaling.rope_type \"yarn\" is not supported (default, linear)",
        ),
        with(
            "rope_parameters",
            json!({"rope_type": "llama3"}),
            "rope_parameters.rope_type \"llama3\" is not supported (default, linear)",
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

/// The q projection of [`tiny_qwen2`] as bitsandbytes stores it with plain f32 scales.
fn nf4() -> Folder {
    let q = "model.layers.0.self_attn.q_proj.weight";
    let state = r#"{"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[64,64]}"#;
    let levels: Vec<u8> = lichen_kernels::formats::nf4::LEVELS.iter().flat_map(|l| l.to_le_bytes()).collect();
    tiny_qwen2().weights(|w| {
        w.set(q, "U8", &[2048, 1], vec![0x70; 2048])
            .set(&format!("{q}.absmax"), "F32", &[64], 1.0f32.to_le_bytes().repeat(64))
            .set(&format!("{q}.quant_map"), "F32", &[16], levels.clone())
            .set(&format!("{q}.quant_state.bitsandbytes__nf4"), "U8", &[state.len()], state.into())
    })
}

#[test]
fn nf4_layers() {
    let q = "model.layers.0.self_attn.q_proj.weight";
    let part = |part: &str, dtype: &'static str, shape: &[usize], data: Vec<u8>| {
        let name = format!("{q}.{part}");
        nf4().weights(|w| w.set(&name, dtype, shape, data.clone()))
    };
    let without = |part: &str| nf4().weights(|w| w.without(&format!("{q}.{part}")));
    let state = |text: &str| part("quant_state.bitsandbytes__nf4", "U8", &[text.len()], text.into());
    let c48 = |folder: Folder, message: &str| case("C48", folder, &format!("DIR: \"{q}\": {message}"));
    let nested = r#"{"quant_type":"nf4","blocksize":64,"shape":[64,64],"nested_blocksize":256,"nested_offset":0.1}"#;
    let codes = |folder: Folder| folder.weights(|w| w.set(&format!("{q}.absmax"), "U8", &[64], vec![0; 64]));
    run(vec![
        c48(part("absmax", "F32", &[4608], vec![0; 18432]), "4,608 scales for 64 blocks of 64"),
        c48(part("quant_map", "F32", &[15], vec![0; 60]), "quant_map has 15 F32 values; 16 F32 are needed"),
        c48(part("quant_map", "F32", &[16], vec![0; 64]), "quant_map does not hold NF4's levels"),
        c48(without("quant_state.bitsandbytes__nf4"), "has no quant_state.bitsandbytes__nf4"),
        c48(without("absmax"), "has no absmax"),
        c48(without("quant_map"), "has no quant_map"),
        c48(part("surprise", "U8", &[1], vec![0]), "unknown part \"surprise\""),
        c48(part("absmax", "F16", &[64], vec![0; 128]), "absmax is F16; F32 or U8 is needed"),
        c48(
            state(r#"{"quant_type":"nf4","blocksize":0,"shape":[64,64]}"#),
            "quant_state: blocksize is 0; 1 to 1048576 expected",
        ),
        c48(state(r#"{"quant_type":"nf4","blocksize":64}"#), "quant_state: shape is missing"),
        c48(
            state(r#"{"quant_type":"fp4","blocksize":64,"shape":[64,64]}"#),
            "quant_state: bitsandbytes quant_type \"fp4\" is not supported (supported: nf4)",
        ),
        c48(state("{"), "quant_state: is not JSON: line 1 column 1: EOF while parsing an object"),
        c48(codes(nf4()), "quant_state: nested_blocksize is missing"),
        c48(codes(state(nested)), "has no nested_absmax"),
        case(
            "C48",
            state(r#"{"quant_type":"nf4","blocksize":64,"shape":[32,64]}"#),
            &format!("DIR: tensor \"{q}\": 32 x 64 here, 64 x 64 by config.json"),
        ),
        case(
            "C48",
            part("quant_state.bitsandbytes__fp4", "U8", &[1], vec![0]),
            "DIR: bitsandbytes quant_type \"fp4\" is not supported (supported: nf4)",
        ),
    ]);
}

#[test]
fn nf4_scales_are_checked_when_read() {
    use lichen_runtime::Part;
    let q = "model.layers.0.self_attn.q_proj.weight";
    let dir = TempDir::new();
    let mut scales = 1.0f32.to_le_bytes().repeat(64);
    scales[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    nf4().weights(|w| w.set(&format!("{q}.absmax"), "F32", &[64], scales.clone())).write(dir.path());
    let source = ModelSource::open(dir.path()).expect("the table is sound");
    let error = source.matrix(Part::AttnQ, Some(0)).err().expect("refused").to_string();
    assert!(error.ends_with(&format!("\"{q}\": 1 of 64 scales are not finite")), "{error}");
}

#[test]
fn int8_folders_are_for_converting() {
    use lichen_runtime::Part;
    let module = "model.layers.0.self_attn.q_proj";
    let weight = format!("{module}.weight");
    let quants: Vec<u8> = (0..4096).map(|i| (i % 255) as u8).collect();
    let scb: Vec<u8> = 2.54f32.to_le_bytes().repeat(64);
    let llm_int8 = tiny_qwen2().weights(|w| {
        w.set(&weight, "I8", &[64, 64], quants.clone()).set(&format!("{module}.SCB"), "F32", &[64], scb.clone())
    });
    let scale: Vec<u8> = half::bf16::from_f32(0.02).to_le_bytes().repeat(64);
    let quanto = tiny_qwen2().weights(|w| {
        w.without(&weight).set(&format!("{weight}._data"), "I8", &[64, 64], quants.clone()).set(
            &format!("{weight}._scale"),
            "BF16",
            &[64, 1],
            scale.clone(),
        )
    });
    let refused = "DIR: holds int8 weights of bitsandbytes or quanto: convert them first with lichen-host quantize";
    for (folder, unit) in [(llm_int8, 0.02f32), (quanto, half::bf16::from_f32(0.02).to_f32())] {
        run(vec![case("int8", folder.clone(), refused)]);
        let dir = TempDir::new();
        folder.write(dir.path());
        let source = ModelSource::open_to_convert(dir.path()).expect("sound");
        let matrix = source.matrix(Part::AttnQ, Some(0)).expect("decodes");
        let mut values = vec![0.0; 4096];
        matrix.decode_rows(0..64, &mut values);
        for (value, quant) in values.iter().zip(&quants) {
            assert!((value - *quant as i8 as f32 * unit).abs() < 1e-6, "{value} from {quant}");
        }
    }
}
