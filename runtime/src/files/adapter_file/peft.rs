//! PEFT folders: `adapter_config.json` and `adapter_model.safetensors` with
//! `base_model.model.<module path>.lora_A.weight` `[rank, inputs]` and `.lora_B.weight` `[outputs, rank]`.

use std::path::Path;

use lichen_kernels::formats::decode;

use super::peft_config::{module_path, PeftConfig};
use super::{AdapterFile, AdapterTarget, Half, HalfMatrix, Pairs, TARGETS};
use crate::error::{Error, Result};
use crate::files::formats::gguf::BytesOwner;
use crate::files::formats::json_file::{self, read_json, MAX_CONFIG_BYTES};
use crate::files::formats::safetensors::{SafeTensors, TensorInfo};
use crate::files::mapped_file::MappedFile;
use crate::files::model_source::Part;
use crate::model_config::ModelConfig;

pub const CONFIG_FILE: &str = "adapter_config.json";
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Where the layers sit below `base_model.model.`: text models, and both spellings of multimodal Gemma 3.
const PREFIXES: [&str; 3] = ["model.language_model.", "language_model.model.", "model."];

pub(super) fn open(dir: &Path, config: &ModelConfig) -> Result<AdapterFile> {
    let config_path = dir.join(CONFIG_FILE);
    let weights_path = dir.join(WEIGHTS_FILE);
    if !config_path.exists() {
        return Err(Error::input(format!("no {CONFIG_FILE} in this folder")).in_file(dir));
    }
    let peft = PeftConfig::read(&read_json(&config_path, MAX_CONFIG_BYTES)?).map_err(|e| e.in_file(&config_path))?;
    if !weights_path.exists() {
        let pickled = match dir.join("adapter_model.bin").exists() {
            true => " (adapter_model.bin is a pickle, which is not read: save the adapter as safetensors)",
            false => "",
        };
        return Err(Error::input(format!("no {WEIGHTS_FILE} in this folder{pickled}")).in_file(dir));
    }
    let targets = targets(MappedFile::open(&weights_path)?, &peft, config).map_err(|e| e.in_file(&weights_path))?;
    check_targets(&peft, config, &targets).map_err(|e| e.in_file(&config_path))?;
    Ok(AdapterFile { targets, base_name: peft.base_name })
}

/// The two files of a folder, in memory. Errors name the one they are about.
pub(super) fn parse(peft: &[u8], weights: BytesOwner, config: &ModelConfig) -> Result<AdapterFile> {
    let peft = read_config(peft).map_err(|e| e.in_file(Path::new(CONFIG_FILE)))?;
    let targets = targets(weights, &peft, config).map_err(|e| e.in_file(Path::new(WEIGHTS_FILE)))?;
    check_targets(&peft, config, &targets).map_err(|e| e.in_file(Path::new(CONFIG_FILE)))?;
    Ok(AdapterFile { targets, base_name: peft.base_name })
}

fn read_config(bytes: &[u8]) -> Result<PeftConfig> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| Error::input(format!("is not UTF-8 from byte {}", e.valid_up_to())))?;
    PeftConfig::read(&json_file::parse(text)?)
}

fn targets(weights: BytesOwner, peft: &PeftConfig, config: &ModelConfig) -> Result<Vec<AdapterTarget>> {
    collect(&SafeTensors::parse(weights)?, config)?.finish(|part, layer, rank, name| {
        let module = module_path(config, part, layer);
        let declared = peft.rank_of(&module);
        if declared != rank {
            return Err(Error::input(format!("\"{name}\" has rank {rank}, the config says {declared}")));
        }
        Ok(peft.scale_of(&module, rank))
    })
}

fn check_targets(peft: &PeftConfig, config: &ModelConfig, targets: &[AdapterTarget]) -> Result<()> {
    let found: Vec<String> = targets.iter().map(|t| module_path(config, t.part, t.layer)).collect();
    peft.check_targets(config, &found)
}

fn collect<'a>(tensors: &SafeTensors, config: &'a ModelConfig) -> Result<Pairs<'a>> {
    let mut pairs = Pairs::new(config);
    for tensor in tensors.tensors() {
        let (part, layer, half) = target_of(&tensor.name, config).map_err(Error::input)?;
        pairs.add(part, layer, half, half_matrix(tensors, tensor)?)?;
    }
    Ok(pairs)
}

fn half_matrix(tensors: &SafeTensors, tensor: &TensorInfo) -> Result<HalfMatrix> {
    let Some(format) = tensor.dtype.format() else {
        return Err(Error::input(format!(
            "\"{}\" is {}; F32, F16 or BF16 is needed",
            tensor.name,
            tensor.dtype.name()
        )));
    };
    let mut values = vec![0.0; tensor.shape().iter().product()];
    decode(format, tensors.tensor_slice(tensor), &mut values);
    let name = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name).to_string();
    Ok(HalfMatrix { name, shape: tensor.shape().to_vec(), values })
}

/// `base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight` -> (AttnQ, 7, A). The adapter's name may stand
/// before `.weight`, as in files that were not written by PEFT itself.
fn target_of(name: &str, config: &ModelConfig) -> std::result::Result<(Part, usize, Half), String> {
    for (marker, what) in [
        ("lora_magnitude_vector", "DoRA"),
        ("lora_embedding_", "an adapter of the embedding"),
        ("modules_to_save", "modules_to_save"),
        ("lm_head", "an adapter of the head"),
    ] {
        if name.contains(marker) {
            return Err(format!("\"{name}\": {what} is not supported"));
        }
    }
    let strange = || format!("\"{name}\" is not a LoRA matrix of a layer");
    let (module, half) = match (name.split_once(".lora_A."), name.split_once(".lora_B.")) {
        (Some((module, rest)), None) => (module, (Half::A, rest)),
        (None, Some((module, rest))) => (module, (Half::B, rest)),
        _ => return Err(strange()),
    };
    if half.1.rsplit('.').next() != Some("weight") || half.1.matches('.').count() > 1 {
        return Err(strange());
    }
    let path = module.strip_prefix("base_model.model.").ok_or_else(strange)?;
    let path = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix)).unwrap_or(path);
    let layer = path.strip_prefix("layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let layer = layer.ok_or_else(strange)?;
    let found = TARGETS.into_iter().find(|part| {
        let weight = part.hf_name(config.architecture, Some(layer));
        weight.strip_suffix(".weight") == Some(path)
    });
    found.map(|part| (part, layer, half.0)).ok_or_else(strange)
}
