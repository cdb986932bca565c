//! Which tensors of a PEFT adapter are used, and how they are scaled: what PEFT 0.21 makes of the same files.

use lichen_runtime::Part;
use serde_json::{json, Value};

use crate::corpus_adapter::{in_config, in_weights, peft, run, Adapter, Q0, V1};

/// The parts that are used, with their layers and scales.
fn used(adapter: &Adapter) -> Vec<(Part, usize, f32)> {
    adapter.open().targets.iter().map(|t| (t.part, t.layer, t.scale)).collect()
}

const Q: (Part, usize, f32) = (Part::AttnQ, 0, 2.0);
const V: (Part, usize, f32) = (Part::AttnV, 1, 2.0);

fn with(fields: Value) -> Adapter {
    fields.as_object().expect("fields").iter().fold(peft(), |adapter, (key, value)| adapter.config(key, value.clone()))
}

/// The same under a multimodal model's names.
fn multimodal(fields: Value, outer: &str) -> Adapter {
    let mut adapter = with(fields);
    adapter.weights.tensors.iter_mut().for_each(|t| t.0 = t.0.replace("model.model.layers", outer));
    adapter
}

#[test]
fn the_config_chooses_the_modules() {
    for (fields, want) in [
        (json!({"target_modules": ["q_proj"]}), &[Q][..]),
        (json!({"target_modules": ["self_attn.v_proj"]}), &[V]),
        (json!({"target_modules": ["model.layers.0.self_attn.q_proj", "v_proj"]}), &[Q, V]),
        (json!({"target_modules": ["proj", "v_proj"]}), &[V]),
        (json!({"target_modules": ["q_proj", "v_proj", "k_proj", "c_attn", "lm_head"]}), &[Q, V]),
        (json!({"target_modules": "all-linear"}), &[Q, V]),
        (json!({"target_modules": "All-Linear"}), &[Q, V]),
        (json!({"target_modules": null}), &[Q, V]),
        (json!({"target_modules": ".*v_proj"}), &[V]),
        (json!({"target_modules": r".*\.[01]\.self_attn\.(q|k|v)_proj"}), &[Q, V]),
        (json!({"target_modules": r"model\.layers\.(?!1).*"}), &[Q]),
        (json!({"target_modules": "all-linear", "exclude_modules": ["q_proj"]}), &[V]),
        (json!({"exclude_modules": ["layers.1.self_attn.v_proj"]}), &[Q]),
        (json!({"exclude_modules": r".*\.0\..*"}), &[V]),
        (json!({"exclude_modules": "q_proj"}), &[Q, V]),
        (json!({"exclude_modules": []}), &[Q, V]),
        (json!({"layers_to_transform": 1}), &[V]),
        (json!({"layers_to_transform": [0], "layers_pattern": "layers"}), &[Q]),
        (json!({"layers_to_transform": [0, 1], "layers_pattern": ["h", "layers"]}), &[Q, V]),
        (json!({"layers_to_transform": []}), &[Q, V]),
    ] {
        assert_eq!(used(&with(fields.clone())), want, "{fields}");
    }
}

/// An expression sees the path as the file has it, which is the one of the model that was trained.
#[test]
fn multimodal_names_are_matched_as_they_are() {
    for outer in
        ["model.model.language_model.layers", "model.language_model.model.layers", "model.language_model.layers"]
    {
        for (fields, want) in [
            (json!({}), &[Q, V][..]),
            (json!({"target_modules": r".*language_model.*\.(q|v)_proj"}), &[Q, V]),
            (json!({"target_modules": r"^(?!.*vision_tower).*(?:q_proj|v_proj)$"}), &[Q, V]),
            (json!({"exclude_modules": r".*language_model.*layers\.1\..*"}), &[Q]),
            (json!({"layers_to_transform": [1], "layers_pattern": "layers"}), &[V]),
            (json!({"alpha_pattern": {"^model.layers.0.self_attn.q_proj": 64}}), &[Q, V]),
        ] {
            assert_eq!(used(&multimodal(fields.clone(), outer)), want, "{outer} {fields}");
        }
    }
}

#[test]
fn patterns_of_ranks_and_alphas() {
    let alpha = |key: &str| used(&with(json!({"alpha_pattern": {key: 64}})));
    let (q, v) = ((Part::AttnQ, 0, 16.0), (Part::AttnV, 1, 16.0));
    for (key, want) in [
        ("q_proj", [q, V]),
        ("^q_proj", [Q, V]),
        ("_proj", [Q, V]),
        (".*_proj", [q, v]),
        ("layers.[01].*(q|v)_proj", [q, v]),
        ("^model\\.layers\\.1\\..*", [Q, v]),
        ("(?!q)\\w_proj", [Q, v]),
    ] {
        assert_eq!(alpha(key), want, "{key}");
    }
    // The first key that matches counts, in the file's order.
    let ordered = |text: &str| used(&with(json!({"alpha_pattern": serde_json::from_str::<Value>(text).unwrap()})));
    assert_eq!(ordered(r#"{".*": 64, "q_proj": 8}"#), [q, v]);
    assert_eq!(ordered(r#"{"q_proj": 8, ".*": 64}"#), [Q, v]);
    let both = with(json!({"r": 2, "use_rslora": true, "rank_pattern": {"layers.\\d+.self_attn.[qv]_proj": 4}}));
    assert_eq!(used(&both), [(Part::AttnQ, 0, 4.0), (Part::AttnV, 1, 4.0)]);
}

/// What PEFT passes over is passed over, and said.
#[test]
fn what_is_not_used_is_said() {
    let notes = |adapter: &Adapter| adapter.open().notes;
    assert!(notes(&peft()).is_empty());
    let strange = "base_model.model.model.layers.1.self_attn.z_proj.lora_A.weight";
    let more = peft().weights(|w| {
        let tower = "base_model.model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj";
        let w = w.add_f32(strange, &[4, 32]).add_f32("extra", &[1]);
        w.add_f32(&format!("{tower}.lora_A.weight"), &[4, 8]).add_f32(&format!("{tower}.lora_B.weight"), &[8, 4])
    });
    assert_eq!(
        notes(&more),
        [
            format!("2 of its tensors belong to nothing in this model and are not used: \"{strange}\", .."),
            "2 tensors of the image encoder are not used".to_string(),
        ]
    );
    assert_eq!(
        notes(&with(json!({"target_modules": ["v_proj", "k_proj", "qq_proj"]}))),
        [
            "2 tensors are not used, because adapter_config.json does not choose their modules: \
             \"model.layers.0.self_attn.q_proj\"",
            "target_modules names \"k_proj\", and adapter_model.safetensors has no matrices for it",
            "target \"qq_proj\" matches no layer (did you mean \"q_proj\"?)",
        ]
    );
}

const HEAD: &str = "base_model.model.lm_head.weight";
const EMBEDDING: &str = "base_model.model.model.embed_tokens.weight";

/// (5, 32) is the vocabulary of the model, whose head is its embedding.
fn saved(names: Value, tensors: &[&str]) -> Adapter {
    let add = |adapter: Adapter, name: &&str| adapter.weights(|w| w.add_f32(name, &[5, 32]));
    tensors.iter().fold(with(json!({"modules_to_save": names})), add)
}

#[test]
fn tables_replace_the_bases() {
    let has = |adapter: Adapter| {
        let tables = adapter.open().tables;
        (tables.embedding.is_some(), tables.head.is_some(), tables.each().count())
    };
    assert_eq!(has(peft()), (false, false, 0));
    assert_eq!(has(saved(json!(["lm_head"]), &[HEAD])), (false, true, 1));
    assert_eq!(has(saved(json!(["embed_tokens"]), &[EMBEDDING])), (true, false, 1));
    assert_eq!(has(saved(json!(["model.embed_tokens", "lm_head"]), &[EMBEDDING, HEAD])), (true, true, 2));
    // Saved without being named: written over the base's one table.
    assert_eq!(has(saved(Value::Null, &[EMBEDDING])), (true, true, 1));
    let tied = saved(json!(["embed_tokens"]), &[EMBEDDING]).config("ensure_weight_tying", json!(true));
    assert_eq!(has(tied), (true, true, 1));
    // Names of no module of this model are nothing, as in PEFT.
    assert_eq!(has(saved(json!(["classifier", "score"]), &[])), (false, false, 0));
    let raw = "base_model.model.lm_head.modules_to_save.default.weight";
    assert_eq!(
        has(saved(json!(["lm_head"]), &[raw, "base_model.model.lm_head.original_module.weight"])),
        (false, true, 1)
    );
    // The adapter of a module that is saved whole is left out.
    assert_eq!(saved(json!(["lm_head"]), &[HEAD]).open().targets.len(), 2);
    let other = saved(json!(["lm_head"]), &[HEAD]).open().fingerprint();
    assert!(other != peft().open().fingerprint());
}

#[test]
fn expressions_that_cannot_be_used() {
    let config = |key: &str, value: Value, message: &str| in_config("C52", peft().config(key, value), message);
    run(vec![
        config(
            "target_modules",
            json!("(q_proj"),
            "target_modules \"(q_proj\" is not a regular expression that can be used: Opening parenthesis without closing parenthesis",
        ),
        config(
            "exclude_modules",
            json!("*"),
            "exclude_modules \"*\" is not a regular expression that can be used: Target of \
             repeat operator is invalid",
        ),
        config("target_modules", json!("a".repeat(20_000)), &format!(
            "target_modules \"{}..\" has 20000 bytes; at most 16384",
            "a".repeat(80)
        )),
        config(
            "target_modules",
            json!("(?=m|)((\\w|\\.)*)*(?<=y)!"),
            "target_modules \"(?=m|)((\\w|\\.)*)*(?<=y)!\": Error executing regex: Max limit for backtracking count exceeded",
        ),
        config("layers_to_transform", json!(["1"]), "layers_to_transform holds \"1\"; numbers of layers expected"),
        config("layers_pattern", json!("layers"), "layers_pattern needs layers_to_transform"),
        in_config(
            "C52",
            with(json!({"target_modules": "all-linear", "layers_to_transform": [1]})),
            "layers_to_transform needs a list of names as target_modules",
        ),
    ]);
    let many: serde_json::Map<_, _> = (0..1100).map(|i| (format!("m{i}"), json!(4))).collect();
    run(vec![config("rank_pattern", json!(many), "rank_pattern holds 1100 keys; at most 1024")]);
}

#[test]
fn tables_that_cannot_be_used() {
    let shaped =
        |shape: &'static [usize]| with(json!({"modules_to_save": ["lm_head"]})).weights(|w| w.add_f32(HEAD, shape));
    let mut nan = vec![0u8; 640];
    nan[636..].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let norm = "base_model.model.model.layers.0.input_layernorm.weight";
    let whole = "a whole weight other than the head's and the embedding's (modules_to_save, bias) is not supported";
    let other = "the adapter was made for a model with another vocabulary or width";
    run(vec![
        in_weights("C55", shaped(&[6, 32]), &format!("\"{HEAD}\" is 6 x 32; the model's is 5 x 32: {other}")),
        in_weights("C55", shaped(&[160]), &format!("\"{HEAD}\" is 160; the model's is 5 x 32: {other}")),
        in_weights(
            "C56",
            saved(json!(["lm_head"]), &[]),
            &format!("modules_to_save names \"lm_head\", and adapter_model.safetensors has no \"{HEAD}\""),
        ),
        in_weights(
            "C56",
            saved(json!(["norm"]), &[]),
            "modules_to_save \"norm\" (model.layers.0.input_layernorm) is not supported: embed_tokens and lm_head are",
        ),
        in_weights("C56", peft().weights(|w| w.add_f32(norm, &[32])), &format!("\"{norm}\": {whole}")),
        in_weights(
            "C56",
            peft().weights(|w| w.add_f32(&format!("{Q0}.base_layer.weight"), &[32, 32])),
            &format!("\"{Q0}.base_layer.weight\": {whole}"),
        ),
        in_weights(
            "C56",
            peft().weights(|w| w.add_f32(&format!("{V1}.lora_B.bias"), &[16])),
            &format!("\"{V1}.lora_B.bias\": lora_bias is not supported"),
        ),
        in_weights(
            "C56",
            peft().weights(|w| w.add_f32("base_model.model.model.embed_tokens.lora_embedding_A", &[4, 5])),
            "\"base_model.model.model.embed_tokens.lora_embedding_A\": an adapter of the embedding is not supported",
        ),
        in_weights(
            "C56",
            peft().weights(|w| w.set(HEAD, "F32", &[5, 32], nan.clone())),
            &format!("\"{HEAD}\": 1 value is not finite"),
        ),
        in_weights(
            "C56",
            peft().weights(|w| w.set(HEAD, "I8", &[5, 32], vec![0; 160])),
            &format!("\"{HEAD}\" is I8; F32, F16 or BF16 is needed"),
        ),
        in_weights(
            "C54",
            saved(json!(["lm_head"]), &[HEAD, "base_model.model.lm_head.modules_to_save.default.weight"]),
            &format!("\"base_model.model.lm_head.modules_to_save.default.weight\" and \"{HEAD}\" are the same matrix"),
        ),
    ]);
}

/// The number of keys and modules bounds the time: a config as programs write it that choose a rank for every module.
#[test]
fn a_key_for_every_module_is_read_in_time() {
    let keys: serde_json::Map<_, _> =
        (0..448).map(|i| (format!("model.layers.{}.mlp.up_proj{}", i / 7, i % 7), json!(16))).collect();
    let adapter = with(json!({"rank_pattern": keys, "alpha_pattern": keys}));
    let start = std::time::Instant::now();
    assert_eq!(used(&adapter), [Q, V]);
    assert!(start.elapsed() < std::time::Duration::from_secs(2), "{:?}", start.elapsed());
}
