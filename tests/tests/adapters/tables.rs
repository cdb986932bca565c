//! Adapters that bring an embedding or a head of their own: at inference and in merged models they are the base with those
//! matrices in it, which a folder made by hand shows.

use std::path::{Path, PathBuf};

use lichen_host_tools::quantize::{run_merged, Options, Target, SHARD_BYTES_MAX};
use lichen_runtime::engine::AdapterPath;
use lichen_runtime::files::formats::safetensors::{Dtype, SafeTensors};
use lichen_runtime::files::formats::safetensors_write::{write_file, NewTensor};
use lichen_runtime::files::mapped_file::MappedFile;
use lichen_runtime::ModelSource;
use lichen_tests::models::{fixture, max_difference, temp_dir};
use lichen_tests::programs::{self, lichen_host};
use serde_json::{json, Value};

use crate::{config_of, copy_folder, logits_of, PAIRS};

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

type Tensors = Vec<(NewTensor, Vec<u8>)>;

fn read(path: &Path) -> Tensors {
    let file = SafeTensors::parse(MappedFile::open(path).unwrap_or_else(|e| panic!("{e}"))).unwrap();
    let tensor = |t: &lichen_runtime::files::formats::safetensors::TensorInfo| {
        (NewTensor::new(&t.name, t.dtype, t.shape()), file.tensor_slice(t).to_vec())
    };
    file.tensors().iter().map(tensor).collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let list: Vec<(NewTensor, &[u8])> = tensors.iter().map(|(t, b)| (t.clone(), b.as_slice())).collect();
    std::fs::remove_file(path).expect("a copy");
    write_file(path, &list, &[]).unwrap_or_else(|e| panic!("{e}"));
}

fn put(tensors: &mut Tensors, name: &str, shape: [usize; 2], bytes: &[u8]) {
    tensors.retain(|(t, _)| t.name != name);
    tensors.push((NewTensor::new(name, Dtype::BF16, &shape), bytes.to_vec()));
}

fn edit_json(path: &Path, edit: impl Fn(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    edit(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// A table of numbers of this seed, as bf16.
fn table(shape: [usize; 2], seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::new();
    for _ in 0..shape[0] * shape[1] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let value = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
        bytes.extend(((value.to_bits() >> 16) as u16).to_le_bytes());
    }
    bytes
}

/// A base, its adapter with these tables, and the folder that is both tables in the base.
struct Case {
    adapter: PathBuf,
    plain: PathBuf,
    by_hand: PathBuf,
}

fn case(dir: &Path, base: &str, lora: &str, saved: &[(&str, u32)]) -> Case {
    let config = config_of(base);
    let shape = [config.vocab_size, config.dim];
    let adapter = copy_folder(&fixture(lora), dir.join("adapter"));
    let by_hand = copy_folder(&fixture(base), dir.join("by-hand"));
    let (weights, model) = (adapter.join("adapter_model.safetensors"), by_hand.join("model.safetensors"));
    let (mut in_adapter, mut in_model) = (read(&weights), read(&model));
    let own = in_model.iter().find(|(t, _)| t.name == EMBEDDING).expect("an embedding").clone();
    if config.tied_head {
        in_model.push((NewTensor::new(HEAD, own.0.dtype, &shape), own.1));
    }
    for (name, seed) in saved {
        let bytes = table(shape, *seed);
        put(&mut in_adapter, &format!("base_model.model.{name}"), shape, &bytes);
        put(&mut in_model, name, shape, &bytes);
    }
    write(&weights, &in_adapter);
    write(&model, &in_model);
    let names: Vec<&str> = saved.iter().map(|(name, _)| name.trim_end_matches(".weight")).collect();
    edit_json(&adapter.join("adapter_config.json"), |v| v["modules_to_save"] = json!(names));
    edit_json(&by_hand.join("config.json"), |v| v["tie_word_embeddings"] = json!(false));
    Case { adapter, plain: fixture(lora), by_hand }
}

fn merge(model: &Path, adapter: &Path, target: Target, out: &Path) -> lichen_host_tools::quantize::Report {
    let options = Options {
        model: model.into(),
        target,
        out: out.into(),
        name: None,
        shard_bytes_max: SHARD_BYTES_MAX,
        split_bytes_max: None,
    };
    let adapter = AdapterPath { path: adapter.into(), scale: 1.0 };
    run_merged(&options, &adapter, false, &mut ()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn they_are_the_base_with_those_tables_in_it() {
    for (base, lora) in PAIRS {
        for (i, saved) in [&[(HEAD, 1)][..], &[(EMBEDDING, 2)], &[(HEAD, 1), (EMBEDDING, 2)]].into_iter().enumerate() {
            let dir = temp_dir(&format!("adapters-tables-{base}-{i}"));
            let case = case(&dir, base, lora, saved);
            let base = fixture(base);
            let want = logits_of(&case.by_hand, Some(&case.plain));
            let got = logits_of(&base, Some(&case.adapter));
            assert!(got == want, "{lora} {saved:?}: off by {}", max_difference(&got, &want));
            assert!(got != logits_of(&base, Some(&case.plain)), "{lora} {saved:?}: the tables change nothing");

            // Merged, the weights are rounded to f32: the bound of merge.rs.
            let out = dir.join("merged.gguf");
            let report = merge(&base, &case.adapter, Target::F32, &out);
            assert!(
                report.notes.iter().any(|n| n.ends_with("is the adapter's own, not the base's")),
                "{:?}",
                report.notes
            );
            assert!(!ModelSource::open(&out).unwrap().config().tied_head);
            let off = max_difference(&logits_of(&out, None), &want);
            assert!(off <= 1e-4, "{lora} {saved:?}: merged, off by {off}");
        }
    }
}

/// A folder says of itself that its head is no longer its embedding.
#[test]
fn a_merged_folder_has_both_tables() {
    let dir = temp_dir("adapters-tables-nf4");
    let case = case(&dir, "tiny-gemma3", "tiny-gemma3-lora", &[(HEAD, 7)]);
    let out = dir.join("merged");
    merge(&fixture("tiny-gemma3"), &case.adapter, Target::Nf4, &out);
    let config: Value = serde_json::from_slice(&std::fs::read(out.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["tie_word_embeddings"], false);
    assert_eq!(config["quantization_config"]["llm_int8_skip_modules"], json!(["lm_head"]));
    let tensors = read(&out.join("model.safetensors"));
    let find = |name: &str| &tensors.iter().find(|(t, _)| t.name == name).unwrap_or_else(|| panic!("{name}")).1;
    let shape = [config_of("tiny-gemma3").vocab_size, config_of("tiny-gemma3").dim];
    assert!(*find(HEAD) == table(shape, 7) && *find(EMBEDDING) != table(shape, 7));
}

#[test]
fn where_they_cannot_be_used_they_are_refused_with_their_size() {
    let dir = temp_dir("adapters-tables-refused");
    let case = case(&dir, "tiny-gemma3", "tiny-gemma3-lora", &[(HEAD, 7)]);
    let adapter = case.adapter.display().to_string();
    let model = fixture("tiny-gemma3").display().to_string();
    for out in ["a.gguf", "a"] {
        let out = dir.join(out).display().to_string();
        let flags = ["adapter", "convert", "--adapter", &adapter, "--model", &model, "--out", &out];
        let done = programs::run(&mut programs::command(lichen_host(), &flags));
        let says = "brings 40,960 bytes of its own embedding or head (modules_to_save), which cannot be converted: merge it into \
                    the model\n";
        assert_eq!(done.code, Some(1));
        assert!(done.stderr.ends_with(says), "{}", done.stderr);
    }
    // Beside the model, what does not fit is said with its size.
    let budget = [
        "logits",
        "--model",
        &model,
        "--adapter",
        &adapter,
        "--tokens",
        "2,4",
        "--memory-budget",
        "1MiB",
        "--out",
        "x",
    ];
    let done = programs::run(&mut programs::command(programs::lichen(), &budget));
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.ends_with("; 0.0 MiB is an adapter's own embedding or head\n"), "{}", done.stderr);
}
