//! `adapter_config.json`: what the matrices are scaled by, and everything that makes an adapter more than plain LoRA,
//! refused by name.

use serde_json::Value;

use super::{MAX_RANK, TARGETS};
use crate::error::{Error, Result};
use crate::files::formats::json_file::{show, Fields};
use crate::model_config::ModelConfig;
use crate::suggest;

/// The fields that matter to plain LoRA.
pub struct PeftConfig {
    pub base_name: Option<String>,
    rank: usize,
    alpha: f64,
    rank_stabilised: bool,
    /// (module path or the end of one, value).
    rank_pattern: Vec<(String, usize)>,
    alpha_pattern: Vec<(String, f64)>,
    /// Names, when the config lists them; `None` for "all-linear" and other patterns.
    targets: Option<Vec<String>>,
}

/// Switches that change what is computed.
const SWITCHES: [&str; 6] =
    ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora", "ensure_weight_tying"];
/// Fields that change what is computed when they hold anything.
const EXTRAS: [&str; 8] = [
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
];
/// Initialisations that move part of the base weights into the adapter: it fits only a base that was changed too.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];

impl PeftConfig {
    /// # Errors: a field is wrong or not supported, by name; no file name in front.
    pub fn read(value: &Value) -> Result<PeftConfig> {
        let fields = Fields::of(value, "the file")?;
        check_plain(&fields)?;
        let rank = fields.get("r").map(|v| read_rank("r", v)).transpose()?.unwrap_or(8);
        let alpha = fields.get("lora_alpha").map(|v| read_alpha("lora_alpha", v)).transpose()?.unwrap_or(8.0);
        Ok(PeftConfig {
            base_name: fields.string("base_model_name_or_path")?.map(str::to_string),
            rank,
            alpha,
            rank_stabilised: fields.boolean("use_rslora")?.unwrap_or(false),
            rank_pattern: pattern(&fields, "rank_pattern", read_rank)?,
            alpha_pattern: pattern(&fields, "alpha_pattern", read_alpha)?,
            targets: targets(&fields)?,
        })
    }

    /// The rank declared for a module path (`model.layers.0.self_attn.q_proj`).
    pub fn rank_of(&self, module: &str) -> usize {
        find(&self.rank_pattern, module).unwrap_or(self.rank)
    }

    /// What its pair is multiplied by.
    pub fn scale_of(&self, module: &str, rank: usize) -> f32 {
        let alpha = find(&self.alpha_pattern, module).unwrap_or(self.alpha);
        let over = if self.rank_stabilised { (rank as f64).sqrt() } else { rank as f64 };
        (alpha / over) as f32
    }

    /// Refuses a listed target that no module of the model ends in, or for which no matrix was found. `found` holds the
    /// module paths that have one.
    pub fn check_targets(&self, config: &ModelConfig, found: &[String]) -> Result<()> {
        for target in self.targets.iter().flatten() {
            if found.iter().any(|module| ends_in(module, target)) {
                continue;
            }
            let modules = (0..config.n_layers).flat_map(|layer| TARGETS.map(|part| module_path(config, part, layer)));
            if modules.into_iter().any(|module| ends_in(&module, target)) {
                return Err(Error::input(format!("target \"{target}\" has no matrices in adapter_model.safetensors")));
            }
            let hint = closest(config, target).map_or(String::new(), |name| format!(" (did you mean \"{name}\"?)"));
            return Err(Error::input(format!("target \"{target}\" matches no layer{hint}")));
        }
        Ok(())
    }
}

/// `model.layers.7.self_attn.q_proj`, as transformers calls it in a text model.
pub fn module_path(config: &ModelConfig, part: crate::Part, layer: usize) -> String {
    let name = part.hf_name(config.architecture, Some(layer));
    format!("model.{}", name.strip_suffix(".weight").expect("targets are weights"))
}

fn check_plain(fields: &Fields) -> Result<()> {
    let unsupported = |what: &str| Err(Error::input(format!("{what} is not supported")));
    match fields.string("peft_type")? {
        Some("LORA") | None => {}
        Some(other) => return unsupported(&format!("peft_type \"{other}\"")),
    }
    for name in SWITCHES {
        if fields.boolean(name)? == Some(true) {
            return unsupported(name);
        }
    }
    for name in EXTRAS {
        let is_empty = |v: &Value| match v {
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        if fields.get(name).is_some_and(|v| !is_empty(v)) {
            return unsupported(name);
        }
    }
    match fields.string("bias")? {
        Some("none") | None => {}
        Some(other) => return unsupported(&format!("bias \"{other}\"")),
    }
    match fields.get("init_lora_weights") {
        Some(Value::String(how)) if CHANGES_BASE.iter().any(|c| how.starts_with(c)) => {
            Err(Error::input(format!("init_lora_weights \"{how}\" is not supported: save it converted to plain LoRA")))
        }
        _ => Ok(()),
    }
}

fn read_rank(name: &str, value: &Value) -> Result<usize> {
    match value.as_u64() {
        Some(r) if (1..=MAX_RANK as u64).contains(&r) => Ok(r as usize),
        _ => Err(Error::input(format!("{name} is {}; 1 to {MAX_RANK}", show(value)))),
    }
}

fn read_alpha(name: &str, value: &Value) -> Result<f64> {
    match value.as_f64() {
        Some(alpha) if alpha > 0.0 && (alpha as f32).is_finite() => Ok(alpha),
        _ => Err(Error::input(format!("{name} must be a positive number"))),
    }
}

/// PEFT takes the keys for regular expressions; the ones it writes are module paths, which is what is taken here.
fn pattern<T>(fields: &Fields, name: &str, read: impl Fn(&str, &Value) -> Result<T>) -> Result<Vec<(String, T)>> {
    let Some(object) = fields.object(name)? else { return Ok(Vec::new()) };
    let mut entries = Vec::new();
    for key in object.names() {
        let plain = key.strip_prefix('^').unwrap_or(key);
        let plain = plain.strip_suffix('$').unwrap_or(plain).replace("\\.", ".");
        if plain.contains(|c: char| "\\^$*+?()[]{}|".contains(c)) {
            return Err(Error::input(format!("{name} key \"{key}\" is a pattern; module names are supported")));
        }
        let value = object.get(key).ok_or_else(|| Error::input(format!("{name} \"{key}\" is null")))?;
        entries.push((plain, read(&format!("{name} \"{key}\""), value)?));
    }
    Ok(entries)
}

fn targets(fields: &Fields) -> Result<Option<Vec<String>>> {
    match fields.get("target_modules") {
        Some(Value::Array(list)) => {
            let name = |item: &Value| match item.as_str() {
                Some(name) => Ok(name.to_string()),
                None => Err(Error::input(format!("target_modules holds {}; names expected", show(item)))),
            };
            list.iter().map(name).collect::<Result<Vec<_>>>().map(Some)
        }
        Some(Value::String(_)) | None => Ok(None),
        Some(other) => Err(Error::input(format!("target_modules is {}; a list expected", show(other)))),
    }
}

fn find<T: Copy>(entries: &[(String, T)], module: &str) -> Option<T> {
    entries.iter().find(|(key, _)| ends_in(module, key)).map(|(_, value)| *value)
}

/// True when `end` is the whole path or its last components.
fn ends_in(module: &str, end: &str) -> bool {
    module.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The target name nearest to a misspelt one, if any is near.
fn closest(config: &ModelConfig, target: &str) -> Option<String> {
    let last = target.rsplit('.').next().unwrap_or(target);
    let names = TARGETS.map(|part| {
        let path = module_path(config, part, 0);
        path.rsplit('.').next().expect("split gives one item at least").to_string()
    });
    suggest::closest(names.iter().map(String::as_str), last).map(str::to_string)
}
