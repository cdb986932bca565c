//! The files of a checkpoint: what training goes on from, and what others open.

use std::io::{self, Write};

use lichen_kernels::formats::float;
use lichen_kernels::Format;
use lichen_runtime::files::adapter_file::{AdapterFile, PeftAdapter, PeftTensor, CONFIG_FILE, WEIGHTS_FILE};
use lichen_runtime::files::formats::safetensors::{Dtype, SafeTensors};
use lichen_runtime::files::formats::safetensors_write::{Layout, NewTensor};
use lichen_runtime::files::model_source::{Part, PartShape};
use lichen_runtime::model::adapter::TARGETS;
use lichen_runtime::{Error, ModelConfig, Result};

use super::state::{State, STATE_FILE};
use super::ADAPTER_FILE;
use crate::checkpoint::{Checkpoint, CheckpointFile, Store};
use crate::full::Full;
use crate::lora::Lora;
use crate::network::{Mode, Network};

pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const MODEL_FILE: &str = "model.safetensors";
/// Tensors of [`OPTIMIZER_FILE`]: first and second moments, and in full training the weights in f32.
const MOMENTS: [&str; 2] = ["m", "v"];
const MASTER: &str = "master";

/// Writes a checkpoint. `extra` are files that come with it, by name; `dropout` and `base_name` go into PEFT's config.
pub fn save(
    store: &mut Store,
    network: &Network,
    state: &State,
    base_name: &str,
    dropout: f32,
    extra: &[(String, Vec<u8>)],
) -> Result<()> {
    let values = &network.values()?;
    if let Some(name) = network.first_bad_value(values) {
        return Err(Error::input(format!("{name} is not finite: nothing was saved")));
    }
    let trained = &TrainedState { network, values, state };
    match network.mode() {
        Mode::Lora(lora) => save_adapter(store, trained, lora, base_name, dropout, extra),
        Mode::Full(full, format) => save_model(store, trained, full, *format, extra),
    }
}

/// What is saved.
struct TrainedState<'a> {
    network: &'a Network,
    /// Of all parameters, on the host.
    values: &'a [f32],
    state: &'a State,
}

type WriteFile<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

/// A file whose bytes are there.
fn whole<'a>(name: &'a str, bytes: &'a [u8]) -> (&'a str, u64, WriteFile<'a>) {
    (name, bytes.len() as u64, Box::new(move |out| out.write_all(bytes)))
}

fn put(store: &mut Store, step: u64, files: &[(&str, u64, WriteFile<'_>)]) -> Result<()> {
    let files: Vec<CheckpointFile<'_>> =
        files.iter().map(|(name, len, write)| CheckpointFile { name, len: *len, write: &**write }).collect();
    store.save(step, &files)
}

fn save_adapter(
    store: &mut Store,
    trained: &TrainedState<'_>,
    lora: &Lora,
    base_name: &str,
    dropout: f32,
    extra: &[(String, Vec<u8>)],
) -> Result<()> {
    let TrainedState { network, values, state } = trained;
    let tensors: Vec<PeftTensor<'_>> =
        lora.pairs(values).map(|(layer, target, a, b)| PeftTensor { part: TARGETS[target], layer, a, b }).collect();
    let mut metadata = vec![
        ("lichen.step", state.step.to_string()),
        ("lichen.data_sha256", state.data_sha256.clone()),
        ("lichen.version", state.version.clone()),
    ];
    metadata.extend(state.base().entries());
    let config = &network.model().config;
    let (rank, alpha) = (lora.rank, lora.alpha);
    let peft = PeftAdapter { config, rank, alpha, dropout, base_name, tensors: &tensors, metadata: &metadata };
    let (config, readme) = (peft.config_json().into_bytes(), peft.readme().into_bytes());
    let (state_bytes, optimizer) = (state.to_bytes(), optimizer_layout(values.len(), false)?);
    let mut files = vec![
        (WEIGHTS_FILE, peft.tensors_len(), Box::new(|out: &mut dyn Write| peft.write_tensors(out)) as WriteFile<'_>),
        whole(CONFIG_FILE, &config),
        whole("README.md", &readme),
        optimizer_file(trained, &optimizer),
        whole(STATE_FILE, &state_bytes),
    ];
    files.extend(extra.iter().map(|(name, bytes)| whole(name, bytes)));
    put(store, state.step, &files)
}

fn save_model(
    store: &mut Store,
    trained: &TrainedState<'_>,
    full: &Full,
    format: Format,
    extra: &[(String, Vec<u8>)],
) -> Result<()> {
    let TrainedState { network, values, state } = trained;
    let config = &network.model().config;
    let (model, optimizer) = (model_layout(config, full, format)?, optimizer_layout(values.len(), true)?);
    let state_bytes = state.to_bytes();
    let write = |out: &mut dyn Write| write_model(config, full, values, &model, out);
    let mut files = vec![
        (MODEL_FILE, model.file_bytes(), Box::new(write) as WriteFile<'_>),
        optimizer_file(trained, &optimizer),
        whole(STATE_FILE, &state_bytes),
    ];
    files.extend(extra.iter().map(|(name, bytes)| whole(name, bytes)));
    put(store, state.step, &files)
}

/// Tensors of a Hugging Face folder: matrices in `format`, norms and biases likewise.
fn model_layout(config: &ModelConfig, full: &Full, format: Format) -> Result<Layout> {
    let dtype = if format == Format::BF16 { Dtype::BF16 } else { Dtype::F32 };
    let tensor = |part: Part, layer| {
        let shape = match part.shape(config) {
            PartShape::Vector(n) => vec![n],
            PartShape::Matrix(rows, cols) => vec![rows, cols],
        };
        NewTensor::new(hf_name(config, part, layer), dtype, &shape)
    };
    Layout::new(full.places().iter().map(|p| tensor(p.part, p.layer)).collect(), &[])
}

/// `model.layers.3.mlp.up_proj.weight`; the head stands outside.
fn hf_name(config: &ModelConfig, part: Part, layer: Option<usize>) -> String {
    let name = part.hf_name(config.architecture, layer);
    if part == Part::Output || name.starts_with("model.") {
        return name;
    }
    format!("model.{name}")
}

fn write_model(
    config: &ModelConfig,
    full: &Full,
    values: &[f32],
    layout: &Layout,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut data = layout.start(out)?;
    let mut bytes = Vec::new();
    for tensor in layout.tensors() {
        let named = |p: &&crate::full::Place| hf_name(config, p.part, p.layer) == tensor.name;
        let place = full.places().iter().find(named).expect("laid out from the same list");
        // Some files hold a norm's factor less one.
        let less = if place.part.is_norm() && config.block.norm_is_offset { 1.0 } else { 0.0 };
        for chunk in values[place.start..place.start + place.len].chunks(1 << 16) {
            let chunk: Vec<f32> = chunk.iter().map(|v| v - less).collect();
            bytes.clear();
            match tensor.dtype {
                Dtype::BF16 => float::encode_bf16(&chunk, &mut bytes),
                _ => bytes.extend_from_slice(bytemuck::cast_slice(&chunk)),
            }
            data.write(&bytes)?;
        }
    }
    data.finish();
    Ok(())
}

fn optimizer_layout(n: usize, master: bool) -> Result<Layout> {
    let names = MOMENTS.into_iter().chain(master.then_some(MASTER));
    Layout::new(names.map(|name| NewTensor::new(name, Dtype::F32, &[n])).collect(), &[])
}

fn optimizer_file<'a>(trained: &'a TrainedState<'a>, layout: &'a Layout) -> (&'a str, u64, WriteFile<'a>) {
    let TrainedState { network, values, .. } = trained;
    let write = move |out: &mut dyn Write| {
        let data = layout.start(out)?;
        let mut data = Counted(data);
        for tensor in layout.tensors() {
            match tensor.name.as_str() {
                "m" => network.optimizer.write_moments(false, &mut data)?,
                "v" => network.optimizer.write_moments(true, &mut data)?,
                _ => data.write_all(bytemuck::cast_slice(values))?,
            }
        }
        data.0.finish();
        Ok(())
    };
    (OPTIMIZER_FILE, layout.file_bytes(), Box::new(write))
}

/// The data of a file as a writer.
struct Counted<'w>(lichen_runtime::files::formats::safetensors_write::DataWriter<'w>);

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The state of a checkpoint, when its values are finite and it is a checkpoint of this job.
pub fn read_state(checkpoint: &Checkpoint) -> Result<State> {
    State::parse(&checkpoint.read(STATE_FILE)?)
}

/// Takes values and moments out of a checkpoint.
pub fn load(checkpoint: &Checkpoint, network: &mut Network, updates: u64) -> Result<()> {
    let optimizer = tensors(checkpoint, OPTIMIZER_FILE)?;
    let n = network.mode().n_parameters();
    for (second, name) in [(false, "m"), (true, "v")] {
        let bytes = tensor(&optimizer, name, 4 * n, OPTIMIZER_FILE)?;
        network.optimizer.read_moments(second, bytes)?;
    }
    network.optimizer.t = updates;
    match network.mode() {
        Mode::Lora(lora) => {
            let lora = lora.clone();
            let weights = std::sync::Arc::new(checkpoint.read(WEIGHTS_FILE)?);
            let file = AdapterFile::from_peft(&checkpoint.read(CONFIG_FILE)?, weights, &network.model().config)?;
            let mut checked = Ok(());
            network.set_values(|values| checked = lora.load(values, &file))?;
            checked
        }
        Mode::Full(..) => {
            let bytes = tensor(&optimizer, MASTER, 4 * n, OPTIMIZER_FILE)?;
            network.set_values(|values| bytemuck::cast_slice_mut(values).copy_from_slice(bytes))
        }
    }
}

/// Refuses moments that are not finite or not of this size.
pub fn check(checkpoint: &Checkpoint, n_parameters: usize) -> Result<()> {
    let optimizer = tensors(checkpoint, OPTIMIZER_FILE)?;
    for name in MOMENTS {
        let bytes = tensor(&optimizer, name, 4 * n_parameters, OPTIMIZER_FILE)?;
        let is_finite = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite();
        if !bytes.chunks_exact(4).all(is_finite) {
            return Err(Error::input(format!("{OPTIMIZER_FILE}: \"{name}\" holds values that are not finite")));
        }
    }
    Ok(())
}

fn tensors(checkpoint: &Checkpoint, name: &str) -> Result<SafeTensors> {
    let bytes = std::sync::Arc::new(checkpoint.read(name)?);
    SafeTensors::parse(bytes).map_err(|e| Error::input(format!("{name}: {}", e.message())))
}

fn tensor<'a>(file: &'a SafeTensors, name: &str, len: usize, file_name: &str) -> Result<&'a [u8]> {
    let found = file.tensor(name).map(|t| file.tensor_slice(t));
    found.filter(|bytes| bytes.len() == len).ok_or_else(|| {
        Error::input(format!("{file_name}: no \"{name}\" of {} values: the job's rank or targets differ", len / 4))
    })
}

/// [`ADAPTER_FILE`] as bytes.
pub fn adapter_file(value: &serde_json::Value) -> (String, Vec<u8>) {
    let mut text = serde_json::to_string_pretty(value).expect("plain data");
    text.push('\n');
    (ADAPTER_FILE.to_string(), text.into_bytes())
}
