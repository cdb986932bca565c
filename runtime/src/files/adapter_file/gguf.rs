//! GGUF adapters (llama.cpp `convert_lora_to_gguf.py`): `<tensor of the base>.lora_a` `[rank, inputs]` and `.lora_b`
//! `[outputs, rank]`, one alpha for all.

use lichen_kernels::formats::decode;

use super::base::BaseRecord;
use super::{AdapterFile, Half, HalfMatrix, Pairs, TARGETS};
use crate::error::{Error, Result};
use crate::files::formats::gguf::{BytesOwner, Gguf, Metadata};
use crate::files::model_source::Part;
use crate::model_config::ModelConfig;
use crate::setting::MODEL;

pub(super) fn parse(bytes: BytesOwner, config: &ModelConfig) -> Result<AdapterFile> {
    let gguf = Gguf::parse(bytes)?;
    let metadata = gguf.metadata();
    check_kind(metadata, config)?;
    let alpha = alpha(metadata)?;
    let mut pairs = Pairs::new(config);
    for tensor in gguf.tensors() {
        let Some((part, layer, half)) = target_of(&tensor.name) else {
            return Err(Error::input(format!("\"{}\" is not a LoRA matrix of a layer", tensor.name)));
        };
        let mut values = vec![0.0; tensor.shape().iter().product()];
        decode(tensor.format, gguf.tensor_bytes(tensor).as_slice(), &mut values);
        let matrix = HalfMatrix { name: tensor.name.clone(), shape: tensor.shape().to_vec(), values };
        pairs.add(part, layer, half, matrix)?;
    }
    // llama.cpp takes an alpha of 0 for "as it is".
    let scale = |rank: usize| if alpha == 0.0 { 1.0 } else { alpha / rank as f32 };
    let targets = pairs.finish(|_, _, rank, _| Ok(scale(rank)))?;
    let base_name = metadata.string("general.base_model.0.name")?.map(str::to_string);
    let (base, note) = BaseRecord::read(|key| metadata.string(key).ok().flatten());
    Ok(AdapterFile { base_name, base, notes: note.into_iter().collect(), ..AdapterFile::of(targets) })
}

fn check_kind(metadata: &Metadata, config: &ModelConfig) -> Result<()> {
    if metadata.string("general.type")? != Some("adapter") {
        return Err(Error::input(format!("is a model, not an adapter: pass it with {MODEL}")));
    }
    match metadata.string("adapter.type")? {
        Some("lora") => {}
        other => {
            return Err(Error::input(format!("adapter.type \"{}\" is not supported (lora)", other.unwrap_or("none"))));
        }
    }
    let architecture = metadata.string("general.architecture")?.unwrap_or("none");
    let ours = config.architecture.gguf_name();
    if architecture != ours {
        return Err(Error::input(format!("made for architecture \"{architecture}\"; this model is {ours}")));
    }
    match metadata.get("adapter.alora.invocation_tokens") {
        Some(_) => Err(Error::input("adapter.alora.invocation_tokens: activated LoRA is not supported")),
        None => Ok(()),
    }
}

fn alpha(metadata: &Metadata) -> Result<f32> {
    let key = "adapter.lora.alpha";
    match metadata.float(key)?.unwrap_or(0.0) {
        // Written so that NaN is refused.
        alpha if alpha >= 0.0 && alpha.is_finite() => Ok(alpha),
        alpha => Err(Error::input(format!("\"{key}\" is {alpha}; 0 or a positive number expected"))),
    }
}

/// `blk.7.attn_q.weight.lora_a` -> (AttnQ, 7, A).
fn target_of(name: &str) -> Option<(Part, usize, Half)> {
    let (base, half) = match name.rsplit_once('.')? {
        (base, "lora_a") => (base, Half::A),
        (base, "lora_b") => (base, Half::B),
        _ => return None,
    };
    let layer = base.strip_prefix("blk.")?.split('.').next()?.parse().ok()?;
    let part = TARGETS.into_iter().find(|part| part.gguf_name(Some(layer)) == base)?;
    Some((part, layer, half))
}
