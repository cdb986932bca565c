//! `adapter_config.json`: what the matrices are scaled by, and everything that makes an adapter more than plain LoRA,
//! refused by name.

use serde_json::Value;

use super::peft_modules::ModuleChoice;
use super::peft_pattern::Pattern;
use super::{MAX_RANK, TARGETS};
use crate::error::{Error, Result};
use crate::files::formats::json_file::{show, Fields};
use crate::model_config::ModelConfig;
use crate::suggest;

/// The fields that matter to plain LoRA.
pub struct PeftConfig {
    pub base_name: Option<String>,
    pub modules: ModuleChoice,
    /// Whether a trained embedding is the head's too, where the base ties them (`ensure_weight_tying`).
    pub ties_tables: bool,
    rank: usize,
    alpha: f64,
    rank_stabilised: bool,
    /// (expression, value), in the file's order: the first that matches counts.
    rank_pattern: Vec<(String, usize)>,
    alpha_pattern: Vec<(String, f64)>,
}

/// What the config says of one module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModuleRule {
    /// Whether it has an adapter.
    pub is_target: bool,
    pub rank: usize,
    pub alpha: f64,
}

/// Switches that change what is computed.
const SWITCHES: [&str; 4] = ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"];
/// Fields that change what is computed when they hold anything.
const EXTRAS: [&str; 8] = [
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
];
/// Initialisations that move part of the base weights into the adapter: it fits only a base that was changed too.
const CHANGES_BASE: [&str; 5] = ["pissa", "olora", "corda", "loftq", "lora_ga"];
/// Tasks whose models end in something else than the head over the vocabulary.
const OTHER_TASKS: [&str; 4] = ["SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS", "SEQ_2_SEQ_LM"];
/// Most keys of `rank_pattern` and `alpha_pattern`: programs that choose ranks by themselves write one for each module, of
/// which a model of 64 layers has 448.
const MAX_KEYS: usize = 1024;

impl PeftConfig {
    /// # Errors: a field is wrong or not supported, by name; no file name in front.
    pub fn read(value: &Value) -> Result<PeftConfig> {
        let fields = Fields::of(value, "the file")?;
        check_plain(&fields)?;
        let rank = fields.get("r").map(|v| read_rank("r", v)).transpose()?.unwrap_or(8);
        let alpha = fields.get("lora_alpha").map(|v| read_alpha("lora_alpha", v)).transpose()?.unwrap_or(8.0);
        Ok(PeftConfig {
            base_name: fields.string("base_model_name_or_path")?.map(str::to_string),
            modules: ModuleChoice::read(&fields)?,
            ties_tables: fields.boolean("ensure_weight_tying")?.unwrap_or(false),
            rank,
            alpha,
            rank_stabilised: fields.boolean("use_rslora")?.unwrap_or(false),
            rank_pattern: pattern(&fields, "rank_pattern", read_rank)?,
            alpha_pattern: pattern(&fields, "alpha_pattern", read_alpha)?,
        })
    }

    /// What the config says of each module of these paths (`model.layers.0.self_attn.q_proj`, without `base_model.model.`).
    ///
    /// # Errors
    /// An expression takes too many steps.
    pub fn rules(&self, paths: &[&str]) -> Result<Vec<ModuleRule>> {
        let targets = self.modules.are_targets(paths)?;
        let ranks = values_by_pattern("rank_pattern", &self.rank_pattern, paths)?;
        let alphas = values_by_pattern("alpha_pattern", &self.alpha_pattern, paths)?;
        let rules = targets.into_iter().zip(ranks).zip(alphas).map(|((is_target, rank), alpha)| ModuleRule {
            is_target,
            rank: rank.unwrap_or(self.rank),
            alpha: alpha.unwrap_or(self.alpha),
        });
        Ok(rules.collect())
    }

    /// What the pair of a module is multiplied by.
    pub fn scale(&self, rule: &ModuleRule) -> f32 {
        let rank = rule.rank as f64;
        (rule.alpha / if self.rank_stabilised { rank.sqrt() } else { rank }) as f32
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
    match fields.string("task_type")? {
        Some(task) if OTHER_TASKS.contains(&task) => return unsupported(&format!("task_type \"{task}\"")),
        _ => {}
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
            Value::Bool(is_on) => !is_on,
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

/// The keys are regular expressions, each of which must be usable.
fn pattern<T>(fields: &Fields, name: &str, read: impl Fn(&str, &Value) -> Result<T>) -> Result<Vec<(String, T)>> {
    let Some(object) = fields.object(name)? else { return Ok(Vec::new()) };
    let n = object.names().count();
    if n > MAX_KEYS {
        return Err(Error::input(format!("{name} holds {n} keys; at most {MAX_KEYS}")));
    }
    let mut entries = Vec::with_capacity(n);
    for key in object.names() {
        Pattern::of_key(name, key)?;
        let value = object.get(key).ok_or_else(|| Error::input(format!("{name} \"{key}\" is null")))?;
        entries.push((key.to_string(), read(&format!("{name} \"{key}\""), value)?));
    }
    Ok(entries)
}

/// The value of the first key that matches each path. A key is compiled once, and held while all paths are tried.
fn values_by_pattern<T: Copy>(field: &str, entries: &[(String, T)], paths: &[&str]) -> Result<Vec<Option<T>>> {
    let mut values = vec![None; paths.len()];
    for (key, value) in entries {
        let pattern = Pattern::of_key(field, key)?;
        for (found, path) in values.iter_mut().zip(paths).filter(|(found, _)| found.is_none()) {
            if pattern.matches(path)? {
                *found = Some(*value);
            }
        }
    }
    Ok(values)
}

/// The target name nearest to a misspelt one, if any is near.
pub fn closest(config: &ModelConfig, target: &str) -> Option<String> {
    let last = target.rsplit('.').next().unwrap_or(target);
    let names = TARGETS.map(|part| {
        let path = module_path(config, part, 0);
        path.rsplit('.').next().expect("split gives one item at least").to_string()
    });
    suggest::closest(names.iter().map(String::as_str), last).map(str::to_string)
}
