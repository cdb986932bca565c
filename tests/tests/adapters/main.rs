//! Adapters that are written, converted and merged: what is read back, and what models with them say.

/// What an adapter says of its base.
mod base;
/// GGUF adapters and back.
mod convert;
/// Adapters in the weights for good.
mod merge;
/// PEFT folders as the trainer writes them.
mod peft;
/// The program: exit codes and sentences.
mod program;
/// Adapters with matrices of their own beside the pairs.
mod tables;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_kernels::Device;
use lichen_runtime::files::adapter_file::{AdapterFile, AdapterTarget, PeftAdapter, PeftTensor};
use lichen_runtime::model::adapter::Adapter;
use lichen_runtime::{ModelConfig, ModelSource};
use lichen_tests::models::{fixture, limits, load, logits, session};

/// Bases of both families, and the adapter of each: rank 4, alpha 8, all seven matrices of every layer.
const PAIRS: [(&str, &str); 2] = [("tiny-gemma3", "tiny-gemma3-lora"), ("tiny-qwen2-tied", "tiny-qwen2-tied-lora")];

fn config_of(model: &str) -> ModelConfig {
    ModelSource::open(&fixture(model)).unwrap_or_else(|e| panic!("{e}")).config().clone()
}

fn open(path: &Path, config: &ModelConfig) -> AdapterFile {
    AdapterFile::open(path, config).unwrap_or_else(|e| panic!("{e}"))
}

fn peft_tensors(targets: &[AdapterTarget]) -> Vec<PeftTensor<'_>> {
    targets.iter().map(|t| PeftTensor { part: t.part, layer: t.layer, a: &t.a, b: &t.b }).collect()
}

/// Writes pairs of one rank and alpha as a PEFT folder `dir`.
fn write_peft(dir: &Path, config: &ModelConfig, rank: usize, alpha: f32, tensors: &[PeftTensor]) -> u64 {
    std::fs::create_dir(dir).expect("new");
    let adapter = PeftAdapter { config, rank, alpha, dropout: 0.0, base_name: "base", tensors, metadata: &[] };
    adapter.write_into(dir).unwrap_or_else(|e| panic!("{e}"))
}

/// Names of what a folder holds, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).expect("a folder");
    let mut names: Vec<String> = entries.map(|e| e.expect("readable").file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A copy of a folder, to be changed.
fn copy_folder(from: &Path, to: PathBuf) -> PathBuf {
    std::fs::create_dir(&to).expect("new");
    for name in names(from) {
        if from.join(&name).is_file() {
            std::fs::copy(from.join(&name), to.join(&name)).expect("copied");
        }
    }
    to
}

/// Logits of 40 tokens, which is past the window of Gemma's local layers, with an adapter beside the weights or without.
fn logits_of(model: &Path, adapter: Option<&Path>) -> Vec<f32> {
    let model = load(model);
    let mut session = session(&model, limits(2));
    if let Some(path) = adapter {
        let device = Device::cpu(1).expect("a thread");
        let file = open(path, &model.config);
        let adapter = Adapter::new(file, &model.config, 1.0, &device).unwrap_or_else(|e| panic!("{e}"));
        session.set_adapter(Some(Arc::new(adapter))).unwrap_or_else(|e| panic!("{e}"));
    }
    let tokens: Vec<u32> = (0..40u32).map(|i| (i * i * 7 + i * 13 + 5) % model.config.vocab_size as u32).collect();
    logits(&mut session, &tokens)
}
