//! Sound GGUF containers that are not a sound model (C24 to C30).

use std::sync::Arc;

use super::corpus_gguf::{case, run};
use lichen_runtime::files::model_source::ModelSource;
use lichen_runtime::limits::COUNT_MAX;
use lichen_tests::formats::corpus::Case;
use lichen_tests::formats::gguf_file::{self as g, tiny_gemma3, GgufFile};

#[test]
fn tensors_against_the_config() {
    let gate = "blk.1.ffn_gate.weight";
    let base = tiny_gemma3();
    let transposed = base.clone().tensor(gate, |t| t.dims.reverse()).bytes();
    let one_dimension = base.clone().tensor(gate, |t| (t.dims, t.n_dims) = (vec![2048], 1)).bytes();
    let long_norm = base.clone().tensor("output_norm.weight", |t| {
        (t.dims, t.data) = (vec![33], vec![0; 132]);
    });
    run(vec![
        case(
            "C24",
            base.clone().without_tensor("blk.1.ffn_up.weight").bytes(),
            "tensor \"blk.1.ffn_up.weight\" is missing (the metadata says 2 blocks)",
        ),
        case(
            "C24",
            base.clone().set("gemma3.block_count", g::u32(26)).bytes(),
            "tensor \"blk.2.attn_norm.weight\" is missing (the metadata says 26 blocks)",
        ),
        case(
            "C24",
            base.clone().without_tensor("token_embd.weight").bytes(),
            "tensor \"token_embd.weight\" is missing",
        ),
        case(
            "C24",
            base.clone().set("split.count", g::u32(3)).set("split.no", g::u32(1)).bytes(),
            "is part 2 of 3 of a split model, and its name does not end as those of parts do (-00002-of-00003.gguf): the \
             others cannot be found",
        ),
        case("C25", transposed, format!("tensor \"{gate}\": 32 x 64 here, 64 x 32 by the metadata")),
        case("C25", one_dimension, format!("tensor \"{gate}\": 2048 here, 64 x 32 by the metadata")),
        case("C25", long_norm.bytes(), "tensor \"output_norm.weight\": 33 here, 32 by the metadata"),
    ]);
}

fn with(key: &str, value: Vec<u8>, message: &str) -> Case<Vec<u8>> {
    case("C26", tiny_gemma3().set(key, value).bytes(), message)
}

#[test]
fn sampling_values_are_read() {
    let file = tiny_gemma3().set("general.sampling.temp", g::f32(0.5)).set("general.sampling.top_k", g::i32(20));
    let file = file.set("general.sampling.penalty_last_n", g::i32(-1)).bytes();
    let sampling = ModelSource::from_bytes("m.gguf", Arc::new(file)).unwrap_or_else(|e| panic!("{e}")).sampling();
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (Some(0.5), Some(20), None));
    assert_eq!(sampling.repeat_last_n, Some(COUNT_MAX));
}

#[test]
fn config_keys() {
    let without = |key: &str, message: &str| case("C26", tiny_gemma3().without(key).bytes(), message);
    let layers = "gemma3.block_count";
    let base = "gemma3.rope.freq_base";
    let eps = "gemma3.attention.layer_norm_rms_epsilon";
    let window = "gemma3.attention.sliding_window";
    run(vec![
        without("general.architecture", "\"general.architecture\" is missing"),
        with(
            "general.architecture",
            g::string("llama"),
            "architecture \"llama\" is not supported (supported: gemma3, qwen2)",
        ),
        with("general.architecture", g::u32(1), "\"general.architecture\" is a u32; a string is needed"),
        with("general.sampling.temp", g::string("hot"), "general.sampling.temp is a string; -1 to 5"),
        with("general.sampling.temp", g::f32(f32::NAN), "general.sampling.temp is NaN; -1 to 5"),
        with("general.sampling.top_k", g::i32(-2), "general.sampling.top_k is -2; -1 to 16777216"),
        with("general.sampling.penalty_repeat", g::f32(0.0), "general.sampling.penalty_repeat is 0; 0.1 to 10"),
        with("general.type", g::string("adapter"), "is a LoRA adapter, not a model: pass it with --adapter"),
        without(layers, "\"gemma3.block_count\" is missing"),
        with(layers, g::u32(0), "\"gemma3.block_count\" is 0; 1 to 512 expected"),
        with(layers, g::u32(1_000_000_000), "\"gemma3.block_count\" is 1000000000; 1 to 512 expected"),
        with(layers, g::i32(-1), "\"gemma3.block_count\" is -1; 1 to 512 expected"),
        with(layers, g::string("26"), "\"gemma3.block_count\" is a string; an integer is needed"),
        with("gemma3.attention.head_count", g::u32(0), "\"gemma3.attention.head_count\" is 0; 1 to 1024 expected"),
        with("gemma3.attention.head_count_kv", g::u32(3), "2 query heads do not divide over 3 key/value heads"),
        with(
            "gemma3.attention.key_length",
            g::u32(17),
            "\"gemma3.attention.value_length\" is 16, but keys are 17 long: that is not supported",
        ),
        with(
            base,
            g::f32(f32::NAN),
            "\"gemma3.rope.freq_base\" is NaN; a number above 0 and at most 1000000000000 expected",
        ),
        with(base, g::f32(0.0), "\"gemma3.rope.freq_base\" is 0; a number above 0 and at most 1000000000000 expected"),
        with(
            eps,
            g::f32(0.0),
            "\"gemma3.attention.layer_norm_rms_epsilon\" is 0; a number above 0 and at most 0.1 expected",
        ),
        with(window, g::u32(0), "\"gemma3.attention.sliding_window\" is 0; 1 to 16777216 expected"),
        without(window, "\"gemma3.attention.sliding_window\" is missing"),
        with(
            "gemma3.rope.scaling.type",
            g::string("yarn"),
            "\"gemma3.rope.scaling.type\" is \"yarn\"; none or linear is supported",
        ),
        with(
            "gemma3.final_logit_softcapping",
            g::f32(30.0),
            "\"gemma3.final_logit_softcapping\" is 30; soft-capping is not supported",
        ),
        with(
            "gemma3.context_length",
            g::u64(1 << 40),
            "\"gemma3.context_length\" is 1099511627776; 1 to 16777216 expected",
        ),
    ]);
}

fn tokenizer(id: &'static str, file: GgufFile, message: &str) -> Case<Vec<u8>> {
    case(id, file.bytes(), message)
}

#[test]
fn vocabulary() {
    let base = tiny_gemma3;
    let key = "tokenizer.ggml.scores";
    let types = "tokenizer.ggml.token_type";
    let six = ["a", "b", "c", "d", "e", "f"];
    run(vec![
        tokenizer("C27", base().without("tokenizer.ggml.tokens"), "vocabulary has 0 tokens, the embedding 5 rows"),
        tokenizer(
            "C27",
            base().set("tokenizer.ggml.tokens", g::strings(&six)),
            "vocabulary has 6 tokens, the embedding 5 rows",
        ),
        tokenizer(
            "C27",
            base().set("tokenizer.ggml.tokens", g::u32(5)),
            "\"tokenizer.ggml.tokens\" is a u32; an array is needed",
        ),
        tokenizer("C28", base().set(key, g::f32s(&[0.0; 4])), "tokenizer.ggml.scores has 4 items for 5 tokens"),
        tokenizer("C28", base().set(types, g::i32s(&[1; 6])), "tokenizer.ggml.token_type has 6 items for 5 tokens"),
        tokenizer("C28", base().without(key), "\"tokenizer.ggml.scores\" is missing"),
        tokenizer("C29", base().set(key, g::array(0, 5, [0; 5])), "tokenizer.ggml.scores holds u8; f32 is needed"),
        tokenizer(
            "C29",
            base().set(types, g::array(0, 5, [0; 5])),
            "tokenizer.ggml.token_type holds u8; i32 is needed",
        ),
        tokenizer(
            "C29",
            base().set("tokenizer.ggml.tokens", g::i32s(&[0; 5])),
            "tokenizer.ggml.tokens holds i32; string is needed",
        ),
        tokenizer(
            "C26",
            base().set("tokenizer.ggml.model", g::string("bert")),
            "tokenizer \"bert\" is not supported (supported: llama, gpt2)",
        ),
        tokenizer(
            "C26",
            base().set("tokenizer.ggml.model", g::string("gpt2")),
            "tokenizer.ggml.pre \"default\" is not supported (supported: qwen2, deepseek-r1-qwen, kormo, f2llmv2, megrez)",
        ),
    ]);
}

#[test]
fn special_ids() {
    let with = |name: &str, value: Vec<u8>, message: &str| {
        case("C30", tiny_gemma3().set(&format!("tokenizer.ggml.{name}_token_id"), value).bytes(), message)
    };
    run(vec![
        with("eos", g::u32(7), "eos token id 7 is outside the vocabulary of 5"),
        with("eos", g::u32(5), "eos token id 5 is outside the vocabulary of 5"),
        with("bos", g::i32(-1), "bos token id -1 is outside the vocabulary of 5"),
        with("bos", g::u32(u32::MAX), "bos token id 4294967295 is outside the vocabulary of 5"),
        with("eot", g::u64(1 << 40), "eot token id 1099511627776 is outside the vocabulary of 5"),
        with("unknown", g::string("3"), "\"tokenizer.ggml.unknown_token_id\" is a string; an integer is needed"),
        with("padding", g::string("3"), "\"tokenizer.ggml.padding_token_id\" is a string; an integer is needed"),
    ]);
    let listed = |value: Vec<u8>, message: &str| {
        case("C30", tiny_gemma3().set("tokenizer.ggml.eos_token_ids", value).bytes(), message)
    };
    run(vec![
        listed(g::i32s(&[1, 5]), "eos token id 5 is outside the vocabulary of 5"),
        listed(g::i32s(&[-1]), "eos token id -1 is outside the vocabulary of 5"),
        listed(g::f32s(&[1.0]), "tokenizer.ggml.eos_token_ids holds f32; integers are needed"),
        listed(g::u32(1), "\"tokenizer.ggml.eos_token_ids\" is a u32; an array of integers is needed"),
    ]);
}
