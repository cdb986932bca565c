//! `lichen-train plan`: the memory bill of a job, before anything is allocated.

use clap::Args;
use lichen_kernels::Format;
use lichen_runtime::cli::args::{bytes, weight_format};
use lichen_runtime::cli::output::{self, Outcome};
use lichen_runtime::device_config::DeviceConfig;
use lichen_runtime::engine::{self, DeviceChoice, EngineOptions};
use lichen_runtime::memory_plan::{mib, ModelBytes, Place};
use lichen_runtime::presets;
use lichen_trainer::job::{model_bytes, plan_of, Job, Kind};
use lichen_trainer::machine::Machine;
use lichen_trainer::plan::{HostAndGpu, TrainPlan};
use serde_json::json;

use crate::bench::geometry_bytes;
use crate::job_args::{FullFlags, JobArgs, LoraFlags};

const EXAMPLES: &str = "Examples:
  lichen-train plan --model gemma-3-1b-it-Q8_0.gguf --rank 8 --max-seq 256 --memory-budget 1.7GiB
  lichen-train plan --geometry qwen2.5-7b --format nf4 --rank 32 --batch 16 --max-seq 512 --gpu-memory 80GB
  lichen-train plan --geometry gemma-3-1b --gpu-memory 4GiB --device-config device-configs/jetson-nano-4gb.toml
  lichen-train plan --geometry qwen2.5-0.5b --full --weights bf16";

/// Say how much memory a job needs, part by part, before anything is allocated
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    /// Shape of a released model, without its weights: gemma-3-270m, gemma-3-1b, qwen2.5-0.5b, -1.5b, -7b, -72b
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    geometry: Option<String>,
    /// Weight format of --geometry: f32, f16, bf16, q8_0, q4_0 or nf4
    #[arg(long, value_name = "FORMAT", default_value = "q8_0", value_parser = weight_format)]
    format: Format,
    /// Every weight is trained, instead of an adapter
    #[arg(long)]
    full: bool,
    /// In full training, the format that the forward pass multiplies: f32 or bf16
    #[arg(long, value_name = "FORMAT", default_value = "f32", value_parser = ["f32", "bf16"])]
    weights: String,
    /// Bill a GPU with this much memory that is not here; with a board's --device-config one that shares the board's
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    gpu_memory: Option<usize>,
    #[command(flatten)]
    lora: LoraFlags,
    #[command(flatten)]
    job: JobArgs,
}

pub fn run(args: &PlanArgs) -> Outcome<()> {
    let weights = if args.weights == "bf16" { Format::BF16 } else { Format::F32 };
    let kind: Kind = match args.full {
        true => FullFlags { weights, learning_rate: 1e-5 }.kind(),
        false => args.lora.kind(),
    };
    let job = args.job.sized(kind, args.lora.learning_rate)?;
    let board = args.job.device.options(None)?.1;
    let machine = match args.gpu_memory {
        Some(bytes) => Machine::with_gpu(bytes, board.memory_mib.is_some()),
        None => Machine::of(&*job.engine.start_device()?)?,
    };
    let (name, config, bytes) = match &args.geometry {
        Some(name) => {
            let config = presets::config(name)?;
            let bytes = geometry_bytes(&config, args.format, args.full, &machine)?;
            (format!("{name} {}", args.format), config, bytes)
        }
        None => {
            let cpu = EngineOptions { device: DeviceChoice::Cpu, ..job.engine.clone() };
            let opened = engine::Opened::new(&cpu)?;
            let tokenizer = opened.tokenizer.map_or(0, |t| t.memory_bytes());
            let bytes = ModelBytes { tokenizer, ..model_bytes(&job.kind, &opened.source, &machine)? };
            (opened.name, opened.source.config().clone(), bytes)
        }
    };
    let plan = plan_of(&job, &config, bytes, &machine, HostAndGpu::default());
    match args.job.json {
        true => output::json(&as_json(&name, &plan, &job, &machine, &board))?,
        false => print(&name, &plan, &job, &machine, &board)?,
    }
    plan.check(job.engine.memory_budget)?;
    Ok(())
}

fn as_json(name: &str, plan: &TrainPlan, job: &Job, machine: &Machine, board: &DeviceConfig) -> serde_json::Value {
    let item =
        |i: &lichen_runtime::memory_plan::Item| json!({"name": i.name, "bytes": i.bytes, "place": i.place.name()});
    let budget = job.engine.memory_budget;
    json!({
        "model": name,
        "trainable_parameters": plan.n_parameters,
        "batch": job.batch,
        "max_seq": job.data_options.max_seq,
        "kept_layers": plan.rows.kept_layers,
        "threads": job.engine.n_threads(),
        "items": plan.items.iter().map(item).collect::<Vec<_>>(),
        "total_bytes": plan.total_bytes(),
        "gpu_bytes": plan.bytes_in(&[Place::Device]),
        "budget_bytes": budget,
        "available_bytes": machine.host_bytes,
        "gpu_free_bytes": machine.gpu.map(|gpu| gpu.free_bytes),
        "board_bytes": board.memory_bytes(),
        "fits": plan.check(budget).is_ok(),
    })
}

fn print(name: &str, plan: &TrainPlan, job: &Job, machine: &Machine, board: &DeviceConfig) -> Outcome<()> {
    let how = plan.describe_layers();
    let (n, batch, max_seq) = (plan.n_parameters, job.batch, job.data_options.max_seq);
    output::line(&format!("{name}: {n} trained parameters, {batch} x {max_seq} tokens, {how}"))?;
    output::line(&plan.to_string())?;
    let left = |whole: usize| match whole.checked_sub(plan.total_bytes()) {
        Some(bytes) => mib(bytes),
        None => "nothing".to_string(),
    };
    let lines = [
        ("the system has left", machine.host_bytes.map(mib)),
        ("the GPU has left", machine.gpu.map(|gpu| mib(gpu.free_bytes))),
        ("left of the budget", job.engine.memory_budget.map(left)),
        ("left of the board", board.memory_bytes().map(left)),
    ];
    for (name, size) in lines {
        if let Some(size) = size {
            output::line(&format!("{name:<26}{size:>12}"))?;
        }
    }
    Ok(())
}
