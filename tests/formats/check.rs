//! What must hold for any bytes: each function returns true when the parser took the input, and panics when it broke a
//! promise.

use std::sync::Arc;

use lichen_kernels::ops::rope::RopeScaling;
use lichen_kernels::Format;
use lichen_runtime::files::adapter_file::{AdapterFile, PeftConfig};
use lichen_runtime::files::formats::gguf::{Gguf, GgufSet, PartName, Value};
use lichen_runtime::files::formats::safetensors::SafeTensors;
use lichen_runtime::files::formats::{gguf_config, hf_config, json_file};
use lichen_runtime::{Architecture, ModelConfig, ModelSource};

/// GGUF: the table, every value and tensor in it, and the model it may describe.
pub fn gguf(bytes: &[u8]) -> bool {
    let Ok(gguf) = Gguf::parse(Arc::new(bytes.to_vec())) else { return false };
    for (key, value) in gguf.metadata().iter() {
        assert_eq!(gguf.metadata().get(key).map(|v| v.value_type()), Some(value.value_type()));
        if let Value::Array(array) = value {
            assert_eq!(array.iter().count(), array.len);
        }
    }
    let mut end = 0;
    let mut tensors: Vec<_> = gguf.tensors().iter().collect();
    tensors.sort_by_key(|t| (t.range.start, t.range.end));
    for tensor in tensors {
        assert_eq!(gguf.tensor(&tensor.name).map(|t| t.range.clone()), Some(tensor.range.clone()));
        let n: usize = tensor.shape().iter().product();
        let values_bytes = n / tensor.format.block_len() * tensor.format.block_bytes();
        assert_eq!(gguf.tensor_bytes(tensor).as_slice().len(), values_bytes);
        assert!(tensor.range.is_empty() || tensor.range.start >= end, "overlap");
        end = end.max(tensor.range.end);
    }
    if let Ok(Ok(config)) = GgufSet::whole(gguf).map(|set| gguf_config::model_config(&set)) {
        config.check().expect("a config that was given out is sound");
    }
    if let Ok(source) = ModelSource::from_bytes("fuzz", Arc::new(bytes.to_vec())) {
        let _ = (source.tokenizer(), source.chat_template(), source.stop_ids(), source.fingerprint());
        source.weight_memory().expect("every weight is there");
    }
    true
}

/// The parts of a split GGUF: a u32 of length before each but the last.
pub fn gguf_split(bytes: &[u8]) -> bool {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some((n, behind)) = rest.split_first_chunk::<4>() {
        let n = u32::from_le_bytes(*n) as usize;
        let last = n >= behind.len() || parts.len() == 7;
        let (part, next) = if last { (behind, &[][..]) } else { behind.split_at(n) };
        let Ok(part) = Gguf::parse(Arc::new(part.to_vec())) else { return false };
        parts.push(part);
        rest = next;
    }
    if parts.is_empty() {
        return false;
    }
    let n_parts = parts.len();
    let set = match GgufSet::join(parts) {
        Ok(set) => set,
        Err((part, _)) => {
            assert!(part < n_parts, "part {part} of {n_parts}");
            return false;
        }
    };
    for part in set.parts() {
        for tensor in part.tensors() {
            let (_, found) = set.tensor(&tensor.name).expect("every part's tensors are found");
            assert_eq!(found.range, tensor.range, "a name is in one part alone");
        }
    }
    if let Ok(config) = gguf_config::model_config(&set) {
        config.check().expect("a config that was given out is sound");
    }
    true
}

/// What a file is called, which may say that it is a part of a split one.
pub fn part_name(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(name) = PartName::parse(text) else { return false };
    assert!((1..=name.count).contains(&name.number));
    assert_eq!(name.of(name.number), text);
    true
}

/// safetensors: the table and every tensor in it.
pub fn safetensors(bytes: &[u8]) -> bool {
    let Ok(file) = SafeTensors::parse(Arc::new(bytes.to_vec())) else { return false };
    let mut n_bytes = 0;
    for tensor in file.tensors() {
        assert_eq!(file.tensor(&tensor.name).map(|t| t.range.clone()), Some(tensor.range.clone()));
        let n: usize = tensor.shape().iter().product();
        assert_eq!(file.tensor_bytes(tensor).as_slice().len(), n * tensor.dtype.size_bytes());
        n_bytes += tensor.range.len();
    }
    let header = u64::from_le_bytes(bytes[..8].try_into().expect("parsed")) as usize;
    assert_eq!(8 + header + n_bytes, bytes.len(), "every byte has one owner");
    true
}

/// config.json of a Hugging Face folder.
pub fn hf_config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(value) = json_file::parse(text) else { return false };
    let Ok(config) = hf_config::model_config(&value, Format::BF16) else { return false };
    config.check().expect("a config that was given out is sound");
    true
}

/// adapter_config.json of a PEFT folder.
pub fn adapter_config(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(value) = json_file::parse(text) else { return false };
    let Ok(peft) = PeftConfig::read(&value) else { return false };
    let Ok(rules) = peft.rules(&["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", ""]) else {
        return false;
    };
    for rule in rules {
        let scale = peft.scale(&rule);
        assert!(scale >= 0.0 && scale.is_finite(), "scale {scale}");
        assert!((1..=1024).contains(&rule.rank));
    }
    true
}

/// A GGUF adapter for a small Gemma 3.
pub fn gguf_adapter(bytes: &[u8]) -> bool {
    let Ok(adapter) = AdapterFile::from_gguf(Arc::new(bytes.to_vec()), &base()) else { return false };
    assert!(adapter.max_rank() > 0 && adapter.size_bytes() > 0);
    for target in &adapter.targets {
        assert!(target.layer < 2 && target.scale.is_finite());
        assert!(target.a.iter().chain(&target.b).all(|v| v.is_finite()));
    }
    true
}

/// A PEFT adapter for the same: adapter_config.json, a zero byte, adapter_model.safetensors.
pub fn peft_adapter(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let weights = bytes.get(end + 1..).unwrap_or_default();
    let Ok(adapter) = AdapterFile::from_peft(&bytes[..end], Arc::new(weights.to_vec()), &base()) else { return false };
    assert!(adapter.max_rank() > 0 && adapter.size_bytes() > 0);
    for target in &adapter.targets {
        assert!(target.layer < 2 && target.scale.is_finite());
        assert!(target.a.iter().chain(&target.b).all(|v| v.is_finite()));
    }
    for table in adapter.tables.each() {
        assert_eq!((table.rows(), table.cols()), (5, 32));
        let mut values = vec![0.0; 5 * 32];
        table.decode_rows(0..5, &mut values);
        assert!(values.iter().all(|v| v.is_finite()));
    }
    true
}

/// Two layers, dim 32, two heads of 16 over one.
fn base() -> ModelConfig {
    ModelConfig {
        architecture: Architecture::Gemma3,
        block: Architecture::Gemma3.block(),
        n_layers: 2,
        dim: 32,
        hidden_dim: 64,
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 16,
        vocab_size: 5,
        context_length: 64,
        rms_eps: 1e-6,
        rope_theta: 1e6,
        rope_theta_local: 1e4,
        rope_scaling: RopeScaling::NONE,
        sliding_window: Some(8),
        is_global: vec![false, false],
        query_scale: 0.25,
        embedding_scale: 5.656_854,
        tied_head: true,
    }
}
