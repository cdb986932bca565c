//! What a tensor of a PEFT file is, by its name: `base_model.model.<module path>.lora_A.weight`, and whole weights under
//! their own names.

use super::{Half, TARGETS};
use crate::error::{Error, Result};
use crate::files::model_source::Part;
use crate::model_config::ModelConfig;

/// What a tensor is to a text model of this family.
#[derive(Debug, PartialEq)]
pub enum Role<'a> {
    /// A half of a pair; `path` is the module's, as the file has it.
    Half { part: Part, layer: usize, half: Half, path: &'a str },
    /// A whole embedding or head, beside the base's own.
    Table { part: Part, path: &'a str },
    /// Of an image encoder, which a text model has not.
    OfImages,
    /// Of nothing that the model has; PEFT passes it over.
    Unknown,
}

/// Components that stand before the text model's own: multimodal models' of several releases, and wrappers of training
/// programs that were saved with it.
const OUTER: [&str; 5] = ["model", "language_model", "module", "_orig_mod", "_fsdp_wrapped_module"];
/// Components of which one names what images go through.
const OF_IMAGES: [&str; 5] = ["vision_tower", "vision_model", "multi_modal_projector", "vision_embed_tokens", "visual"];
/// Parts of names that stand for more than plain LoRA.
const EXTENSIONS: [(&str, &str); 4] = [
    ("lora_magnitude_vector", "DoRA"),
    ("lora_embedding_", "an adapter of the embedding"),
    ("lora_diag", "KaSA"),
    ("trainable_tokens", "trainable_token_indices"),
];

/// Where a module sits in the text model.
enum Module {
    Linear(Part, usize),
    Embedding,
    Head,
    /// A norm, a whole layer or the like.
    Other,
    Unknown,
}

/// # Errors
/// It changes what the model computes in a way that is not supported, by name.
pub fn role<'a>(name: &'a str, config: &ModelConfig) -> Result<Role<'a>> {
    let Some(path) = name.strip_prefix("base_model.model.") else { return Ok(Role::Unknown) };
    if path.split('.').any(|component| OF_IMAGES.contains(&component)) {
        return Ok(Role::OfImages);
    }
    let refuse = |what: &str| Err(Error::input(format!("\"{name}\": {what} is not supported")));
    if let Some((_, what)) = EXTENSIONS.iter().find(|(marker, _)| path.contains(marker)) {
        return refuse(what);
    }
    let halves = [(".lora_A.", Half::A), (".lora_B.", Half::B)];
    let Some((path, rest, half)) =
        halves.into_iter().find_map(|(marker, half)| path.split_once(marker).map(|(path, rest)| (path, rest, half)))
    else {
        return whole_weight(path, config, &refuse);
    };
    // The adapter's name may stand before what it is, as in files that were not written by PEFT itself.
    match rest.rsplit('.').next() {
        Some("weight") if rest.matches('.').count() <= 1 => {}
        Some("bias") => return refuse("lora_bias"),
        _ => return Ok(Role::Unknown),
    }
    match module_at(path, config) {
        Module::Linear(part, layer) => Ok(Role::Half { part, layer, half, path }),
        Module::Embedding => refuse("an adapter of the embedding"),
        Module::Head => refuse("an adapter of the head"),
        Module::Other | Module::Unknown => Ok(Role::Unknown),
    }
}

/// A weight that is no half of a pair: PEFT puts it in place of the base's.
fn whole_weight<'a>(
    path: &'a str,
    config: &ModelConfig,
    refuse: &dyn Fn(&str) -> Result<Role<'a>>,
) -> Result<Role<'a>> {
    let Some((module, last)) = path.rsplit_once('.') else { return Ok(Role::Unknown) };
    // The base's own, which some training programs save beside.
    if module.ends_with(".original_module") {
        return Ok(Role::Unknown);
    }
    let module = match module.split_once(".modules_to_save") {
        Some((module, name)) if name.matches('.').count() <= 1 => module,
        _ => module,
    };
    match (module_at(module, config), last) {
        (Module::Embedding, "weight") => Ok(Role::Table { part: Part::TokenEmbedding, path: module }),
        (Module::Head, "weight") => Ok(Role::Table { part: Part::Output, path: module }),
        (Module::Unknown, _) => Ok(Role::Unknown),
        _ => refuse("a whole weight other than the head's and the embedding's (modules_to_save, bias)"),
    }
}

fn module_at(path: &str, config: &ModelConfig) -> Module {
    let mut inner = path;
    while let Some((first, rest)) = inner.split_once('.').filter(|(first, _)| OUTER.contains(first)) {
        (inner, _) = (rest, first);
    }
    match inner {
        "embed_tokens" => return Module::Embedding,
        "lm_head" => return Module::Head,
        "norm" => return Module::Other,
        _ => {}
    }
    let layer = inner.strip_prefix("layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    let Some(layer) = layer else { return Module::Unknown };
    let is_at = |part: &Part, path: &str| {
        let name = part.hf_name(config.architecture, Some(layer));
        name.rsplit_once('.').is_some_and(|(module, _)| module == path)
    };
    if let Some(part) = TARGETS.into_iter().find(|part| is_at(part, inner)) {
        return Module::Linear(part, layer);
    }
    let mut own = Part::of_layer(config.architecture).iter();
    // A linear layer's weight where another adapter wraps it.
    let wrapped = inner.strip_suffix(".base_layer").unwrap_or(inner);
    match own.any(|part| is_at(part, wrapped)) {
        true => Module::Other,
        false => Module::Unknown,
    }
}
