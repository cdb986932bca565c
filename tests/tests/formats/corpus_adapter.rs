//! LoRA adapters: sound ones in both formats, and broken ones (C49 to C56) with their golden sentences.

use std::path::Path;

use lichen_runtime::files::adapter_file::AdapterFile;
use lichen_runtime::{ModelConfig, ModelSource, Part};
use lichen_tests::fixture;
use lichen_tests::formats::corpus::{check, report, Case, TempDir};
use lichen_tests::formats::gguf_file::{self as g, tiny_gemma3, tiny_gguf_adapter, GgufFile};
use lichen_tests::formats::safetensors_file::SafetensorsFile;
use serde_json::{json, Value};

/// The model of [`tiny_gemma3`]: 2 layers, dim 32, q 32 x 32, k and v 16 x 32, gate and up 64 x 32.
pub fn base() -> ModelConfig {
    let bytes = std::sync::Arc::new(tiny_gemma3().bytes());
    ModelSource::from_bytes("base", bytes).expect("sound").config().clone()
}

#[derive(Clone)]
pub struct Adapter {
    pub config: Value,
    pub weights: SafetensorsFile,
}

pub const Q0: &str = "base_model.model.model.layers.0.self_attn.q_proj";
pub const V1: &str = "base_model.model.model.layers.1.self_attn.v_proj";

/// Rank 4 on q of layer 0 and v of layer 1.
pub fn peft() -> Adapter {
    let weights = SafetensorsFile::default()
        .add_f32(&format!("{Q0}.lora_A.weight"), &[4, 32])
        .add_f32(&format!("{Q0}.lora_B.weight"), &[32, 4])
        .add_f32(&format!("{V1}.lora_A.weight"), &[4, 32])
        .add_f32(&format!("{V1}.lora_B.weight"), &[16, 4]);
    let config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "base", "r": 4, "lora_alpha": 8,
        "bias": "none", "target_modules": ["q_proj", "v_proj"], "fan_in_fan_out": false, "use_dora": false,
        "rank_pattern": {}, "alpha_pattern": {}, "modules_to_save": null
    });
    Adapter { config, weights }
}

impl Adapter {
    pub fn config(mut self, key: &str, value: Value) -> Self {
        self.config[key] = value;
        self
    }

    pub fn weights(mut self, change: impl Fn(SafetensorsFile) -> SafetensorsFile) -> Self {
        self.weights = change(self.weights);
        self
    }

    fn write(&self, dir: &Path) -> usize {
        let (config, weights) = (self.config.to_string(), self.weights.bytes());
        std::fs::write(dir.join("adapter_config.json"), &config).expect("temporary file");
        std::fs::write(dir.join("adapter_model.safetensors"), &weights).expect("temporary file");
        config.len() + weights.len()
    }

    pub fn open(&self) -> AdapterFile {
        let dir = TempDir::new();
        self.write(dir.path());
        AdapterFile::open(dir.path(), &base()).expect("sound")
    }
}

pub fn run(cases: Vec<Case<Adapter>>) {
    let config = base();
    let mut failures = Vec::new();
    for case in &cases {
        let dir = TempDir::new();
        let n_bytes = case.input.write(dir.path());
        failures.extend(check(case, dir.path(), n_bytes, || AdapterFile::open(dir.path(), &config)).err());
    }
    report(failures, cases.len());
}

pub fn in_config(id: &'static str, adapter: Adapter, message: &str) -> Case<Adapter> {
    Case::new(id, adapter, format!("DIR/adapter_config.json: {message}"))
}

pub fn in_weights(id: &'static str, adapter: Adapter, message: &str) -> Case<Adapter> {
    Case::new(id, adapter, format!("DIR/adapter_model.safetensors: {message}"))
}

#[test]
fn adapters_of_peft_open() {
    for (name, n_layers) in [("tiny-gemma3", 7), ("tiny-qwen2-tied", 3)] {
        let model = ModelSource::open(&fixture(name)).expect("model");
        let adapter = AdapterFile::open(&fixture(&format!("{name}-lora")), model.config()).expect("adapter");
        assert_eq!(adapter.targets.len(), 7 * n_layers, "{name}");
        assert_eq!(adapter.base_name.as_deref(), Some(name));
        for target in &adapter.targets {
            assert_eq!((target.rank, target.scale), (4, 2.0), "{name}: {:?}", target.part);
        }
        assert_eq!(adapter.max_rank(), 4);
    }
}

#[test]
fn scales() {
    let scale = |adapter: Adapter, i: usize| adapter.open().targets[i].scale;
    assert_eq!(scale(peft(), 0), 2.0);
    assert_eq!(scale(peft().config("use_rslora", json!(true)), 0), 4.0);
    let pattern = peft().config("alpha_pattern", json!({"layers.1.self_attn.v_proj": 2}));
    assert_eq!((scale(pattern.clone(), 0), scale(pattern, 1)), (2.0, 0.5));
    let ranks = peft().config("rank_pattern", json!({"^model\\.layers\\.1\\.self_attn\\.v_proj$": 2})).weights(|w| {
        w.set(&format!("{V1}.lora_A.weight"), "F32", &[2, 32], vec![0; 256]).set(
            &format!("{V1}.lora_B.weight"),
            "F32",
            &[16, 2],
            vec![0; 128],
        )
    });
    assert_eq!((scale(ranks.clone(), 0), scale(ranks.clone(), 1)), (2.0, 4.0));
    assert_eq!(ranks.open().max_rank(), 4);
}

/// Names as other writers spell them lead to the same adapter.
#[test]
fn spellings_of_names() {
    let plain = peft().open();
    for (from, to) in [
        ("model.model.layers", "model.model.language_model.layers"),
        ("model.model.layers", "model.language_model.model.layers"),
        (".weight", ".default.weight"),
    ] {
        let mut renamed = peft();
        renamed.weights.tensors.iter_mut().for_each(|t| t.0 = t.0.replace(from, to));
        assert_eq!(renamed.open().targets, plain.targets, "{to}");
    }
}

#[test]
fn gguf_and_peft_hold_the_same_adapter() {
    let dir = TempDir::new();
    let path = dir.write("a.gguf", tiny_gguf_adapter().bytes());
    let adapter = AdapterFile::open(&path, &base()).expect("sound");
    assert_eq!(adapter.targets, peft().open().targets);
    assert_eq!(adapter.fingerprint(), peft().open().fingerprint());
    let unscaled = tiny_gguf_adapter().set("adapter.lora.alpha", g::f32(0.0)).bytes();
    let adapter = AdapterFile::open(&dir.write("a.gguf", unscaled), &base()).expect("sound");
    assert_eq!((adapter.targets[0].part, adapter.targets[0].scale), (Part::AttnQ, 1.0));
}

#[test]
fn folders() {
    let config = base();
    let message = |dir: &TempDir| {
        let error = AdapterFile::open(dir.path(), &config).expect_err("refused").to_string();
        error.replace(&dir.path().display().to_string(), "DIR")
    };
    let dir = TempDir::new();
    assert_eq!(message(&dir), "DIR: no adapter_config.json in this folder");
    dir.write("adapter_config.json", peft().config.to_string());
    assert_eq!(message(&dir), "DIR: no adapter_model.safetensors in this folder");
    dir.write("adapter_model.bin", "PK");
    let pickle = "(adapter_model.bin is a pickle, which is not read: save the adapter as safetensors)";
    assert_eq!(message(&dir), format!("DIR: no adapter_model.safetensors in this folder {pickle}"));
    let cut = peft().weights.bytes();
    dir.write("adapter_model.safetensors", &cut[..cut.len() - 1]);
    let error = message(&dir);
    assert!(error.ends_with("lie outside the file's 1,791 data bytes (download incomplete?)"), "{error}");
    let bin = dir.path().join("adapter_model.bin");
    let error = AdapterFile::open(&bin, &config).expect_err("refused").to_string();
    assert!(error.ends_with("is a pickle, which is not read: save the adapter as safetensors"), "{error}");
}

#[test]
fn config() {
    let with = |id, key: &str, value: Value, message: &str| in_config(id, peft().config(key, value), message);
    let alpha = "lora_alpha must be a positive number";
    let mut cases = vec![
        with("C50", "r", json!(0), "r is 0; 1 to 1024"),
        with("C50", "r", json!(-1), "r is -1; 1 to 1024"),
        with("C50", "r", json!(1.5), "r is 1.5; 1 to 1024"),
        with("C50", "r", json!(1_000_000_000), "r is 1000000000; 1 to 1024"),
        with("C50", "rank_pattern", json!({"q_proj": 0}), "rank_pattern \"q_proj\" is 0; 1 to 1024"),
        with(
            "C50",
            "rank_pattern",
            json!({"layers.[01.*": 4}),
            "rank_pattern \"layers.[01.*\" is not a regular expression that can be used: Invalid character class",
        ),
        with("C51", "lora_alpha", json!(0), alpha),
        with("C51", "lora_alpha", json!(-8), alpha),
        with("C51", "lora_alpha", json!("8"), alpha),
        with("C51", "lora_alpha", json!(1e300), alpha),
        with("C52", "target_modules", json!(["dense_h_to_4h", "qq_proj"]), "target \"dense_h_to_4h\" matches no layer"),
        with(
            "C52",
            "target_modules",
            json!(["qq_proj"]),
            "target \"qq_proj\" matches no layer (did you mean \"q_proj\"?)",
        ),
        with(
            "C52",
            "target_modules",
            json!("q_proj"),
            "target_modules and exclude_modules choose no matrix of adapter_model.safetensors",
        ),
        with("C52", "target_modules", json!(7), "target_modules is 7; a list expected"),
        with("C52", "target_modules", json!([1]), "target_modules holds 1; names expected"),
        with("C56", "peft_type", json!("IA3"), "peft_type \"IA3\" is not supported"),
        with("C56", "task_type", json!("SEQ_CLS"), "task_type \"SEQ_CLS\" is not supported"),
        with("C56", "bias", json!("all"), "bias \"all\" is not supported"),
        with(
            "C56",
            "init_lora_weights",
            json!("pissa_niter_4"),
            "init_lora_weights \"pissa_niter_4\" is not supported: save it converted to plain LoRA",
        ),
    ];
    for switch in ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"] {
        cases.push(with("C56", switch, json!(true), &format!("{switch} is not supported")));
    }
    for extra in ["layer_replication", "trainable_token_indices", "alora_invocation_tokens", "target_parameters"] {
        cases.push(with("C56", extra, json!(["x"]), &format!("{extra} is not supported")));
    }
    run(cases);
    let text = Adapter { config: json!("{}"), ..peft() };
    run(vec![in_config("C51", text, "the file is \"{}\"; an object is needed")]);
}

#[test]
fn weights() {
    let a = format!("{Q0}.lora_A.weight");
    let b = format!("{Q0}.lora_B.weight");
    let set = |name: &str, shape: &'static [usize]| {
        let n: usize = shape.iter().product();
        peft().weights(|w| w.set(name, "F32", shape, vec![0; 4 * n]))
    };
    let renamed = |from: &str, to: &str| {
        let mut adapter = peft();
        adapter.weights.tensors.iter_mut().for_each(|t| t.0 = t.0.replace(from, to));
        adapter
    };
    let mut nan = vec![0u8; 512];
    [0, 4, 508].into_iter().for_each(|i| nan[i..i + 4].copy_from_slice(&f32::NAN.to_le_bytes()));
    let second = a.replace(".weight", ".other.weight");
    run(vec![
        in_weights("C53", peft().weights(|w| w.without(&b)), &format!("\"{Q0}.lora_A\" has no lora_B")),
        in_weights("C53", peft().weights(|w| w.without(&a)), &format!("\"{Q0}.lora_B\" has no lora_A")),
        in_weights("C54", peft().config("r", json!(8)), &format!("\"{Q0}.lora_A\" has rank 4, the config says 8")),
        in_weights("C54", set(&b, &[32, 8]), &format!("\"{Q0}.lora_B\" has rank 8, its lora_A 4")),
        in_weights("C54", set(&a, &[128]), &format!("\"{Q0}.lora_A\" has 1 dimensions; 2 are needed")),
        in_weights("C55", set(&a, &[4, 896]), "made for a model 896 wide; this one is 32 wide"),
        in_weights("C55", set(&b, &[64, 4]), &format!("\"{Q0}.lora_B\" gives 64 outputs; the layer has 32")),
        in_weights(
            "C55",
            renamed("layers.1.", "layers.30."),
            "\"base_model.model.model.layers.30.self_attn.v_proj.lora_A\" is for layer 30; the model has 2 layers",
        ),
        in_weights(
            "C56",
            peft().weights(|w| w.set(&a, "F32", &[4, 32], nan.clone())),
            &format!("\"{Q0}.lora_A\": 3 values are not finite"),
        ),
        in_weights(
            "C56",
            peft().weights(|w| w.set(&a, "I64", &[4, 32], vec![0; 1024])),
            &format!("\"{a}\" is I64; F32, F16 or BF16 is needed"),
        ),
        in_weights(
            "C56",
            peft().weights(|w| w.add_f32(&format!("{Q0}.lora_magnitude_vector"), &[32])),
            &format!("\"{Q0}.lora_magnitude_vector\": DoRA is not supported"),
        ),
        in_weights(
            "C56",
            renamed("layers.1.self_attn.v_proj", "lm_head"),
            "\"base_model.model.model.lm_head.lora_A.weight\": an adapter of the head is not supported",
        ),
        in_weights(
            "C54",
            peft().weights(|w| w.add_f32(&second, &[4, 32])),
            &format!("\"{Q0}.lora_A.other\" and \"{Q0}.lora_A\" are the same matrix"),
        ),
        in_weights("C49", Adapter { weights: SafetensorsFile::default(), ..peft() }, "holds no LoRA matrices"),
    ]);
}

#[test]
fn gguf_adapters() {
    let model = base();
    let dir = TempDir::new();
    let path = dir.path().join("a.gguf");
    let case = |id, file: GgufFile, message: &str| Case::new(id, file.bytes(), format!("DIR/a.gguf: {message}"));
    let a = "blk.0.attn_q.weight.lora_a";
    let rename = |to: &str| tiny_gguf_adapter().tensor(a, |t| t.name = to.into());
    let cases = [
        case(
            "C53",
            tiny_gguf_adapter().without_tensor("blk.0.attn_q.weight.lora_b"),
            &format!("\"{a}\" has no lora_B"),
        ),
        case(
            "C55",
            tiny_gguf_adapter().set("general.architecture", g::string("llama")),
            "made for architecture \"llama\"; this model is gemma3",
        ),
        case(
            "C55",
            tiny_gguf_adapter().tensor(a, |t| (t.dims, t.data) = (vec![64, 4], vec![0; 1024])),
            "made for a model 64 wide; this one is 32 wide",
        ),
        case(
            "C51",
            tiny_gguf_adapter().set("adapter.lora.alpha", g::f32(f32::NAN)),
            "\"adapter.lora.alpha\" is NaN; 0 or a positive number expected",
        ),
        case(
            "C56",
            tiny_gguf_adapter().set("adapter.type", g::string("control_vector")),
            "adapter.type \"control_vector\" is not supported (lora)",
        ),
        case(
            "C56",
            tiny_gguf_adapter().set("adapter.alora.invocation_tokens", g::i32s(&[1])),
            "adapter.alora.invocation_tokens: activated LoRA is not supported",
        ),
        case(
            "C56",
            tiny_gguf_adapter().set("general.type", g::string("model")),
            "is a model, not an adapter: pass it with --model",
        ),
        case("C56", rename("token_embd.weight.lora_a"), "\"token_embd.weight.lora_a\" is not a LoRA matrix of a layer"),
        case("C56", rename("blk.0.attn_q.weight"), "\"blk.0.attn_q.weight\" is not a LoRA matrix of a layer"),
        case(
            "C55",
            rename("blk.9.attn_q.weight.lora_a"),
            "\"blk.9.attn_q.weight.lora_a\" is for layer 9; the model has 2 layers",
        ),
    ];
    let mut failures = Vec::new();
    for case in &cases {
        std::fs::write(&path, &case.input).expect("temporary file");
        failures.extend(check(case, dir.path(), case.input.len(), || AdapterFile::open(&path, &model)).err());
    }
    report(failures, cases.len());
}
