use std::path::{Path, PathBuf};

use lichen_host_tools::quantize::Target;
use lichen_kernels::formats::q8_0;
use lichen_runtime::files::formats::hf::HfWeights;
use lichen_runtime::files::formats::safetensors::Dtype;
use lichen_runtime::files::formats::safetensors_write::{write_file, NewTensor};
use lichen_runtime::{ModelSource, Part};
use lichen_tests::models::{fixture, temp_dir};

use crate::{copy_folder, names, open_gguf, quantize};

/// A tensor with its bytes.
type Stored = (NewTensor, Vec<u8>);

/// The tensors of tiny-gemma3 as `(name, shape, values)`.
fn tensors() -> Vec<(String, Vec<usize>, Vec<f32>)> {
    let weights = HfWeights::open(&fixture("tiny-gemma3")).unwrap_or_else(|e| panic!("{e}"));
    let list = weights.shards()[0].tensors.tensors().iter();
    let read = |name: &str| {
        let bytes = weights.tensor(name).expect("listed").slice();
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    };
    list.map(|info| (info.name.clone(), info.shape().to_vec(), read(&info.name))).collect()
}

/// tiny-gemma3 with other weights.
fn folder_with(dir: &Path, stored: &[Stored]) -> PathBuf {
    let folder = copy_folder(&fixture("tiny-gemma3"), dir);
    let list: Vec<(NewTensor, &[u8])> =
        stored.iter().map(|(tensor, bytes)| (tensor.clone(), bytes.as_slice())).collect();
    write_file(&folder.join("model.safetensors"), &list, &[]).unwrap_or_else(|e| panic!("{e}"));
    folder
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn is_linear(name: &str) -> bool {
    name.contains("_proj")
}

/// The Q8_0 blocks of a matrix equal those of `values`.
fn check_blocks(out: &Path, name: &str, values: &[f32]) {
    let gguf = open_gguf(out);
    let tensor = gguf.tensor(name).expect("written");
    let mut want = Vec::new();
    q8_0::encode(values, &mut want);
    assert!(gguf.tensor_bytes(tensor).as_slice() == want, "{name}");
}

#[test]
fn bf16_and_f16_folders() {
    for (dtype, label) in [(Dtype::BF16, "bf16"), (Dtype::F16, "f16")] {
        let dir = temp_dir(&format!("quantize-{label}"));
        let round = |v: f32| match dtype {
            Dtype::BF16 => half::bf16::from_f32(v).to_f32(),
            _ => half::f16::from_f32(v).to_f32(),
        };
        let bytes = |v: f32| match dtype {
            Dtype::BF16 => half::bf16::from_f32(v).to_le_bytes(),
            _ => half::f16::from_f32(v).to_le_bytes(),
        };
        let tensors = tensors();
        let stored: Vec<Stored> = tensors
            .iter()
            .map(|(name, shape, v)| (NewTensor::new(name, dtype, shape), v.iter().flat_map(|v| bytes(*v)).collect()))
            .collect();
        let folder = folder_with(&dir, &stored);
        let out = dir.join("m.gguf");
        quantize(&folder, Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
        let (_, _, values) = tensors.iter().find(|t| t.0 == "model.layers.2.mlp.up_proj.weight").expect("there");
        let rounded: Vec<f32> = values.iter().map(|v| round(*v)).collect();
        check_blocks(&out, "blk.2.ffn_up.weight", &rounded);
        // A bf16 source gives bf16 tensors as they are.
        let nf4 = dir.join("nf4");
        quantize(&folder, Target::Nf4, &nf4).unwrap_or_else(|e| panic!("{e}"));
        let weights = HfWeights::open(&nf4).unwrap_or_else(|e| panic!("{e}"));
        let state = weights.tensor("model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4").expect("there");
        let wanted = if dtype == Dtype::BF16 { "\"dtype\": \"bfloat16\"" } else { "\"dtype\": \"float16\"" };
        assert!(String::from_utf8_lossy(state.slice()).contains(wanted));
        if dtype == Dtype::BF16 {
            let embedding = &stored.iter().find(|t| t.0.name == "model.embed_tokens.weight").expect("there").1;
            assert!(weights.tensor("model.embed_tokens.weight").expect("there").slice() == embedding);
        }
    }
}

#[test]
fn sharded_folders() {
    let dir = temp_dir("quantize-sharded");
    let folder = copy_folder(&fixture("tiny-gemma3"), &dir);
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    let tensors = tensors();
    let mut map = serde_json::Map::new();
    for (index, part) in tensors.chunks(tensors.len().div_ceil(3)).enumerate() {
        let file = format!("model-{:05}-of-00003.safetensors", index + 1);
        let bytes: Vec<Vec<u8>> = part.iter().map(|t| le_bytes(&t.2)).collect();
        let list: Vec<(NewTensor, &[u8])> =
            part.iter().zip(&bytes).map(|(t, b)| (NewTensor::new(&t.0, Dtype::F32, &t.1), b.as_slice())).collect();
        write_file(&folder.join(&file), &list, &[("made_by", "a test")]).unwrap_or_else(|e| panic!("{e}"));
        map.extend(part.iter().map(|t| (t.0.clone(), serde_json::Value::from(file.as_str()))));
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    let (out, whole) = (dir.join("sharded.gguf"), dir.join("whole.gguf"));
    quantize(&folder, Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
    quantize(&fixture("tiny-gemma3"), Target::Q8_0, &whole).unwrap_or_else(|e| panic!("{e}"));
    let (a, b) = (open_gguf(&out), open_gguf(&whole));
    for tensor in b.tensors() {
        let got = a.tensor(&tensor.name).expect("written");
        assert!(a.tensor_bytes(got).as_slice() == b.tensor_bytes(tensor).as_slice(), "{}", tensor.name);
    }
}

/// Rows as signed bytes with one scale each: LLM.int8 and quanto differ in names and in the unit of the scale.
#[test]
fn int8_folders_are_dequantised() {
    for (scheme, unit) in [("llm-int8", 127.0f32), ("quanto", 1.0)] {
        let dir = temp_dir(&format!("quantize-{scheme}"));
        let mut stored: Vec<Stored> = Vec::new();
        let mut decoded = Vec::new();
        for (name, shape, values) in tensors() {
            if !is_linear(&name) {
                stored.push((NewTensor::new(&name, Dtype::F32, &shape), le_bytes(&values)));
                continue;
            }
            let cols = shape[1];
            let scales: Vec<f32> =
                values.chunks(cols).map(|row| row.iter().fold(0.0f32, |m, v| m.max(v.abs())) / 127.0 * unit).collect();
            let q: Vec<i8> =
                values.iter().enumerate().map(|(i, v)| (v / (scales[i / cols] / unit)).round() as i8).collect();
            if name == "model.layers.1.mlp.down_proj.weight" {
                let scale = |row: usize| scales[row] * (1.0 / unit);
                decoded = q.iter().enumerate().map(|(i, q)| *q as f32 * scale(i / cols)).collect();
            }
            let bytes: Vec<u8> = q.iter().map(|q| *q as u8).collect();
            let (data, scale, shape_of_scale) = match scheme {
                "quanto" => (format!("{name}._data"), format!("{name}._scale"), vec![shape[0], 1]),
                _ => (name.clone(), format!("{}SCB", name.trim_end_matches("weight")), vec![shape[0]]),
            };
            stored.push((NewTensor::new(data, Dtype::I8, &shape), bytes));
            stored.push((NewTensor::new(scale, Dtype::F32, &shape_of_scale), le_bytes(&scales)));
        }
        let folder = folder_with(&dir, &stored);
        let error = ModelSource::open(&folder).err().expect("no kernel computes with int8");
        assert!(error.message().contains("lichen-host quantize"), "{error}");
        let out = dir.join("m.gguf");
        quantize(&folder, Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
        check_blocks(&out, "blk.1.ffn_down.weight", &decoded);
        quantize(&folder, Target::Nf4, &dir.join("nf4")).unwrap_or_else(|e| panic!("{e}"));
        let nf4 = ModelSource::open(&dir.join("nf4")).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(nf4.matrix(Part::AttnQ, Some(0)).expect("readable").format(), lichen_kernels::Format::NF4);
    }
}

/// Nothing is left behind, and the sentence names the file and the tensor.
#[test]
fn damaged_sources_are_refused() {
    let dir = temp_dir("quantize-damaged");
    let folder = copy_folder(&fixture("tiny-gemma3"), &dir);
    let file = folder.join("model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    let refused = |what: &str| {
        for target in [Target::Q8_0, Target::Nf4] {
            let error = quantize(&folder, target, &dir.join("out")).expect_err(what);
            assert!(error.message().contains(what), "{error}");
            assert!(error.message().contains("model"), "{error}");
            assert_eq!(names(&dir), ["model"], "{what}");
        }
    };
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    refused("download incomplete");
    let mut damaged = bytes.clone();
    let at = damaged.len() - 8;
    damaged[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&file, &damaged).unwrap();
    refused("the model is damaged");
    std::fs::remove_file(&file).unwrap();
    refused("has no model.safetensors");
}

#[test]
fn nothing_is_overwritten() {
    let dir = temp_dir("quantize-overwrite");
    let out = dir.join("taken");
    std::fs::write(&out, b"precious").unwrap();
    for target in [Target::Q8_0, Target::Q4_0, Target::Nf4] {
        let error = quantize(&fixture("tiny-gemma3"), target, &out).expect_err("taken");
        assert!(error.message().ends_with("already exists: choose another name or remove it first"), "{error}");
    }
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    assert_eq!(names(&dir), ["taken"]);
}

/// Qwen 2.5's long context passes into GGUF, unless the folder has what GGUF cannot say.
#[test]
fn yarn_is_kept() {
    let dir = temp_dir("quantize-yarn");
    let folder = copy_folder(&fixture("tiny-qwen2-tied"), &dir);
    let text = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&text).unwrap();
    config["rope_scaling"] = serde_json::json!({"type": "yarn", "factor": 2.5, "beta_fast": 16});
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let out = dir.join("m.gguf");
    quantize(&folder, Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
    let (theirs, ours) = (ModelSource::open(&folder).unwrap(), ModelSource::open(&out).unwrap());
    assert_eq!(ours.config(), theirs.config());
    config["rope_scaling"]["attention_factor"] = serde_json::json!(1.0);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let error = quantize(&folder, Target::Q8_0, &dir.join("out")).expect_err("another factor");
    assert!(error.message().contains("YaRN's attention_factor is 1; GGUF has no key for that"), "{error}");
}

/// Queries of this model are scaled by another constant than readers of GGUF take: it would run, and answer wrongly.
#[test]
fn what_gguf_cannot_say_is_refused() {
    let dir = temp_dir("quantize-inexpressible");
    let folder = copy_folder(&fixture("tiny-gemma3"), &dir);
    let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
    let changed = config.replace("\"query_pre_attn_scalar\": 32", "\"query_pre_attn_scalar\": 64");
    assert_ne!(config, changed);
    std::fs::write(folder.join("config.json"), changed).unwrap();
    let error = quantize(&folder, Target::Q8_0, &dir.join("out")).expect_err("another scale");
    assert!(error.message().contains("queries are scaled by 0.125; GGUF has no key for that"), "{error}");
    assert_eq!(names(&dir), ["model"]);
}
