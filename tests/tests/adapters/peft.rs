use std::collections::HashMap;

use lichen_runtime::files::adapter_file::{AdapterTarget, PeftAdapter, PeftConfig, WEIGHTS_FILE};
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::model::adapter::TARGETS;
use lichen_runtime::{ModelConfig, Part};
use lichen_tests::models::{fixture, temp_dir};
use safetensors::SafeTensors;

use crate::{config_of, open, peft_tensors, write_peft, PAIRS};

/// Pairs with values from all of f32's range, the awkward ones among them.
fn pairs(config: &ModelConfig, of: &[(Part, usize)], rank: usize, alpha: f32) -> Vec<AdapterTarget> {
    const AWKWARD: [f32; 6] = [-0.0, f32::MAX, f32::MIN_POSITIVE, 1e-45, -1.0, 0.1];
    let mut state = 1u32;
    let mut values = |n: usize| -> Vec<f32> {
        let mut next = |i: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if i % 11 < AWKWARD.len() {
                AWKWARD[i % 11]
            } else {
                (state >> 8) as f32 / 65536.0 - 128.0
            }
        };
        (0..n).map(&mut next).collect()
    };
    let mut pair = |(part, layer): &(Part, usize)| {
        let PartShape::Matrix(outputs, inputs) = part.shape(config) else { panic!("{part:?}") };
        let (a, b) = (values(rank * inputs), values(outputs * rank));
        AdapterTarget { part: *part, layer: *layer, rank, scale: alpha / rank as f32, a, b }
    };
    of.iter().map(&mut pair).collect()
}

/// A name, the matrices, rank and alpha.
type Written<'a> = (&'a str, &'a [(Part, usize)], usize, f32);

#[test]
fn what_is_written_is_read_bit_for_bit() {
    let dir = temp_dir("adapters-peft");
    for (model, _) in PAIRS {
        let config = config_of(model);
        let all: Vec<(Part, usize)> = (0..config.n_layers).flat_map(|layer| TARGETS.map(|p| (p, layer))).collect();
        let of_parts = |parts: &[Part]| -> Vec<_> { all.iter().copied().filter(|t| parts.contains(&t.0)).collect() };
        let q_and_v = of_parts(&[Part::AttnQ, Part::AttnV]);
        let cases: [Written; 6] = [
            ("all", &all, 16, 32.0),
            ("rank-1", &all, 1, 0.1),
            ("rank-7", &of_parts(&[Part::FfnDown]), 7, 7.3),
            ("rank-33", &q_and_v, 33, 1e10),
            ("last-layer", &all[all.len() - 7..], 3, 16.0),
            ("one", &[(Part::AttnOutput, 1)], 5, 1e-30),
        ];
        for (name, of, rank, alpha) in cases {
            let want = pairs(&config, of, rank, alpha);
            let folder = dir.join(format!("{model}-{name}"));
            let bytes = write_peft(&folder, &config, rank, alpha, &peft_tensors(&want));
            let got = open(&folder, &config);
            assert_eq!(got.base_name.as_deref(), Some("base"));
            let bits = |targets: &[AdapterTarget]| -> Vec<(Part, usize, usize, u32, Vec<u32>)> {
                let values = |t: &AdapterTarget| t.a.iter().chain(&t.b).map(|v| v.to_bits()).collect();
                targets.iter().map(|t| (t.part, t.layer, t.rank, t.scale.to_bits(), values(t))).collect()
            };
            assert!(bits(&got.targets) == bits(&want), "{model} {name}");
            let files = std::fs::read_dir(&folder).unwrap().map(|f| f.unwrap().metadata().unwrap().len());
            assert_eq!(files.sum::<u64>(), bytes, "{model} {name}");
        }
    }
}

/// Ranks that differ stand in the config, so nothing is padded.
#[test]
fn pairs_of_other_ranks_are_named() {
    let dir = temp_dir("adapters-ranks");
    let config = config_of("tiny-gemma3");
    let mut want = pairs(&config, &[(Part::AttnQ, 0), (Part::AttnQ, 1), (Part::FfnUp, 1)], 4, 12.0);
    want.extend(pairs(&config, &[(Part::FfnUp, 3)], 3, 12.0));
    write_peft(&dir.join("a"), &config, 4, 12.0, &peft_tensors(&want));
    assert!(open(&dir.join("a"), &config).targets == want);
}

#[test]
fn bytes_do_not_depend_on_the_order_of_pairs() {
    let config = config_of("tiny-gemma3");
    let file = open(&fixture("tiny-gemma3-lora"), &config);
    let tensors = peft_tensors(&file.targets);
    let reversed: Vec<_> = tensors.iter().rev().copied().collect();
    let metadata = [("lichen.step", "120".to_string()), ("lichen.data", "a \"file\"\n".to_string())];
    let adapter = PeftAdapter {
        config: &config,
        rank: 4,
        alpha: 8.0,
        dropout: 0.05,
        base_name: "google/gemma-3-1b-it",
        tensors: &tensors,
        metadata: &metadata,
    };
    let other = PeftAdapter { tensors: &reversed, ..adapter };
    let written = |adapter: &PeftAdapter| {
        let mut bytes = Vec::new();
        adapter.write_tensors(&mut bytes).expect("memory takes all");
        bytes
    };
    let bytes = written(&adapter);
    assert_eq!(bytes.len() as u64, adapter.tensors_len());
    assert!(bytes == written(&other));
    assert_eq!((adapter.config_json(), adapter.readme()), (other.config_json(), other.readme()));

    // The reference reader finds what PEFT itself wrote, and our provenance beside the format.
    let theirs = std::fs::read(fixture("tiny-gemma3-lora").join(WEIGHTS_FILE)).unwrap();
    let (ours, theirs) = (SafeTensors::deserialize(&bytes).unwrap(), SafeTensors::deserialize(&theirs).unwrap());
    assert_eq!(ours.len(), theirs.len());
    for (name, want) in theirs.iter() {
        let got = ours.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(got == want, "{name}");
    }
    let (_, head) = SafeTensors::read_metadata(&bytes).unwrap();
    let want = [("format", "pt"), ("lichen.step", "120"), ("lichen.data", "a \"file\"\n")];
    let want: HashMap<String, String> = want.into_iter().map(|(k, v)| (k.into(), v.into())).collect();
    assert_eq!(head.metadata(), &Some(want));
}

const CONFIG: &str = r#"{
  "peft_type": "LORA",
  "task_type": "CAUSAL_LM",
  "base_model_name_or_path": "google/gemma-3-1b-it",
  "r": 4,
  "lora_alpha": 8,
  "lora_dropout": 0.05,
  "bias": "none",
  "target_modules": [
    "q_proj",
    "k_proj",
    "v_proj",
    "o_proj",
    "gate_proj",
    "up_proj",
    "down_proj"
  ],
  "fan_in_fan_out": false,
  "inference_mode": true,
  "init_lora_weights": true,
  "use_rslora": false,
  "rank_pattern": {},
  "alpha_pattern": {},
  "modules_to_save": null
}
"#;

#[test]
fn the_config_is_minimal() {
    let config = config_of("tiny-gemma3");
    let file = open(&fixture("tiny-gemma3-lora"), &config);
    let tensors = peft_tensors(&file.targets);
    let base_name = "google/gemma-3-1b-it";
    let adapter = PeftAdapter {
        config: &config,
        rank: 4,
        alpha: 8.0,
        dropout: 0.05,
        base_name,
        tensors: &tensors,
        metadata: &[],
    };
    assert_eq!(adapter.config_json(), CONFIG);
    let card = adapter.readme();
    assert!(card.starts_with("---\nlibrary_name: peft\nbase_model: \"google/gemma-3-1b-it\"\n"), "{card}");
    assert!(card.contains("Rank 4, alpha 8, "), "{card}");
    // A module that not every layer has is named whole: PEFT would look for the others.
    let (q0, down) = (tensors[0], tensors[7 + 6]);
    let some = [down, q0];
    let text = PeftAdapter { tensors: &some, rank: 8, alpha: 0.5, ..adapter }.config_json();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let modules = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"];
    assert_eq!(value["target_modules"], serde_json::json!(modules));
    assert_eq!(value["rank_pattern"], serde_json::json!({modules[1]: 4, modules[0]: 4}));
    assert_eq!(value["lora_alpha"], 0.5);
    let read = PeftConfig::read(&value).unwrap_or_else(|e| panic!("{e}"));
    let ranks: Vec<_> = read.rules(&[modules[0], "model.layers.2.mlp.down_proj"]).unwrap();
    assert_eq!(ranks.iter().map(|rule| (rule.rank, rule.is_target)).collect::<Vec<_>>(), [(4, true), (8, false)]);
}

/// Layers that all have the same modules are listed, in the field that PEFT has for it.
#[test]
fn some_layers_are_listed() {
    let config = config_of("tiny-gemma3");
    let file = open(&fixture("tiny-gemma3-lora"), &config);
    let of_layers = |layers: &[usize], parts: &[Part]| {
        let chosen = peft_tensors(&file.targets).into_iter();
        chosen.filter(|t| layers.contains(&t.layer) && parts.contains(&t.part)).collect::<Vec<_>>()
    };
    let dir = temp_dir("adapters-layers");
    for (i, (layers, parts)) in
        [(&[4, 6][..], &TARGETS[..]), (&[5], &[Part::AttnQ, Part::FfnUp])].into_iter().enumerate()
    {
        let tensors = of_layers(layers, parts);
        let folder = dir.join(i.to_string());
        write_peft(&folder, &config, 4, 8.0, &tensors);
        let text = std::fs::read(folder.join("adapter_config.json")).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(value["layers_to_transform"], serde_json::json!(layers));
        assert_eq!(value["layers_pattern"], "layers");
        assert_eq!(value["target_modules"].as_array().unwrap().len(), parts.len());
        let read = open(&folder, &config);
        assert!(read.notes.is_empty(), "{:?}", read.notes);
        assert_eq!(read.targets.len(), layers.len() * parts.len());
        assert!(read.targets.iter().all(|t| layers.contains(&t.layer) && t.scale == 2.0));
    }
}

/// A diverged training must not replace its last good adapter by one that nobody can read.
#[test]
fn values_that_are_not_finite_are_refused_before_a_byte_is_written() {
    let dir = temp_dir("adapters-nan");
    let config = config_of("tiny-qwen2-tied");
    for bad in [f32::NAN, f32::INFINITY] {
        let good = pairs(&config, &[(Part::AttnK, 0), (Part::FfnGate, 2)], 2, 4.0);
        let mut diverged = good.clone();
        diverged[1].b[3] = bad;
        let folder = dir.join(format!("{bad}"));
        write_peft(&folder, &config, 2, 4.0, &peft_tensors(&good));
        let tensors = peft_tensors(&diverged);
        let adapter = PeftAdapter {
            config: &config,
            rank: 2,
            alpha: 4.0,
            dropout: 0.0,
            base_name: "x",
            tensors: &tensors,
            metadata: &[],
        };
        let mut out = Vec::new();
        let error = adapter.write_tensors(&mut out).expect_err("not finite").to_string();
        let n = good[1].b.len();
        assert_eq!(
            error,
            format!("\"base_model.model.model.layers.2.mlp.gate_proj.lora_B.weight\": 1 of {n} values not finite")
        );
        assert!(out.is_empty());
        adapter.write_into(&folder).expect_err("not finite");
        assert!(open(&folder, &config).targets == good, "the good one is there");
        assert_eq!(crate::names(&folder).len(), 3);
    }
}
