//! `lichen info`: what a model file holds and what this machine would do with it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use lichen_kernels::cuda::{self, Cuda, DeviceInfo};
use lichen_kernels::Format;
use lichen_runtime::escape::thousands;
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::loader::demo;
use lichen_runtime::loader::{stop_ids, EngineOptions, PreparedModel};
use lichen_runtime::memory_plan::mib;
use lichen_runtime::text::tokenizer::TokenizerKind;
use lichen_runtime::{Architecture, ModelConfig, Part};
use serde_json::{json, Value};

use crate::args::{engine_options, MachineArgs, ModelArgs};
use crate::opening::print_notes;
use crate::output::{self, Outcome};

const EXAMPLES: &str = "Examples:
  lichen info
  lichen info --model gemma-3-1b-it-Q8_0.gguf --json";

/// Say what a model is made of, and what this machine computes with
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct InfoArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    machine: MachineArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &InfoArgs) -> Outcome<()> {
    let options = engine_options(&args.model, &args.machine)?;
    let prepared = PreparedModel::new(&options)?;
    print_notes(&prepared.notes);
    let parts = parts(&prepared)?;
    let facts = as_json(&prepared, &parts, &options)?;
    if args.json {
        output::json(&facts)
    } else {
        as_text(&prepared, &parts, &facts, &options)
    }
}

/// Matrices of one role, by format, with their number.
type Parts = Vec<(&'static str, BTreeMap<&'static str, usize>)>;

fn parts(prepared: &PreparedModel) -> Outcome<Parts> {
    let mut parts: Parts =
        ["embedding", "attention", "feed-forward", "head", "norms and biases"].map(|n| (n, BTreeMap::new())).into();
    for (part, layer) in Part::of_model(prepared.source.config()) {
        let role = match part {
            Part::TokenEmbedding => 0,
            Part::AttnQ | Part::AttnK | Part::AttnV | Part::AttnOutput => 1,
            Part::FfnGate | Part::FfnUp | Part::FfnDown => 2,
            Part::Output => 3,
            _ => 4,
        };
        // What is stored in several planes is bitsandbytes' NF4: int8 folders are refused.
        let format = prepared.source.plain_format(part, layer)?.unwrap_or(Format::NF4);
        *parts[role].1.entry(format.name()).or_default() += 1;
    }
    parts.retain(|(_, formats)| !formats.is_empty());
    Ok(parts)
}

fn n_parameters(config: &ModelConfig) -> usize {
    let sizes = Part::of_model(config).map(|(part, _)| match part.shape(config) {
        PartShape::Vector(n) => n,
        PartShape::Matrix(rows, cols) => rows * cols,
    });
    sizes.sum()
}

fn as_json(prepared: &PreparedModel, parts: &Parts, options: &EngineOptions) -> Outcome<Value> {
    let config = prepared.source.config();
    let tokenizer = prepared.tokenizer.as_deref();
    let stops = stop_ids(Some(&prepared.source), tokenizer);
    let named = |id: u32| {
        let text = tokenizer.map(|t| String::from_utf8_lossy(t.token_bytes(id)).into_owned());
        json!({"id": id, "text": text})
    };
    let files: Vec<Value> =
        files(prepared, options).into_iter().map(|(path, bytes)| json!({"path": path, "bytes": bytes})).collect();
    let formats: Value = parts.iter().map(|(name, formats)| (name.to_string(), json!(formats))).collect();
    let (mapped, heap) = lichen_runtime::model::Model::planned_bytes(&prepared.source)?;
    Ok(json!({
        "model": prepared.name,
        "architecture": config.architecture.gguf_name(),
        "parameters": n_parameters(config),
        "layers": config.n_layers,
        "dim": config.dim,
        "hidden_dim": config.hidden_dim,
        "heads": config.n_heads,
        "kv_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "context_length": config.context_length,
        "sliding_window": config.sliding_window,
        "global_layers": config.is_global.iter().filter(|g| **g).count(),
        "tied_head": config.tied_head,
        "formats": formats,
        "converted_to_q8_0": converted(parts),
        "weights_bytes": prepared.source.weights_bytes(),
        "memory_bytes": {"mapped": mapped, "heap": heap},
        "tokenizer": tokenizer.map(|t| json!({"kind": kind_name(t.kind()), "tokens": t.vocab_size()})),
        "chat_template": template_name(prepared),
        "bos": prepared.source.bos_id().map(named),
        "stop_tokens": stops.ids().iter().map(|id| named(*id)).collect::<Vec<_>>(),
        "files": files,
        "device": prepared.device.describe(),
        "cuda": cuda_facts(),
    }))
}

/// Formats that are read but not computed with.
fn converted(parts: &Parts) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (name, n) in parts.iter().flat_map(|(_, formats)| formats) {
        let format = Format::ALL.into_iter().find(|f| f.name() == *name);
        if format.is_some_and(|f| !f.is_computed()) {
            *counts.entry(*name).or_default() += n;
        }
    }
    counts
}

/// Name and length of each file the model consists of.
fn files(prepared: &PreparedModel, options: &EngineOptions) -> Vec<(String, Option<u64>)> {
    if options.model.is_none() {
        return vec![("inside this program".to_string(), Some(demo::size_bytes() as u64))];
    }
    let length = |path: &PathBuf| std::fs::metadata(path).map(|m| m.len()).ok();
    prepared.source.files().iter().map(|path| (path.display().to_string(), length(path))).collect()
}

fn kind_name(kind: TokenizerKind) -> &'static str {
    match kind {
        TokenizerKind::SentencePiece => "sentencepiece",
        TokenizerKind::ByteLevel => "byte-level bpe",
    }
}

fn template_name(prepared: &PreparedModel) -> &'static str {
    match (prepared.source.chat_template(), prepared.source.config().architecture) {
        (Some(_), _) => "the model's own",
        (None, Architecture::Gemma3) => "built in: Gemma 3",
        (None, Architecture::Qwen2) => "built in: ChatML",
    }
}

fn as_text(prepared: &PreparedModel, parts: &Parts, facts: &Value, options: &EngineOptions) -> Outcome<()> {
    let config = prepared.source.config();
    let row = |name: &str, value: String| output::line(&format!("{name:<18}{value}"));
    row("model", prepared.name.clone())?;
    let parameters = n_parameters(config) as f64 / 1e6;
    row("architecture", format!("{}, {parameters:.1} million parameters", config.architecture.gguf_name()))?;
    row("layers", layers(config))?;
    row("width", format!("{}, feed-forward {}", config.dim, config.hidden_dim))?;
    let heads = format!("{} query, {} key/value, {} wide", config.n_heads, config.n_kv_heads, config.head_dim);
    row("heads", heads)?;
    let tied = if config.tied_head { "the head is the embedding" } else { "the head has weights of its own" };
    row("vocabulary", format!("{}, {tied}", thousands(config.vocab_size as u64)))?;
    row("context", format!("{} positions", thousands(config.context_length as u64)))?;
    for (name, formats) in parts {
        let list: Vec<String> = formats.iter().map(|(format, n)| format!("{n} {format}")).collect();
        row(name, list.join(", "))?;
    }
    let converted = converted(parts);
    if !converted.is_empty() {
        let list: Vec<String> = converted.iter().map(|(format, n)| format!("{n} {format}")).collect();
        row("converted", format!("{} become Q8_0 in memory", list.join(", ")))?;
    }
    let tokenizer = match &prepared.tokenizer {
        Some(t) => format!("{}, {} tokens", kind_name(t.kind()), thousands(t.vocab_size() as u64)),
        None => "none: only --tokens can be used".to_string(),
    };
    row("tokenizer", tokenizer)?;
    row("chat template", template_name(prepared).to_string())?;
    let stops = facts["stop_tokens"].as_array().map(Vec::as_slice).unwrap_or_default();
    let stops: Vec<String> =
        stops.iter().map(|s| format!("{} {}", s["id"], s["text"].as_str().unwrap_or(""))).collect();
    row("stop tokens", stops.join(", "))?;
    for (path, bytes) in files(prepared, options) {
        row("file", format!("{path}, {}", bytes.map_or("unknown size".to_string(), |n| mib(n as usize))))?;
    }
    row("device", facts["device"].as_str().unwrap_or_default().to_string())?;
    let cuda = &facts["cuda"];
    row("cuda kernels", cuda["kernels"].as_str().unwrap_or_default().to_string())?;
    let devices = cuda["devices"].as_array().map(Vec::as_slice).unwrap_or_default();
    for device in devices {
        let text = |key: &str| device[key].as_str().unwrap_or_default();
        let memory = mib(device["memory_bytes"].as_u64().unwrap_or(0) as usize);
        row("cuda device", format!("{} {}, {}, {memory}", device["ordinal"], text("name"), text("capability")))?;
    }
    match cuda["driver"].as_str() {
        Some(driver) => row("cuda driver", driver.to_string()),
        None => Ok(()),
    }
}

/// The kernels in this program, and the devices of this machine.
fn cuda_facts() -> Value {
    let archs: Vec<String> = cuda::embedded_archs().iter().map(|arch| format!("sm_{arch}")).collect();
    let kernels = cuda::NOT_COMPILED.map_or(format!("for {}", archs.join(", ")), str::to_string);
    match Cuda::list() {
        Ok(devices) => {
            let driver = devices.first().map(|d| driver_name(d.driver_version));
            let devices: Vec<Value> = devices.iter().map(device_facts).collect();
            json!({"kernels": kernels, "driver": driver, "devices": devices})
        }
        Err(error) => json!({"kernels": kernels, "driver": error.to_string(), "devices": []}),
    }
}

fn device_facts(device: &DeviceInfo) -> Value {
    json!({
        "ordinal": device.ordinal,
        "name": device.name,
        "capability": format!("sm_{}", device.capability),
        "memory_bytes": device.total_bytes,
        "shares_memory": device.is_integrated,
        "multiprocessors": device.n_sms,
    })
}

/// 10020 is CUDA 10.2.
fn driver_name(version: u32) -> String {
    format!("CUDA {}.{}", version / 1000, version % 1000 / 10)
}

fn layers(config: &ModelConfig) -> String {
    let global = config.is_global.iter().filter(|g| **g).count();
    match config.sliding_window {
        Some(window) => format!("{}, {global} global, the others see {window} positions", config.n_layers),
        None => format!("{}, all global", config.n_layers),
    }
}
