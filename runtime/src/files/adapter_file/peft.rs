//! PEFT folders: `adapter_config.json` and `adapter_model.safetensors` with
//! `base_model.model.<module path>.lora_A.weight` `[rank, inputs]` and `.lora_B.weight` `[outputs, rank]`. Which tensors are
//! used, and how they are scaled, is what PEFT makes of the two files.

use std::collections::BTreeMap;
use std::path::Path;

use lichen_kernels::formats::decode;

use super::base::BaseRecord;
use super::peft_config::{closest, module_path, ModuleRule, PeftConfig};
use super::peft_modules::ends_in;
use super::peft_table::{tables, TableTensor};
use super::peft_tensor::{role, Role};
use super::{AdapterFile, Half, HalfMatrix, Pairs, TARGETS};
use crate::error::{Error, Result};
use crate::files::formats::gguf::BytesOwner;
use crate::files::formats::json_file::{self, read_json, MAX_CONFIG_BYTES};
use crate::files::formats::safetensors::{SafeTensors, TensorInfo};
use crate::files::mapped_file::MappedFile;
use crate::files::model_source::Part;
use crate::model_config::ModelConfig;

pub const CONFIG_FILE: &str = "adapter_config.json";
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

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
    read(MappedFile::open(&weights_path)?, &peft, config, &config_path, &weights_path)
}

/// The two files of a folder, in memory. Errors name the one they are about.
pub(super) fn parse(peft: &[u8], weights: BytesOwner, config: &ModelConfig) -> Result<AdapterFile> {
    let (config_path, weights_path) = (Path::new(CONFIG_FILE), Path::new(WEIGHTS_FILE));
    let peft = read_config(peft).map_err(|e| e.in_file(config_path))?;
    read(weights, &peft, config, config_path, weights_path)
}

fn read_config(bytes: &[u8]) -> Result<PeftConfig> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| Error::input(format!("is not UTF-8 from byte {}", e.valid_up_to())))?;
    PeftConfig::read(&json_file::parse(text)?)
}

fn read(
    weights: BytesOwner,
    peft: &PeftConfig,
    config: &ModelConfig,
    config_path: &Path,
    weights_path: &Path,
) -> Result<AdapterFile> {
    let (in_config, in_weights) = (|e: Error| e.in_file(config_path), |e: Error| e.in_file(weights_path));
    let tensors = SafeTensors::parse(weights).map_err(in_weights)?;
    let found = Found::new(&tensors, config).map_err(in_weights)?;
    let rules = found.rules(peft).map_err(in_config)?;
    if !found.halves.is_empty() && !rules.values().any(|rule| rule.is_target) {
        return Err(in_config(none_is_target(peft, config)));
    }
    let targets = found.pairs(&tensors, config, &rules).and_then(|pairs| {
        pairs.finish(|part, layer, rank, name| {
            let rule = rules[&(part, layer)];
            match rule.rank == rank {
                true => Ok(peft.scale(&rule)),
                false => Err(Error::input(format!("\"{name}\" has rank {rank}, the config says {}", rule.rank))),
            }
        })
    });
    let targets = targets.map_err(in_weights)?;
    let tables = tables(&tensors, &found.tables, peft, config).map_err(in_weights)?;
    let mut notes = found.notes(peft, config, &rules);
    let metadata = |key: &str| tensors.metadata().iter().find(|(name, _)| name == key).map(|(_, text)| text.as_str());
    let (base, note) = BaseRecord::read(metadata);
    notes.extend(note);
    let base_name = peft.base_name.clone();
    Ok(AdapterFile { targets, tables, base_name, base, notes })
}

/// The tensors of a file by what they are.
struct Found<'a> {
    halves: Vec<FoundHalf<'a>>,
    tables: Vec<TableTensor<'a>>,
    n_of_images: usize,
    unknown: Vec<&'a str>,
}

struct FoundHalf<'a> {
    tensor: &'a TensorInfo,
    part: Part,
    layer: usize,
    half: Half,
    /// The module's, as the file has it.
    path: &'a str,
}

/// By part and layer.
type Rules = BTreeMap<(Part, usize), ModuleRule>;

impl<'a> Found<'a> {
    /// # Errors
    /// A tensor stands for something that is not supported.
    fn new(tensors: &'a SafeTensors, config: &ModelConfig) -> Result<Found<'a>> {
        let mut found = Found { halves: Vec::new(), tables: Vec::new(), n_of_images: 0, unknown: Vec::new() };
        for tensor in tensors.tensors() {
            match role(&tensor.name, config)? {
                Role::Half { part, layer, half, path } => {
                    found.halves.push(FoundHalf { tensor, part, layer, half, path });
                }
                Role::Table { part, path } => found.tables.push(TableTensor { tensor, part, path }),
                Role::OfImages => found.n_of_images += 1,
                Role::Unknown => found.unknown.push(&tensor.name),
            }
        }
        Ok(found)
    }

    /// What the config says of each module that has a tensor.
    fn rules(&self, peft: &PeftConfig) -> Result<Rules> {
        let modules: BTreeMap<(Part, usize), &str> =
            self.halves.iter().map(|half| ((half.part, half.layer), half.path)).collect();
        let paths: Vec<&str> = modules.values().copied().collect();
        Ok(modules.into_keys().zip(peft.rules(&paths)?).collect())
    }

    /// The pairs of the modules that the config chooses.
    fn pairs<'c>(&self, tensors: &SafeTensors, config: &'c ModelConfig, rules: &Rules) -> Result<Pairs<'c>> {
        let mut pairs = Pairs::new(config);
        for half in self.halves.iter().filter(|half| rules[&(half.part, half.layer)].is_target) {
            pairs.add(half.part, half.layer, half.half, half_matrix(tensors, half.tensor)?)?;
        }
        Ok(pairs)
    }

    /// What is not used, and what the config names and the file has not: PEFT goes on with a warning, or with none.
    fn notes(&self, peft: &PeftConfig, config: &ModelConfig, rules: &Rules) -> Vec<String> {
        let mut notes = Vec::new();
        let left_out: Vec<&str> =
            self.halves.iter().filter(|h| !rules[&(h.part, h.layer)].is_target).map(|h| h.path).collect();
        if let [first, ..] = left_out[..] {
            let n = left_out.len();
            notes.push(format!(
                "{n} tensors are not used, because {CONFIG_FILE} does not choose their modules: \"{first}\"{}",
                if n > 2 { ", .." } else { "" }
            ));
        }
        if let [first, ..] = self.unknown[..] {
            let n = self.unknown.len();
            let more = if n > 1 { ", .." } else { "" };
            notes.push(format!(
                "{n} of its tensors belong to nothing in this model and are not used: \"{first}\"{more}"
            ));
        }
        if self.n_of_images > 0 {
            notes.push(format!("{} tensors of the image encoder are not used", self.n_of_images));
        }
        for target in peft.modules.target_names() {
            if !self.halves.iter().any(|half| ends_in(half.path, target)) {
                notes.push(match is_in_model(config, target) {
                    true => format!("target_modules names \"{target}\", and {WEIGHTS_FILE} has no matrices for it"),
                    false => no_layer(config, target),
                });
            }
        }
        notes
    }
}

/// Whether a linear layer of the model ends in this name.
fn is_in_model(config: &ModelConfig, target: &str) -> bool {
    let mut modules = (0..config.n_layers).flat_map(|layer| TARGETS.map(|part| module_path(config, part, layer)));
    modules.any(|module| ends_in(&module, target))
}

fn no_layer(config: &ModelConfig, target: &str) -> String {
    let hint = closest(config, target).map_or(String::new(), |name| format!(" (did you mean \"{name}\"?)"));
    format!("target \"{target}\" matches no layer{hint}")
}

fn none_is_target(peft: &PeftConfig, config: &ModelConfig) -> Error {
    match peft.modules.target_names().iter().find(|target| !is_in_model(config, target)) {
        Some(target) => Error::input(no_layer(config, target)),
        None => Error::input(format!("target_modules and exclude_modules choose no matrix of {WEIGHTS_FILE}")),
    }
}

fn half_matrix(tensors: &SafeTensors, tensor: &TensorInfo) -> Result<HalfMatrix> {
    let format = tensor.dtype.format().ok_or_else(|| not_a_weight(tensor))?;
    let mut values = vec![0.0; tensor.shape().iter().product()];
    decode(format, tensors.tensor_slice(tensor), &mut values);
    let name = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name).to_string();
    Ok(HalfMatrix { name, shape: tensor.shape().to_vec(), values })
}

pub(super) fn not_a_weight(tensor: &TensorInfo) -> Error {
    Error::input(format!("\"{}\" is {}; F32, F16 or BF16 is needed", tensor.name, tensor.dtype.name()))
}
