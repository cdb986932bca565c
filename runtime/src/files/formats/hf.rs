//! A Hugging Face model folder: which files it has, and where each tensor lies in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_kernels::SharedBytes;
use serde::Deserialize;
use serde_json::Value;

use super::json_file::{read_json, Fields, MAX_CONFIG_BYTES, MAX_LIST_BYTES};
use super::safetensors::{SafeTensors, TensorInfo};
use super::sampling::of_generation_config;
use crate::error::{Error, Result};
use crate::files::mapped_file::MappedFile;
use crate::sampler::SamplingOverrides;

const SINGLE_FILE: &str = "model.safetensors";
const INDEX_FILE: &str = "model.safetensors.index.json";
/// A 72B model in bf16 has 37 shards.
const MAX_SHARDS: usize = 4096;

/// One weight file of the folder.
pub struct Shard {
    pub path: PathBuf,
    pub file: Arc<MappedFile>,
    pub tensors: SafeTensors,
}

/// The weights of a folder: all shards, and every tensor by name.
pub struct HfWeights {
    shards: Vec<Shard>,
    /// (shard, index in its table), sorted by tensor name.
    by_name: Vec<(u32, u32)>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl HfWeights {
    /// Maps `model.safetensors`, or every shard that `model.safetensors.index.json` names, and checks their tables.
    ///
    /// # Errors
    /// Neither file is there; a shard's name leaves the folder, is missing or is not a regular file; a tensor is not in
    /// the shard the index names, or is in two. The file's name is in front.
    pub fn open(dir: &Path) -> Result<HfWeights> {
        let index_path = dir.join(INDEX_FILE);
        if dir.join(SINGLE_FILE).exists() {
            let shard = open_shard(dir.join(SINGLE_FILE))?;
            return HfWeights::new(vec![shard]).map_err(|e| e.in_file(dir));
        }
        if !index_path.exists() {
            return Err(Error::input(format!("has no {SINGLE_FILE}{}", other_weights(dir))).in_file(dir));
        }
        let index: Index = read_json(&index_path, MAX_LIST_BYTES)?;
        let in_index = |message: String| Error::input(format!("index: {message}")).in_file(&index_path);
        let mut names: Vec<&str> = index.weight_map.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        if names.len() > MAX_SHARDS {
            return Err(in_index(format!("{} shards; at most {MAX_SHARDS}", names.len())));
        }
        let mut shards = Vec::with_capacity(names.len());
        for name in &names {
            if !is_plain_file_name(name) {
                return Err(in_index(format!("shard name \"{name}\" leaves the model folder")));
            }
            let path = dir.join(name);
            if !path.exists() {
                return Err(in_index(format!("shard \"{name}\" is missing")));
            }
            shards.push(open_shard(path)?);
        }
        for (tensor, shard) in &index.weight_map {
            let at = names.binary_search(&shard.as_str()).expect("collected from the same map");
            if shards[at].tensors.tensor(tensor).is_none() {
                return Err(in_index(format!("tensor \"{tensor}\" is not in shard \"{shard}\"")));
            }
        }
        HfWeights::new(shards).map_err(|e| e.in_file(dir))
    }

    fn new(shards: Vec<Shard>) -> Result<HfWeights> {
        let mut by_name = Vec::with_capacity(shards.iter().map(|s| s.tensors.tensors().len()).sum());
        for (s, shard) in shards.iter().enumerate() {
            by_name.extend((0..shard.tensors.tensors().len()).map(|t| (s as u32, t as u32)));
        }
        let name = |at: &(u32, u32)| shards[at.0 as usize].tensors.tensors()[at.1 as usize].name.as_str();
        by_name.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        if let Some(pair) = by_name.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(Error::input(format!("tensor \"{}\" is in two shards", name(&pair[0]))));
        }
        Ok(HfWeights { shards, by_name })
    }

    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    pub fn tensor(&self, name: &str) -> Option<Found<'_>> {
        let found = self.by_name.binary_search_by(|at| self.at(*at).info.name.as_str().cmp(name)).ok()?;
        Some(self.at(self.by_name[found]))
    }

    /// Tensors whose names begin with `prefix`, sorted by name.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = Found<'a>> {
        let first = self.by_name.partition_point(|at| self.at(*at).info.name.as_str() < prefix);
        let rest = self.by_name[first..].iter().map(|at| self.at(*at));
        rest.take_while(move |found| found.info.name.starts_with(prefix))
    }

    fn at(&self, (shard, tensor): (u32, u32)) -> Found<'_> {
        let shard = &self.shards[shard as usize];
        Found { shard, info: &shard.tensors.tensors()[tensor as usize] }
    }
}

/// A tensor and the file it is in.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    pub shard: &'a Shard,
    pub info: &'a TensorInfo,
}

impl<'a> Found<'a> {
    pub fn bytes(&self) -> SharedBytes {
        self.shard.tensors.tensor_bytes(self.info)
    }

    pub fn slice(&self) -> &'a [u8] {
        self.shard.tensors.tensor_slice(self.info)
    }
}

fn open_shard(path: PathBuf) -> Result<Shard> {
    let file = MappedFile::open(&path)?;
    let tensors = SafeTensors::parse(file.clone()).map_err(|e| e.in_file(&path))?;
    Ok(Shard { path, file, tensors })
}

/// `[A-Za-z0-9._-]+`, not starting with a dot: stays inside the folder whatever the index says.
fn is_plain_file_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Weights in a format that can run code when opened are named, so that nobody wonders.
fn other_weights(dir: &Path) -> &'static str {
    if dir.join("pytorch_model.bin").exists() || dir.join("pytorch_model.bin.index.json").exists() {
        return " (pickled .bin weights are not read: convert them to safetensors)";
    }
    ""
}

/// The JSON files beside the weights that say what the model is.
pub struct HfConfig {
    /// `config.json`.
    pub config: Value,
    /// `generation_config.json`; null when absent.
    pub generation: Value,
    dir: PathBuf,
}

const CONFIG: &str = "config.json";
const GENERATION_CONFIG: &str = "generation_config.json";

impl HfConfig {
    /// # Errors: `config.json` is missing, or one of the two is not JSON. The file's name is in front.
    pub fn read(dir: &Path) -> Result<HfConfig> {
        let config_path = dir.join(CONFIG);
        if !config_path.exists() {
            return Err(Error::input("has no config.json: not a model folder").in_file(dir));
        }
        let generation_path = dir.join(GENERATION_CONFIG);
        let config = read_json(&config_path, MAX_CONFIG_BYTES)?;
        let generation = match generation_path.exists() {
            true => read_json(&generation_path, MAX_CONFIG_BYTES)?,
            false => Value::Null,
        };
        Ok(HfConfig { config, generation, dir: dir.to_path_buf() })
    }

    /// Ids that end an answer: `eos_token_id` of both files, a number or a list, and `eos_token_ids` of some writers.
    ///
    /// # Errors
    /// An id is not below `vocab_size`. The name of its file is in front.
    pub fn stop_ids(&self, vocab_size: usize) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for (file, value) in self.everywhere("eos_token_id").chain(self.everywhere("eos_token_ids")) {
            let id = |value| token_id("eos", value, vocab_size).map_err(|e| e.in_file(&self.dir.join(file)));
            match value {
                Value::Array(list) => {
                    for item in list {
                        ids.push(id(item)?);
                    }
                }
                one => ids.push(id(one)?),
            }
        }
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// # Errors: the id is not below `vocab_size`. The name of its file is in front.
    pub fn bos_id(&self, vocab_size: usize) -> Result<Option<u32>> {
        let first = self.everywhere("bos_token_id").next();
        first.map(|(file, v)| token_id("bos", v, vocab_size).map_err(|e| e.in_file(&self.dir.join(file)))).transpose()
    }

    /// How the model is sampled from.
    ///
    /// # Errors
    /// A value of another type, or out of range. The name of its file is in front.
    pub fn sampling(&self) -> Result<SamplingOverrides> {
        of_generation_config(&self.generation).map_err(|e| e.in_file(&self.dir.join(GENERATION_CONFIG)))
    }

    /// The field in generation_config.json, config.json and its text_config, where present, and the file it is in.
    fn everywhere<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'static str, &'a Value)> {
        let places = [
            (GENERATION_CONFIG, self.generation.get(name)),
            (CONFIG, self.config.get(name)),
            (CONFIG, self.config.get("text_config").and_then(|c| c.get(name))),
        ];
        places.into_iter().filter_map(|(file, value)| Some((file, value.filter(|v| !v.is_null())?)))
    }
}

fn token_id(what: &str, value: &Value, vocab_size: usize) -> Result<u32> {
    match value.as_u64() {
        Some(id) if id < vocab_size as u64 => Ok(id as u32),
        _ => Err(Error::input(format!("{what} token id {value} is outside the vocabulary of {vocab_size}"))),
    }
}

/// The chat template of a folder: `chat_template.jinja` first, as transformers does, then `tokenizer_config.json`.
pub fn chat_template(dir: &Path) -> Result<Option<String>> {
    let jinja_path = dir.join("chat_template.jinja");
    if jinja_path.exists() {
        return super::json_file::read_text_any(&jinja_path, MAX_CONFIG_BYTES).map(Some);
    }
    let config_path = dir.join("tokenizer_config.json");
    match config_path.exists() {
        true => template_in_json(&config_path),
        false => Ok(None),
    }
}

/// The `chat_template` of a JSON file: a string, or a list of which "default" or else the first is taken.
///
/// # Errors
/// The file cannot be read, or holds something else there. Its name is in front.
pub fn template_in_json(path: &Path) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct TokenizerConfig {
        chat_template: Option<Value>,
    }
    let config: TokenizerConfig = read_json(path, MAX_LIST_BYTES)?;
    let Some(template) = config.chat_template else { return Ok(None) };
    pick_template(&template).map_err(|e| e.in_file(path))
}

fn pick_template(value: &Value) -> Result<Option<String>> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Array(list) => {
            let mut first = None;
            for item in list {
                let fields = Fields::of(item, "chat_template entry")?;
                let template = fields.string("template")?.map(str::to_string);
                if fields.string("name")? == Some("default") {
                    return Ok(template);
                }
                first = first.or(template);
            }
            Ok(first)
        }
        other => Err(Error::input(format!(
            "chat_template is {}; a string or a list expected",
            super::json_file::show(other)
        ))),
    }
}
