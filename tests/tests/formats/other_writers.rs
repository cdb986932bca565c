//! Keys of other writers than llama.cpp's converter, and scalings of long contexts.

use std::sync::Arc;

use lichen_kernels::ops::rope::{RopeScaling, Yarn};
use lichen_kernels::Format;
use lichen_runtime::files::formats::hf_config;
use lichen_runtime::{ModelConfig, ModelSource};
use lichen_tests::formats::corpus::TempDir;
use lichen_tests::formats::gguf_file::{self as g, tiny_gemma3, tiny_gemma3_of_ollama, tiny_qwen2_yarn, GgufFile};
use serde_json::{json, Value};

use super::corpus_folder::tiny_qwen2;
use super::corpus_gguf::{case, run};
use super::sources::{config_of, resized};

#[test]
fn ollamas_files_say_the_same() {
    let plain = config_of(&tiny_gemma3());
    assert_eq!(config_of(&tiny_gemma3_of_ollama()), plain);
    // 4B and up: images in the same file, and neither bases nor epsilon.
    let with_images = tiny_gemma3()
        .without("gemma3.rope.freq_base")
        .without("gemma3.attention.layer_norm_rms_epsilon")
        .set("gemma3.vision.block_count", g::u32(27))
        .set("gemma3.final_logit_softcapping", g::f32(30.0));
    assert_eq!(config_of(&with_images), plain);
    let other_bases = tiny_gemma3_of_ollama()
        .set("gemma3.rope.global.freq_base", g::f32(5e5))
        .set("gemma3.rope.local.freq_base", g::f32(2e4));
    let config = config_of(&other_bases);
    assert_eq!((config.rope_theta, config.rope_theta_local), (5e5, 2e4));
}

#[test]
fn ollamas_end_tokens_and_paddings() {
    let ids = |file: &GgufFile| {
        let source = ModelSource::from_bytes("m", Arc::new(file.bytes())).unwrap_or_else(|e| panic!("{e}"));
        source.stop_ids()
    };
    assert_eq!(ids(&tiny_gemma3_of_ollama()), [1, 4]);
    let key = "tokenizer.ggml.eos_token_ids";
    let only_listed = tiny_gemma3().without("tokenizer.ggml.eos_token_id").set(key, g::array(4, 1, 3u32.to_le_bytes()));
    // And <eos> by its text.
    assert_eq!(ids(&only_listed), [1, 3]);
    for value in [g::u32(5), g::i32(-1), g::u32(u32::MAX), g::u32(0)] {
        assert_eq!(ids(&tiny_gemma3().set("tokenizer.ggml.padding_token_id", value)), [1]);
    }
}

/// Positions of global layers are divided by 8 in 4B, 12B and 27B, whether or not a file says so.
#[test]
fn released_gemma3_keep_their_factor() {
    let long = |layers: u32, dim: u64| {
        let file = resized(dim).set("gemma3.block_count", g::u32(layers));
        file.set("gemma3.embedding_length", g::u32(dim as u32))
    };
    let scaling = |file: &GgufFile| config_of(file).rope_scaling;
    for (layers, dim) in [(34, 2560), (48, 3840), (62, 5376)] {
        assert_eq!(scaling(&long(layers, dim)), RopeScaling::Linear(8.0), "{layers}");
    }
    assert_eq!(scaling(&long(34, 2560).set("gemma3.rope.scaling.factor", g::f32(4.0))), RopeScaling::Linear(4.0));
    assert_eq!(scaling(&long(34, 2560).set("gemma3.rope.scaling.type", g::string("none"))), RopeScaling::NONE);
    for (layers, dim) in [(18, 640), (26, 1152), (34, 2048)] {
        assert_eq!(scaling(&long(layers, dim)), RopeScaling::NONE, "{layers}");
    }
    assert_eq!(scaling(&tiny_gemma3().set("gemma3.rope.scale_linear", g::f32(2.0))), RopeScaling::Linear(2.0));
}

#[test]
fn what_cannot_be_right_is_refused() {
    let softcapping = |file: GgufFile, cap: f32| file.set("gemma3.final_logit_softcapping", g::f32(cap)).bytes();
    let capped = |cap: &str| format!("\"gemma3.final_logit_softcapping\" is {cap}; soft-capping is not supported");
    let rnj = tiny_gemma3_of_ollama().set("gemma3.block_count", g::u32(32));
    let both = tiny_gemma3_of_ollama().set("gemma3.rope.freq_base", g::f32(1e4));
    let attention = tiny_gemma3_of_ollama().set("gemma3.attn_logit_softcapping", g::f32(50.0));
    run(vec![
        case("C26", softcapping(tiny_gemma3(), 30.0), capped("30")),
        case("C26", softcapping(tiny_gemma3_of_ollama(), 20.0), capped("20")),
        case("C26", softcapping(rnj, 30.0), capped("30")),
        case("C26", attention.bytes(), "\"gemma3.attn_logit_softcapping\" is 50; soft-capping is not supported"),
        case(
            "C26",
            both.bytes(),
            "\"gemma3.rope.freq_base\" is 10000, but \"gemma3.rope.global.freq_base\" is 1000000",
        ),
    ]);
}

/// llama.cpp's table of pre-tokenizers: five names for one way to split text.
#[test]
fn names_of_qwens_pre_tokenizer() {
    for pre in ["qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez"] {
        let file = tiny_qwen2_yarn().set("tokenizer.ggml.pre", g::string(pre));
        ModelSource::from_bytes("m", Arc::new(file.bytes())).unwrap_or_else(|e| panic!("{pre}: {e}"));
    }
    let llama3 = tiny_qwen2_yarn().set("tokenizer.ggml.pre", g::string("llama-bpe")).bytes();
    let supported = "qwen2, deepseek-r1-qwen, kormo, f2llmv2, megrez";
    run(vec![case(
        "C26",
        llama3,
        format!("tokenizer.ggml.pre \"llama-bpe\" is not supported (supported: {supported})"),
    )]);
}

fn yarn(factor: f32, original_context: usize) -> Yarn {
    Yarn {
        factor,
        original_context,
        beta_fast: 32.0,
        beta_slow: 1.0,
        attention_factor: Yarn::default_attention_factor(factor),
    }
}

fn folder_config(rope: &str, value: Value) -> Result<ModelConfig, String> {
    let mut config = json!({
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "vocab_size": 5, "max_position_embeddings": 32768, "rope_theta": 1e6
    });
    config[rope] = value;
    hf_config::model_config(&config, Format::F32).map_err(|e| e.to_string())
}

/// A folder and a GGUF file of one model; the context is the longer one.
#[test]
fn yarn_of_folders_and_files() {
    let qwen = json!({"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"});
    let config = folder_config("rope_scaling", qwen).expect("sound");
    assert_eq!((config.rope_scaling, config.context_length), (RopeScaling::Yarn(yarn(4.0, 32_768)), 131_072));
    let parameters = json!({"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0});
    assert_eq!(folder_config("rope_parameters", parameters).expect("sound"), config);
    let config = config_of(&tiny_qwen2_yarn());
    assert_eq!((config.rope_scaling, config.context_length), (RopeScaling::Yarn(yarn(4.0, 64)), 256));
    let unsaid = config_of(&tiny_qwen2_yarn().without("qwen2.rope.scaling.original_context_length"));
    assert_eq!(unsaid, config);
    let tuned = tiny_qwen2_yarn()
        .set("qwen2.rope.scaling.yarn_beta_fast", g::f32(16.0))
        .set("qwen2.rope.scaling.yarn_beta_slow", g::f32(2.0))
        .set("qwen2.rope.scaling.attn_factor", g::f32(0.5));
    let of = yarn(4.0, 64);
    let want = Yarn { beta_fast: 16.0, beta_slow: 2.0, attention_factor: of.attention_factor * 0.5, ..of };
    assert_eq!(config_of(&tuned).rope_scaling, RopeScaling::Yarn(want));
    let tuned = json!({
        "type": "yarn", "factor": 2.0, "beta_fast": 16, "beta_slow": 2, "mscale": 2.0, "mscale_all_dim": 1.0, "truncate": true
    });
    let attention_factor = ((0.2 * 2.0f64.ln() + 1.0) / (0.1 * 2.0f64.ln() + 1.0)) as f32;
    let want = Yarn { beta_fast: 16.0, beta_slow: 2.0, attention_factor, ..yarn(2.0, 32_768) };
    assert_eq!(folder_config("rope_scaling", tuned).expect("sound").rope_scaling, RopeScaling::Yarn(want));
}

#[test]
fn yarn_that_is_refused() {
    let yarn = |more: Value| {
        let mut scaling = json!({"type": "yarn", "factor": 4.0});
        more.as_object().expect("fields").iter().for_each(|(k, v)| scaling[k] = v.clone());
        folder_config("rope_scaling", scaling).expect_err("refused")
    };
    for (more, message) in [
        (json!({"truncate": false}), "rope_scaling.truncate is false; that is not supported"),
        (json!({"partial_rotary_factor": 0.5}), "rope_scaling.partial_rotary_factor is 0.5; that is not supported"),
        (json!({"factor": null}), "rope_scaling.factor is missing"),
        (json!({"factor": 0.5}), "rope_scaling.factor is 0.5; 1 to 10000 expected for YaRN"),
        (json!({"factor": 1000}), "context_length is 32768000; 1 to 16777216 expected"),
        (json!({"beta_fast": 0.5}), "rope_scaling.beta_slow is 1; above 0 and at most beta_fast 0.5 expected for YaRN"),
        (
            json!({"attention_factor": 0}),
            "rope_scaling.attention_factor is 0; a number above 0 and at most 100 expected",
        ),
        (json!({"type": "dynamic"}), "rope_scaling.rope_type \"dynamic\" is not supported (default, linear, yarn)"),
        (json!({"type": "llama3"}), "rope_scaling.rope_type \"llama3\" is not supported (default, linear, yarn)"),
    ] {
        assert_eq!(yarn(more), message);
    }
    let with = |name: &str, value: Vec<u8>| tiny_qwen2_yarn().set(&format!("qwen2.rope.scaling.{name}"), value).bytes();
    let only = |name: &str, found: &str, only: &str| {
        format!("\"qwen2.rope.scaling.{name}\" is {found}; only {only} is supported")
    };
    run(vec![
        case("C26", with("yarn_ext_factor", g::f32(0.5)), only("yarn_ext_factor", "0.5", "1")),
        case("C26", with("yarn_log_multiplier", g::f32(0.1)), only("yarn_log_multiplier", "0.1", "0")),
        case("C26", with("yarn_attn_factor", g::f32(f32::NAN)), only("yarn_attn_factor", "NaN", "1.1386294")),
        case(
            "C26",
            with("type", g::string("longrope")),
            "\"qwen2.rope.scaling.type\" is \"longrope\"; none, linear or yarn is supported",
        ),
        case(
            "C26",
            tiny_qwen2_yarn().without("qwen2.rope.scaling.factor").bytes(),
            "\"qwen2.rope.scaling.factor\" is missing",
        ),
    ]);
}

/// What editors on Windows write in front of UTF-8.
#[test]
fn byte_order_marks() {
    let marked = |text: &str| format!("\u{feff}{text}");
    let config = json!({
        "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5, "max_position_embeddings": 128,
        "tie_word_embeddings": true, "eos_token_id": 4
    });
    let dir = TempDir::new();
    tiny_qwen2()
        .file("config.json", marked(&config.to_string()))
        .file("generation_config.json", marked("{\"eos_token_ids\": [2, 3]}"))
        .file("tokenizer_config.json", marked("{\"chat_template\": \"T\"}"))
        .write(dir.path());
    let source = ModelSource::open(dir.path()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((source.stop_ids(), source.chat_template().as_deref()), (vec![2, 3, 4], Some("T")));
    dir.write("chat_template.jinja", marked("J"));
    let source = ModelSource::open(dir.path()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(source.chat_template().as_deref(), Some("J"));
}

/// A tokenizer.json behind a byte order mark is the same tokenizer.
#[test]
fn byte_order_mark_of_a_tokenizer() {
    let dir = TempDir::new();
    let fixture = lichen_tests::fixture("tiny-qwen2-tied");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        let text = std::fs::read_to_string(fixture.join(name)).expect("fixture");
        dir.write(name, format!("\u{feff}{text}"));
    }
    let read = |folder: &std::path::Path| {
        lichen_runtime::text::tokenizer::Tokenizer::from_json(&folder.join("tokenizer.json"), 320)
            .unwrap_or_else(|e| panic!("{e}"))
    };
    let text = "It's 12345 o'clock,\n\n  isn't it?";
    let ids = |folder| read(folder).encode(text).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(ids(dir.path()), ids(&fixture));
}
