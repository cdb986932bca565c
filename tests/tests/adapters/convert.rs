use std::path::Path;

use half::f16;
use lichen_host_tools::adapter::{convert, Options, Report, Target};
use lichen_host_tools::quantize::Progress;
use lichen_runtime::files::adapter_file::{AdapterFile, CONFIG_FILE};
use lichen_runtime::files::formats::gguf::Gguf;
use lichen_runtime::files::mapped_file::MappedFile;
use lichen_runtime::{Error, Result};
use lichen_tests::models::{fixture, temp_dir};
use serde_json::{json, Value};

use crate::{config_of, copy_folder, logits_of, names, open, peft_tensors, write_peft, PAIRS};

fn run(adapter: &Path, model: &str, out: &Path, target: Target) -> Result<Report> {
    let (adapter, out) = (adapter.to_path_buf(), out.to_path_buf());
    convert(&Options { adapter, model: fixture(model), out, target }, &mut ())
}

fn converted(adapter: &Path, model: &str, out: &Path, target: Target) -> Report {
    run(adapter, model, out, target).unwrap_or_else(|e| panic!("{e}"))
}

fn same_bits(a: &AdapterFile, b: &AdapterFile) -> bool {
    (&a.targets, &a.base_name) == (&b.targets, &b.base_name) && a.fingerprint() == b.fingerprint()
}

#[test]
fn there_and_back_is_the_same_adapter() {
    let dir = temp_dir("adapters-round");
    for (model, lora) in PAIRS {
        let config = config_of(model);
        let (gguf, peft) = (dir.join(format!("{lora}.gguf")), dir.join(lora));
        let report = converted(&fixture(lora), model, &gguf, Target::GgufF32);
        assert_eq!((report.matrices, report.matrices_folded, report.alpha), (7 * config.n_layers, 0, 8.0));
        assert_eq!(report.out_bytes, std::fs::metadata(&gguf).unwrap().len());
        assert_eq!((report.relative_squared_error, report.notes.len()), (0.0, 0));
        let original = open(&fixture(lora), &config);
        assert!(same_bits(&open(&gguf, &config), &original), "{lora}");
        converted(&gguf, model, &peft, Target::Peft);
        assert!(same_bits(&open(&peft, &config), &original), "{lora}");
        let logits = logits_of(&fixture(model), Some(&fixture(lora)));
        assert_eq!(logits_of(&fixture(model), Some(&gguf)), logits);
        // A GGUF model serves as well to say what the shapes are, and gives the same file.
        let again = dir.join(format!("again/{lora}.gguf"));
        std::fs::create_dir_all(again.parent().unwrap()).unwrap();
        converted(&peft, &format!("{model}/{model}-q8_0.gguf"), &again, Target::GgufF32);
        assert!(std::fs::read(&again).unwrap() == std::fs::read(&gguf).unwrap(), "{lora}");
    }
}

/// What llama.cpp's loader asks for, by its names.
#[test]
fn a_gguf_adapter_says_what_it_is() {
    let dir = temp_dir("adapters-keys");
    let out = dir.join("my.gguf");
    converted(&fixture("tiny-gemma3-lora"), "tiny-gemma3", &out, Target::GgufF32);
    let gguf = Gguf::parse(MappedFile::open(&out).unwrap()).unwrap_or_else(|e| panic!("{e}"));
    let string = |key: &str| gguf.metadata().string(key).unwrap().unwrap_or_else(|| panic!("no {key}")).to_string();
    for (key, want) in [
        ("general.architecture", "gemma3"),
        ("general.type", "adapter"),
        ("general.name", "my"),
        ("general.base_model.0.name", "tiny-gemma3"),
        ("adapter.type", "lora"),
    ] {
        assert_eq!(string(key), want, "{key}");
    }
    assert_eq!(gguf.metadata().float("adapter.lora.alpha").unwrap(), Some(8.0));
    assert_eq!(gguf.metadata().integer("general.file_type", 0, 100).unwrap(), Some(0));
    let tensors: Vec<(&str, &[usize])> = gguf.tensors().iter().map(|t| (t.name.as_str(), t.shape())).collect();
    assert_eq!(tensors.len(), 2 * 49);
    // (rank, inputs), then (outputs, rank): 4 heads of 32 over a width of 64.
    assert_eq!(tensors[..2], [("blk.0.attn_q.weight.lora_a", &[4, 64][..]), ("blk.0.attn_q.weight.lora_b", &[128, 4])]);
    assert_eq!(tensors[97], ("blk.6.ffn_down.weight.lora_b", &[64, 4][..]));
}

/// Alphas by module, ranks by module, and rank-stabilised scales: the product of scale and B stays, to two roundings.
#[test]
fn scales_that_differ_are_multiplied_into_b() {
    let dir = temp_dir("adapters-fold");
    let config = config_of("tiny-gemma3");
    let cases: [(&str, Value, usize, f32); 4] = [
        ("alpha", json!({"alpha_pattern": {"q_proj": 3, "layers.2.mlp.down_proj": 0.7}}), 8, 8.0),
        // The 42 others are the more.
        ("most", json!({"lora_alpha": 5, "alpha_pattern": {"v_proj": 16}}), 7, 5.0),
        ("stabilised", json!({"use_rslora": true}), 0, 16.0),
        ("fraction", json!({"lora_alpha": 0.3}), 0, 0.3),
    ];
    for (name, fields, n_folded, alpha) in cases {
        let folder = copy_folder(&fixture("tiny-gemma3-lora"), dir.join(name));
        let mut value: Value = serde_json::from_slice(&std::fs::read(folder.join(CONFIG_FILE)).unwrap()).unwrap();
        value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        std::fs::write(folder.join(CONFIG_FILE), value.to_string()).unwrap();
        let want = open(&folder, &config);
        for (target, out) in [(Target::GgufF32, format!("{name}.gguf")), (Target::Peft, format!("{name}-peft"))] {
            let report = converted(&folder, "tiny-gemma3", &dir.join(&out), target);
            assert_eq!((report.matrices_folded, report.alpha), (n_folded, alpha), "{out}");
            let note = format!("{n_folded} of 49 pairs have another scale than alpha {alpha} gives");
            assert_eq!(report.notes.iter().any(|n| n.starts_with(&note)), n_folded > 0, "{:?}", report.notes);
            check_products(&open(&dir.join(&out), &config), &want, &out);
        }
    }
    // Ranks that differ under one alpha need no multiplication: both formats divide by each pair's own.
    let mut targets = open(&fixture("tiny-gemma3-lora"), &config).targets;
    for target in targets.iter_mut().step_by(3) {
        let (inputs, outputs) = (target.a.len() / 4, target.b.len() / 4);
        target.rank = 3;
        target.a.truncate(3 * inputs);
        target.b.truncate(3 * outputs);
        target.scale = 8.0 / 3.0;
    }
    write_peft(&dir.join("ranks"), &config, 4, 8.0, &peft_tensors(&targets));
    converted(&dir.join("ranks"), "tiny-gemma3", &dir.join("ranks.gguf"), Target::GgufF32);
    let report = converted(&dir.join("ranks.gguf"), "tiny-gemma3", &dir.join("back"), Target::Peft);
    assert_eq!((report.matrices_folded, report.rank_max), (0, 4));
    assert!(open(&dir.join("back"), &config).targets == targets);
}

fn check_products(got: &AdapterFile, want: &AdapterFile, case: &str) {
    assert_eq!(got.targets.len(), want.targets.len());
    for (got, want) in got.targets.iter().zip(&want.targets) {
        assert_eq!((got.part, got.layer, got.rank), (want.part, want.layer, want.rank));
        assert!(got.a == want.a, "{case}: A of {:?} {}", got.part, got.layer);
        for (a, b) in got.b.iter().zip(&want.b) {
            let (a, b) = (*a as f64 * got.scale as f64, *b as f64 * want.scale as f64);
            // Half a unit in the last place each for B and for the scale the file implies.
            assert!(
                (a - b).abs() <= b.abs() * f32::EPSILON as f64,
                "{case}: {:?} {}: {a} for {b}",
                got.part,
                got.layer
            );
        }
    }
}

#[test]
fn f16_rounds_and_says_by_how_much() {
    let dir = temp_dir("adapters-f16");
    let config = config_of("tiny-gemma3");
    let out = dir.join("a.gguf");
    let report = converted(&fixture("tiny-gemma3-lora"), "tiny-gemma3", &out, Target::GgufF16);
    // Half a unit in the last place of 11 bits is 2^-11 of a value at most.
    assert!(report.relative_squared_error > 0.0 && report.relative_squared_error <= 2f64.powi(-22), "{report:?}");
    let mut want = open(&fixture("tiny-gemma3-lora"), &config);
    for target in &mut want.targets {
        let round = |v: &mut f32| *v = f16::from_f32(*v).to_f32();
        target.a.iter_mut().chain(&mut target.b).for_each(round);
    }
    assert!(same_bits(&open(&out, &config), &want));

    want.targets[5].a[1] = 70_000.0;
    write_peft(&dir.join("large"), &config, 4, 8.0, &peft_tensors(&want.targets));
    let error = run(&dir.join("large"), "tiny-gemma3", &dir.join("b.gguf"), Target::GgufF16).expect_err("too large");
    let message = "\"blk.0.ffn_up.weight.lora_a\" holds values too large for F16: take --out-type f32";
    assert_eq!(error.message(), format!("{}: {message}", dir.join("large").display()));
    assert_eq!(names(&dir), ["a.gguf", "large"]);
}

/// Ends the work after a number of steps.
struct StopAfter(usize);

impl Progress for StopAfter {
    fn start(&mut self, _total: u64) {}

    fn advance(&mut self, _values: u64) -> Result<()> {
        match self.0.checked_sub(1) {
            Some(left) => self.0 = left,
            None => return Err(Error::input("stopped")),
        }
        Ok(())
    }
}

#[test]
fn what_is_stopped_leaves_nothing_and_nothing_is_overwritten() {
    let dir = temp_dir("adapters-stop");
    for (target, name) in [(Target::GgufF32, "a.gguf"), (Target::Peft, "a")] {
        let adapter = fixture("tiny-gemma3-lora");
        let options = Options { adapter, model: fixture("tiny-gemma3"), out: dir.join(name), target };
        for n in [0, 1, 40] {
            assert_eq!(convert(&options, &mut StopAfter(n)).expect_err("stopped").message(), "stopped");
            assert_eq!(names(&dir), [""; 0], "{name} after {n}");
        }
        std::fs::write(dir.join(name), b"precious").unwrap();
        let error = convert(&options, &mut ()).expect_err("taken");
        assert!(error.message().ends_with("already exists: choose another name or remove it first"), "{error}");
        assert_eq!(std::fs::read(dir.join(name)).unwrap(), b"precious");
        std::fs::remove_file(dir.join(name)).unwrap();
    }
}

/// Adapters of llama.cpp's converter name no alpha at times, and no base.
#[test]
fn a_base_without_a_name_gets_the_models() {
    let dir = temp_dir("adapters-nameless");
    let config = config_of("tiny-gemma3");
    let folder = copy_folder(&fixture("tiny-gemma3-lora"), dir.join("a"));
    let mut value: Value = serde_json::from_slice(&std::fs::read(folder.join(CONFIG_FILE)).unwrap()).unwrap();
    value["base_model_name_or_path"] = Value::Null;
    std::fs::write(folder.join(CONFIG_FILE), value.to_string()).unwrap();
    converted(&folder, "tiny-gemma3", &dir.join("a.gguf"), Target::GgufF32);
    assert_eq!(open(&dir.join("a.gguf"), &config).base_name, None);
    let report = converted(&dir.join("a.gguf"), "tiny-gemma3", &dir.join("b"), Target::Peft);
    assert_eq!(report.notes, ["the adapter does not say what its base is called: written as \"tiny-gemma3\""]);
    assert_eq!(open(&dir.join("b"), &config).base_name.as_deref(), Some("tiny-gemma3"));
}
