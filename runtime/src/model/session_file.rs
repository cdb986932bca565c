//! A session on disk: tokens, keys and values, so that a conversation goes on after a restart without computing it again,
//! and bit for bit as if it had never stopped.
//!
//! The container is safetensors: `tokens` (I32), `starts` (I32, first position each layer holds), `kv.NNNN` (U8, one per
//! layer). `__metadata__` carries the key (model, adapter, template, cache format) and a SHA-256 over all of it.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::formats::safetensors::{Dtype, SafeTensors};
use crate::files::formats::safetensors_write::{write_file, NewTensor};
use crate::files::mapped_file::MappedFile;
use crate::model::snapshot::{SequenceState, Snapshot};
use crate::setting::{CONTEXT, PREFILL_CHUNK};

const FORMAT: &str = "lichen-session-2";

/// What the caller keeps beside the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedState {
    /// The sampler's seed and step, so that the next draw is the one that would have come.
    pub sampler_seed: u64,
    pub sampler_step: u64,
    /// Whatever the caller wants back, such as the messages as JSON.
    pub note: String,
}

/// Writes what is kept to `path`, replacing what is there. `template` is the chat template's identity.
///
/// # Errors
/// The file cannot be written; the one that was there is untouched.
pub fn save(keeper: &dyn SequenceState, template: &str, state: &SavedState, path: &Path) -> Result<()> {
    let Snapshot { tokens, held, planes } = keeper.snapshot()?;
    let tokens: Vec<u8> = tokens.iter().flat_map(|t| (*t as i32).to_le_bytes()).collect();
    let starts: Vec<u8> = held.iter().flat_map(|h| (h.start as i32).to_le_bytes()).collect();
    let mut tensors = vec![
        (NewTensor::new("tokens", Dtype::I32, &[tokens.len() / 4]), tokens.as_slice()),
        (NewTensor::new("starts", Dtype::I32, &[starts.len() / 4]), starts.as_slice()),
    ];
    for (i, bytes) in planes.iter().enumerate() {
        tensors.push((NewTensor::new(layer_name(i), Dtype::U8, &[bytes.len()]), bytes));
    }
    let mut fields = key(keeper, template);
    fields.push(("sampler_seed", state.sampler_seed.to_string()));
    fields.push(("sampler_step", state.sampler_step.to_string()));
    fields.push(("note", state.note.clone()));
    let parts = tensors.iter().map(|(_, bytes)| *bytes);
    let digest = digest(fields.iter().map(|(k, v)| (*k, v.as_str())), parts);
    fields.push(("sha256", digest));
    let metadata: Vec<(&str, &str)> = fields.iter().map(|(k, v)| (*k, v.as_str())).collect();
    write_file(path, &tensors, &metadata)
}

/// Fills `keeper` from `path`. Nothing is changed unless the whole file is sound and belongs to this model, adapter and
/// template.
///
/// # Errors
/// What is wrong with the file, or which part of the key differs.
pub fn load(keeper: &mut dyn SequenceState, template: &str, path: &Path) -> Result<SavedState> {
    let file = MappedFile::open(path)?;
    let saved = SafeTensors::parse(file).map_err(|e| e.in_file(path))?;
    restore(keeper, template, &saved).map_err(|e| e.in_file(path))
}

fn restore(keeper: &mut dyn SequenceState, template: &str, saved: &SafeTensors) -> Result<SavedState> {
    let field = |name: &str| -> Result<&str> {
        let found = saved.metadata().iter().find(|(key, _)| key == name);
        found.map(|(_, v)| v.as_str()).ok_or_else(|| Error::input(format!("is not a saved session: no \"{name}\"")))
    };
    for (name, ours) in key(keeper, template) {
        let theirs = field(name)?;
        if theirs != ours {
            return Err(Error::input(format!("was saved with another {name} ({theirs}; here it is {ours})")));
        }
    }
    let n_layers = keeper.model().layers.len();
    let mut parts = vec![plane(saved, "tokens")?, plane(saved, "starts")?];
    for i in 0..n_layers {
        parts.push(plane(saved, &layer_name(i))?);
    }
    const FIELDS: [&str; 8] =
        ["session", "model", "adapter", "chat template", "cache", "sampler_seed", "sampler_step", "note"];
    let fields: Vec<(&str, &str)> = FIELDS.iter().map(|n| Ok((*n, field(n)?))).collect::<Result<_>>()?;
    if digest(fields.into_iter(), parts.iter().copied()) != field("sha256")? {
        return Err(Error::input("is damaged: its contents differ from its SHA-256"));
    }
    let (tokens, starts) = (integers(parts[0])?, integers(parts[1])?);
    let mut held: Vec<Range<usize>> = starts.iter().map(|s| *s as usize..tokens.len().max(*s as usize)).collect();
    check_room(keeper, &tokens, &held, &parts[2..])?;
    let mut planes: Vec<Cow<'_, [u8]>> = parts[2..].iter().map(|plane| Cow::Borrowed(*plane)).collect();
    for (i, (held, plane)) in held.iter_mut().zip(&mut planes).enumerate() {
        let n_kept = keeper.n_kept(i, held);
        if n_kept < held.len() {
            *plane = Cow::Owned(keeper.last_positions(i, plane, n_kept));
            held.start = held.end - n_kept;
        }
    }
    let number = |name: &str| -> Result<u64> {
        field(name)?.parse().map_err(|_| Error::input(format!("\"{name}\" is not a whole number")))
    };
    let state = SavedState {
        sampler_seed: number("sampler_seed")?,
        sampler_step: number("sampler_step")?,
        note: field("note")?.to_string(),
    };
    let planes: Vec<&[u8]> = planes.iter().map(|plane| &**plane).collect();
    keeper.restore(&tokens, &held, &planes)?;
    Ok(state)
}

fn check_room(keeper: &dyn SequenceState, tokens: &[u32], held: &[Range<usize>], planes: &[&[u8]]) -> Result<()> {
    let (context, vocab_size) = (keeper.limits().context, keeper.model().config.vocab_size);
    if tokens.len() > context {
        return Err(Error::limit(format!("holds {} tokens; {CONTEXT} is {context}", tokens.len())));
    }
    if let Some(id) = tokens.iter().find(|id| **id as usize >= vocab_size) {
        return Err(Error::input(format!("token {id} is outside the vocabulary of {vocab_size}")));
    }
    if held.len() != planes.len() {
        return Err(Error::input(format!("{} layer starts for {} layers", held.len(), planes.len())));
    }
    for (i, (held, bytes)) in held.iter().zip(planes).enumerate() {
        if !keeper.can_hold(i, held, tokens.len()) {
            return Err(Error::limit(format!(
                "layer {i} holds positions {}..{}; use the {CONTEXT} and {PREFILL_CHUNK} it was saved with",
                held.start, held.end
            )));
        }
        if keeper.saved_bytes(i, held.len()) != bytes.len() {
            return Err(Error::input(format!("layer {i} has {} bytes for {} positions", bytes.len(), held.len())));
        }
    }
    Ok(())
}

/// What must agree, under the names messages use.
fn key(keeper: &dyn SequenceState, template: &str) -> Vec<(&'static str, String)> {
    vec![
        ("session", FORMAT.to_string()),
        ("model", hex(&keeper.model().fingerprint)),
        ("adapter", keeper.adapter().map_or("none".to_string(), |fingerprint| hex(&fingerprint))),
        ("chat template", hex(&Sha256::digest(template.as_bytes()))),
        ("cache", keeper.limits().kv_format.name().to_string()),
    ]
}

fn layer_name(i: usize) -> String {
    format!("kv.{i:04}")
}

fn plane<'a>(saved: &'a SafeTensors, name: &str) -> Result<&'a [u8]> {
    let tensor =
        saved.tensor(name).ok_or_else(|| Error::input(format!("is not a saved session: no tensor \"{name}\"")))?;
    Ok(saved.tensor_slice(tensor))
}

fn integers(bytes: &[u8]) -> Result<Vec<u32>> {
    let whole = bytes.chunks_exact(4);
    if !whole.remainder().is_empty() {
        return Err(Error::input("a list of integers is cut"));
    }
    whole
        .map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .map(|v| u32::try_from(v).map_err(|_| Error::input(format!("{v} is not a token or position"))))
        .collect()
}

/// SHA-256 over every field and plane, each with its length, so that nothing can move between them.
fn digest<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>, planes: impl Iterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for (name, value) in fields {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    planes.for_each(&mut add);
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
