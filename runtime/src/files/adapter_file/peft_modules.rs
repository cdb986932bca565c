//! Which modules an adapter stands beside: `target_modules`, `exclude_modules`, `modules_to_save`, `layers_to_transform` and
//! `layers_pattern`, as PEFT's `check_target_module_exists` reads them.

use serde_json::Value;

use super::peft_pattern::Pattern;
use crate::error::{Error, Result};
use crate::files::formats::json_file::{show, Fields};

/// Most names in a list: a model of 64 layers has 448 linear layers.
const MAX_NAMES: usize = 4096;
/// What stands for every linear layer but the head, in any case.
const ALL_LINEAR: &str = "all-linear";
/// What PEFT takes for both families where the config names nothing (its table of architectures).
const DEFAULT_TARGETS: [&str; 2] = ["q_proj", "v_proj"];

/// Modules by name, or by one expression over the whole path.
enum Modules {
    /// Whole paths, or the last components of some.
    Names(Vec<String>),
    Pattern(String),
    AllLinear,
}

/// The fields that choose modules.
pub struct ModuleChoice {
    targets: Modules,
    excluded: Option<Modules>,
    saved: Vec<String>,
    /// `None` for every layer.
    layers: Option<Vec<u64>>,
    layer_patterns: Vec<String>,
}

impl ModuleChoice {
    /// # Errors: a field is wrong or not a usable expression, by name.
    pub fn read(fields: &Fields) -> Result<ModuleChoice> {
        let targets = match modules(fields, "target_modules")? {
            Some(Modules::Pattern(text)) if text.eq_ignore_ascii_case(ALL_LINEAR) => Modules::AllLinear,
            Some(modules) => modules,
            None => Modules::Names(DEFAULT_TARGETS.map(str::to_string).to_vec()),
        };
        // An empty text excludes nothing, though as an expression it would match an empty path.
        let excluded =
            modules(fields, "exclude_modules")?.filter(|m| !matches!(m, Modules::Pattern(t) if t.is_empty()));
        let choice = ModuleChoice {
            targets,
            excluded,
            saved: names(fields, "modules_to_save")?.unwrap_or_default(),
            layers: layers(fields)?,
            layer_patterns: layer_patterns(fields)?,
        };
        choice.check()?;
        Ok(choice)
    }

    /// What PEFT refuses, and expressions that cannot be used: said even where no module would ask for them.
    fn check(&self) -> Result<()> {
        if self.layers.is_some() && !matches!(self.targets, Modules::Names(_)) {
            return Err(Error::input("layers_to_transform needs a list of names as target_modules"));
        }
        if self.layers.is_none() && !self.layer_patterns.is_empty() {
            return Err(Error::input("layers_pattern needs layers_to_transform"));
        }
        self.are_targets(&[]).map(|_| ())
    }

    /// `target_modules` where it is a list of names.
    pub fn target_names(&self) -> &[String] {
        match &self.targets {
            Modules::Names(names) => names,
            Modules::Pattern(_) | Modules::AllLinear => &[],
        }
    }

    /// `modules_to_save`.
    pub fn saved(&self) -> &[String] {
        &self.saved
    }

    /// Whether PEFT would put an adapter beside each of these linear layers of the blocks. Each expression is compiled once,
    /// and held while it is used.
    ///
    /// # Errors
    /// An expression takes too many steps.
    pub fn are_targets(&self, paths: &[&str]) -> Result<Vec<bool>> {
        let mut chosen = match &self.targets {
            Modules::AllLinear => vec![true; paths.len()],
            Modules::Names(names) => paths.iter().map(|path| is_named(names, path)).collect(),
            Modules::Pattern(text) => matching(&Pattern::of_path("target_modules", text)?, paths)?,
        };
        let mut leave_out = |out: Vec<bool>| chosen.iter_mut().zip(out).for_each(|(chosen, out)| *chosen &= !out);
        match &self.excluded {
            Some(Modules::Names(names)) => leave_out(paths.iter().map(|path| is_named(names, path)).collect()),
            Some(Modules::Pattern(text)) => leave_out(matching(&Pattern::of_path("exclude_modules", text)?, paths)?),
            Some(Modules::AllLinear) | None => {}
        }
        for name in &self.saved {
            leave_out(matching(&Pattern::of_saved(name)?, paths)?);
        }
        // An empty list chooses every layer.
        if let Some(layers) = self.layers.as_ref().filter(|layers| !layers.is_empty()) {
            let of = self.layers_of(paths)?;
            leave_out(of.into_iter().map(|layer| !layer.is_some_and(|layer| layers.contains(&layer))).collect());
        }
        Ok(chosen)
    }

    /// The layer of each path, by the first of the patterns that finds one.
    fn layers_of(&self, paths: &[&str]) -> Result<Vec<Option<u64>>> {
        let mut patterns: Vec<Option<&str>> = self.layer_patterns.iter().map(|p| Some(p.as_str())).collect();
        if patterns.is_empty() {
            patterns.push(None);
        }
        let mut layers = vec![None; paths.len()];
        for pattern in patterns {
            let pattern = Pattern::of_layers(pattern)?;
            for (layer, path) in layers.iter_mut().zip(paths).filter(|(layer, _)| layer.is_none()) {
                *layer = pattern.layer_of(path)?;
            }
        }
        Ok(layers)
    }
}

fn matching(pattern: &Pattern, paths: &[&str]) -> Result<Vec<bool>> {
    paths.iter().map(|path| pattern.matches(path)).collect()
}

/// True when one of the names is the whole path or its last components.
fn is_named(names: &[String], path: &str) -> bool {
    names.iter().any(|name| ends_in(path, name))
}

/// True when `end` is the whole path or its last components.
pub fn ends_in(path: &str, end: &str) -> bool {
    path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn modules(fields: &Fields, name: &str) -> Result<Option<Modules>> {
    match fields.get(name) {
        Some(Value::String(text)) => Ok(Some(Modules::Pattern(text.clone()))),
        _ => Ok(names(fields, name)?.map(Modules::Names)),
    }
}

fn names(fields: &Fields, name: &str) -> Result<Option<Vec<String>>> {
    let list = match fields.get(name) {
        None => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(Error::input(format!("{name} is {}; a list expected", show(other)))),
    };
    if list.len() > MAX_NAMES {
        return Err(Error::input(format!("{name} holds {} names; at most {MAX_NAMES}", list.len())));
    }
    let text = |item: &Value| match item.as_str() {
        Some(text) => Ok(text.to_string()),
        None => Err(Error::input(format!("{name} holds {}; names expected", show(item)))),
    };
    list.iter().map(text).collect::<Result<Vec<_>>>().map(Some)
}

/// `layers_to_transform`: a number or a list of them.
fn layers(fields: &Fields) -> Result<Option<Vec<u64>>> {
    let wrong =
        |value: &Value| Error::input(format!("layers_to_transform holds {}; numbers of layers expected", show(value)));
    let number = |value: &Value| value.as_u64().ok_or_else(|| wrong(value));
    match fields.get("layers_to_transform") {
        None => Ok(None),
        Some(Value::Array(list)) if list.len() > MAX_NAMES => {
            Err(Error::input(format!("layers_to_transform holds {} numbers; at most {MAX_NAMES}", list.len())))
        }
        Some(Value::Array(list)) => list.iter().map(number).collect::<Result<Vec<_>>>().map(Some),
        Some(value) => Ok(Some(vec![number(value)?])),
    }
}

/// `layers_pattern`: an expression or a list of them, none when empty.
fn layer_patterns(fields: &Fields) -> Result<Vec<String>> {
    match fields.get("layers_pattern") {
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        _ => Ok(names(fields, "layers_pattern")?.unwrap_or_default()),
    }
}
