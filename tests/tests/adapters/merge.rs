use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_host_tools::quantize::{run, run_merged, Options, Progress, Report, Target, SHARD_BYTES_MAX};
use lichen_runtime::engine::AdapterPath;
use lichen_runtime::files::adapter_file::AdapterTarget;
use lichen_runtime::files::formats::gguf::Gguf;
use lichen_runtime::files::formats::safetensors::{Dtype, SafeTensors};
use lichen_runtime::files::formats::safetensors_write::{write_file, NewTensor};
use lichen_runtime::files::mapped_file::MappedFile;
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::{Architecture, Error, ModelSource, Part, Result};
use lichen_tests::models::{fixture, limits, load, logits, max_difference, session, temp_dir, Golden};
use serde_json::Value;

use crate::{config_of, copy_folder, logits_of, names, open, peft_tensors, write_peft, PAIRS};

const GGUF: [Target; 5] = [Target::Q8_0, Target::Q4_0, Target::F16, Target::Bf16, Target::F32];

fn options(model: &Path, target: Target, out: &Path) -> Options {
    let (model, out) = (model.to_path_buf(), out.to_path_buf());
    Options { model, target, out, name: Some("merged".into()), shard_bytes_max: SHARD_BYTES_MAX, split_bytes_max: None }
}

fn quantized(model: &Path, target: Target, out: &Path) {
    run(&options(model, target, out), &mut ()).unwrap_or_else(|e| panic!("{e}"));
}

fn merged(model: &Path, adapter: &Path, scale: f32, target: Target, out: &Path) -> Report {
    let adapter = AdapterPath { path: adapter.to_path_buf(), scale };
    run_merged(&options(model, target, out), &adapter, false, &mut ()).unwrap_or_else(|e| panic!("{e}"))
}

fn open_gguf(path: &Path) -> Gguf {
    let file: Arc<MappedFile> = MappedFile::open(path).unwrap_or_else(|e| panic!("{e}"));
    Gguf::parse(file).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// `W + scale * B A` one value at a time: the sum over the rank, in order, then the weight.
fn add_pair(values: &mut [f32], pair: &AdapterTarget, scale: f32) {
    let AdapterTarget { rank, a, b, .. } = pair;
    let cols = a.len() / rank;
    for (i, value) in values.iter_mut().enumerate() {
        let (row, col) = (i / cols, i % cols);
        let mut sum = 0.0;
        for r in 0..*rank {
            sum += b[row * rank + r] * (pair.scale * scale) * a[r * cols + col];
        }
        *value += sum;
    }
}

/// The folder of `model` (in F32) with the weights of `weights` (in any format), the adapter's added.
fn merged_by_hand(model: &Path, weights: &Path, adapter: &Path, scale: f32, to: PathBuf) -> PathBuf {
    let folder = copy_folder(model, to);
    let source = ModelSource::open(weights).unwrap_or_else(|e| panic!("{e}"));
    let config = source.config();
    let pairs = open(adapter, config).targets;
    let mut stored = Vec::new();
    for (part, layer) in Part::of_model(config) {
        let (shape, mut values) = match part.shape(config) {
            PartShape::Vector(n) => {
                let offset = if part.is_norm() && config.architecture == Architecture::Gemma3 { 1.0 } else { 0.0 };
                (vec![n], source.vector(part, layer).unwrap().iter().map(|v| v - offset).collect())
            }
            PartShape::Matrix(rows, cols) => {
                let mut values = vec![0.0; rows * cols];
                source.matrix(part, layer).unwrap().decode_rows(0..rows, &mut values);
                (vec![rows, cols], values)
            }
        };
        if let Some(pair) = pairs.iter().find(|p| p.part == part && Some(p.layer) == layer) {
            add_pair(&mut values, pair, scale);
        }
        let name = part.hf_name(config.architecture, layer);
        let name = if part == Part::Output { name } else { format!("model.{name}") };
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        stored.push((NewTensor::new(name, Dtype::F32, &shape), bytes));
    }
    let list: Vec<(NewTensor, &[u8])> = stored.iter().map(|(t, b)| (t.clone(), b.as_slice())).collect();
    write_file(&folder.join("model.safetensors"), &list, &[]).unwrap_or_else(|e| panic!("{e}"));
    folder
}

/// Matrices of both files are the same bytes. Norms are not compared: the 1 that Gemma's files leave out rounds them.
fn assert_same_matrices(got: &Path, want: &Path, case: &str) {
    let (got, want) = (open_gguf(got), open_gguf(want));
    let matrices: Vec<_> = want.tensors().iter().filter(|t| t.shape().len() == 2).collect();
    assert!(matrices.len() > 20);
    for tensor in matrices {
        let ours = got.tensor(&tensor.name).unwrap_or_else(|| panic!("{case}: no {}", tensor.name));
        assert_eq!(ours.format, tensor.format, "{case}: {}", tensor.name);
        let same = got.tensor_bytes(ours).as_slice() == want.tensor_bytes(tensor).as_slice();
        assert!(same, "{case}: {} has other bytes", tensor.name);
    }
}

/// The same for NF4 folders: nibbles and scales of every layer, and the embedding.
fn assert_same_layers(got: &Path, want: &Path, case: &str) {
    let weights = |folder: &Path| {
        let file = MappedFile::open(&folder.join("model.safetensors")).unwrap_or_else(|e| panic!("{e}"));
        SafeTensors::parse(file).unwrap_or_else(|e| panic!("{e}"))
    };
    let (got, want) = (weights(got), weights(want));
    assert_eq!(got.tensors().len(), want.tensors().len());
    for tensor in want.tensors().iter().filter(|t| !t.name.ends_with("norm.weight")) {
        let ours = got.tensor(&tensor.name).unwrap_or_else(|| panic!("{case}: no {}", tensor.name));
        assert!(got.tensor_slice(ours) == want.tensor_slice(tensor), "{case}: {} has other bytes", tensor.name);
    }
}

/// Merged weights differ from exact ones by their rounding to f32, which is what a forward pass in f32 does to everything: the
/// bound is that of the logits with the adapter beside the weights (tests/parity.rs).
#[test]
fn merged_in_f32_it_says_what_peft_says() {
    let dir = temp_dir("merge-parity");
    for (base, lora) in PAIRS {
        let golden = Golden::open(&fixture(&format!("{lora}/golden.safetensors")));
        let out = dir.join(format!("{base}.gguf"));
        let report = merged(&fixture(base), &fixture(lora), 1.0, Target::F32, &out);
        let merge = report.merge.as_ref().expect("reported");
        let n = 7 * config_of(base).n_layers;
        assert_eq!((merge.matrices_merged, merge.matrices, merge.scale), (n, n, 1.0));
        assert!(report.formats.iter().all(|f| f.mean_squared_error == 0.0), "{:?}", report.formats);
        let (tokens, want) = (golden.ids("tokens"), golden.f32("logits"));
        let difference = |model: &Path| max_difference(&logits(&mut session(&load(model), limits(2)), &tokens), &want);
        let (with, without) = (difference(&out), difference(&fixture(base)));
        println!("{lora}: merged {with:.1e}, without {without:.1e}");
        assert!(with <= 1e-4, "{lora}: {with}");
        assert!(without > 0.1, "{lora}: the adapter changes nothing");
    }
}

/// Merging is adding, then the very conversion that `quantize` does: every matrix has the bytes that quantize makes of a
/// folder with the sums in it.
#[test]
fn merging_equals_quantising_the_sum() {
    let dir = temp_dir("merge-equals");
    for (base, lora) in PAIRS {
        for scale in [1.0, -0.5] {
            let sum = merged_by_hand(&fixture(base), &fixture(base), &fixture(lora), scale, dir.join("sum"));
            for target in GGUF {
                let (got, want) = (dir.join("got.gguf"), dir.join("want.gguf"));
                merged(&fixture(base), &fixture(lora), scale, target, &got);
                quantized(&sum, target, &want);
                assert_same_matrices(&got, &want, &format!("{base} {} {scale}", target.name()));
                std::fs::remove_file(got).unwrap();
                std::fs::remove_file(want).unwrap();
            }
            let (got, want) = (dir.join("got"), dir.join("want"));
            merged(&fixture(base), &fixture(lora), scale, Target::Nf4, &got);
            quantized(&sum, Target::Nf4, &want);
            assert_same_layers(&got, &want, &format!("{base} nf4 {scale}"));
            for folder in [sum, got, want] {
                std::fs::remove_dir_all(folder).unwrap();
            }
        }
    }
}

/// A format's rounding moves the logits of the merged model as far as it moves the base's own: the weights are of the same
/// size. Twice that is the bound, from the logits of the base with the adapter beside it.
#[test]
fn rounding_moves_a_merged_model_as_it_moves_its_base() {
    let dir = temp_dir("merge-rounding");
    for (base, lora) in PAIRS {
        let plain = logits_of(&fixture(base), None);
        let adapted = logits_of(&fixture(base), Some(&fixture(lora)));
        let effect = max_difference(&plain, &adapted);
        for target in [Target::Q8_0, Target::Nf4, Target::F16, Target::Bf16] {
            let (rounded, out) =
                (dir.join(format!("{base}-{}", target.name())), dir.join(format!("{lora}-{}", target.name())));
            quantized(&fixture(base), target, &rounded);
            merged(&fixture(base), &fixture(lora), 1.0, target, &out);
            let bound = 2.0 * max_difference(&plain, &logits_of(&rounded, None));
            let difference = max_difference(&adapted, &logits_of(&out, None));
            println!("{base} {}: {difference:.1e}, bound {bound:.1e}, the adapter moves {effect:.1e}", target.name());
            assert!(difference <= bound, "{base} {}: {difference} > {bound}", target.name());
            assert!(bound < effect, "{base} {}: the bound {bound} shows nothing", target.name());
        }
    }
}

/// A base that is quantised already: decoded, added to, rounded again, and the report says so.
#[test]
fn quantised_bases_are_decoded_added_to_and_rounded_again() {
    let dir = temp_dir("merge-quantised");
    let lora = fixture("tiny-gemma3-lora");
    let q8_0 = fixture("tiny-gemma3/tiny-gemma3-q8_0.gguf");
    let nf4 = fixture("tiny-gemma3-nf4");
    for (name, base) in [("q8_0", &q8_0), ("nf4", &nf4)] {
        let sum = merged_by_hand(&fixture("tiny-gemma3"), base, &lora, 1.0, dir.join(format!("{name}-sum")));
        for target in GGUF {
            let (got, want) = (dir.join(format!("{name}-got")), dir.join(format!("{name}-want")));
            let report = merged(base, &lora, 1.0, target, &got);
            let note = "49 of these matrices are quantised in the base: they were decoded, added to and rounded again";
            assert!(report.notes.iter().any(|n| n.starts_with(note)), "{:?}", report.notes);
            quantized(&sum, target, &want);
            assert_same_matrices(&got, &want, &format!("{name} to {}", target.name()));
            std::fs::remove_file(got).unwrap();
            std::fs::remove_file(want).unwrap();
        }
    }
    let out = dir.join("again");
    let report = merged(&nf4, &lora, 1.0, Target::Nf4, &out);
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    let base_and_adapter = logits_of(&nf4, Some(&lora));
    let difference = max_difference(&base_and_adapter, &logits_of(&out, None));
    let bound = 2.0 * max_difference(&logits_of(&fixture("tiny-gemma3"), None), &logits_of(&nf4, None));
    println!("nf4 again: {difference:.1e}, bound {bound:.1e}");
    assert!(difference <= bound, "{difference} > {bound}");
    let original = merged(&fixture("tiny-gemma3"), &lora, 1.0, Target::Q8_0, &dir.join("original"));
    assert!(original.notes.is_empty(), "{:?}", original.notes);
}

/// Matrices without a pair keep the bytes they have, and count for nothing.
#[test]
fn what_has_no_pair_stays_as_it_is() {
    let dir = temp_dir("merge-some");
    let config = config_of("tiny-gemma3");
    let all = open(&fixture("tiny-gemma3-lora"), &config).targets;
    let some: Vec<AdapterTarget> =
        all.into_iter().filter(|t| t.part == Part::AttnV || (t.part, t.layer) == (Part::FfnDown, 6)).collect();
    write_peft(&dir.join("some"), &config, 4, 8.0, &peft_tensors(&some));
    let base = fixture("tiny-gemma3/tiny-gemma3-q8_0.gguf");
    let out = dir.join("out.gguf");
    let report = merged(&base, &dir.join("some"), 1.0, Target::Q8_0, &out);
    let merge = report.merge.expect("reported");
    assert_eq!((merge.matrices_merged, merge.matrices, merge.base_name.as_deref()), (8, 8, Some("base")));
    assert!(report.notes[0].starts_with("8 of these matrices"), "{:?}", report.notes);
    let (got, before) = (open_gguf(&out), open_gguf(&base));
    let changed = before.tensors().iter().filter(|t| {
        let ours = got.tensor(&t.name).expect("written");
        got.tensor_bytes(ours).as_slice() != before.tensor_bytes(t).as_slice()
    });
    let mut changed: Vec<String> = changed.map(|t| t.name.clone()).collect();
    let mut want: Vec<String> = some.iter().map(|t| t.part.gguf_name(Some(t.layer))).collect();
    changed.sort();
    want.sort();
    assert_eq!(changed, want);
    assert_eq!(got.metadata().string("general.name"), Ok(Some("merged")));
}

#[test]
fn the_card_of_a_folder_names_the_adapter() {
    let dir = temp_dir("merge-card");
    let out = dir.join("mine");
    merged(&fixture("tiny-gemma3"), &fixture("tiny-gemma3-lora"), 1.0, Target::Nf4, &out);
    let card = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(
        card.contains("tiny-gemma3 with the adapter tiny-gemma3-lora merged, its linear layers in 4 bits"),
        "{card}"
    );
    assert!(card.contains("Written by `lichen-host adapter merge`."), "{card}");
    let config: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["quantization_config"]["bnb_4bit_quant_type"], "nf4");
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
fn what_fails_leaves_nothing_behind() {
    let dir = temp_dir("merge-fails");
    let (base, lora) = (fixture("tiny-gemma3"), fixture("tiny-gemma3-lora"));
    let adapter = |path: &Path| AdapterPath { path: path.to_path_buf(), scale: 1.0 };
    for target in GGUF.into_iter().chain([Target::Nf4]) {
        for n in [0, 1, 50] {
            let options = options(&base, target, &dir.join("out"));
            let error = run_merged(&options, &adapter(&lora), false, &mut StopAfter(n)).expect_err("stopped");
            assert_eq!((error.message(), names(&dir)), ("stopped", Vec::new()), "{}", target.name());
        }
    }
    // Each half is finite and their product is not.
    let large = dir.join("large");
    let config = config_of("tiny-gemma3");
    let mut targets = open(&lora, &config).targets;
    targets[30].a.fill(1e30);
    targets[30].b.fill(1e30);
    write_peft(&large, &config, 4, 8.0, &peft_tensors(&targets));
    for target in [Target::F32, Target::Q4_0, Target::Nf4] {
        let error = run_merged(&options(&base, target, &dir.join("out")), &adapter(&large), false, &mut ());
        let message = error.expect_err("too large").message().to_string();
        assert!(message.starts_with(&format!("{}: tensor \"", base.display())), "{message}");
        assert!(message.ends_with("the sum with the adapter is too large for f32"), "{message}");
        assert_eq!(names(&dir), ["large"]);
    }
    let nf4 = options(&fixture("tiny-gemma3/tiny-gemma3-f32.gguf"), Target::Nf4, &dir.join("out"));
    let error = run_merged(&nf4, &adapter(&lora), false, &mut ()).expect_err("no tokenizer.json");
    assert!(error.message().contains("start from the folder the file was made of"), "{error}");
    assert_eq!(names(&dir), ["large"]);
}
