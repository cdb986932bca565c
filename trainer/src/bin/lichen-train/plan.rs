//! `lichen-train plan`: the memory plan of a job, before anything is allocated.

use clap::Args;
use lichen_kernels::Format;
use lichen_runtime::board::device_config::DeviceConfig;
use lichen_runtime::cli::args::weight_format;
use lichen_runtime::cli::output::{self, Outcome};
use lichen_runtime::engine::{self, DeviceChoice, EngineOptions};
use lichen_runtime::memory_plan::{mib, ModelBytes, Place};
use lichen_runtime::model::presets;
use lichen_runtime::setting::value::bytes;
use lichen_runtime::setting::{Setting, DEVICE, FORMAT, GEOMETRY};
use lichen_runtime::Error;
use lichen_trainer::job::{check_layers, model_bytes, plan_of, Job, MemorySettings, Method};
use lichen_trainer::machine::Machine;
use lichen_trainer::plan::{HostAndGpu, TrainPlan};
use serde_json::json;

use crate::bench::geometry_bytes;
use crate::job_flags::{fill, read_job_file, JobFlags, OfPlan};
use crate::train::JobFileArg;

const GPU_MEMORY: Setting = Setting::new("gpu_memory");

const EXAMPLES: &str = "Examples:
  lichen-train plan --model gemma-3-1b-it-Q8_0.gguf --rank 8 --max-seq 256 --memory-budget 1.7GiB
  lichen-train plan --geometry qwen2.5-7b --format nf4 --rank 32 --batch 16 --max-seq 512 --gpu-memory 80GB
  lichen-train plan --geometry gemma-3-1b --gpu-memory 4GiB --device-config device-configs/jetson-nano-4gb.toml
  lichen-train plan --geometry qwen2.5-0.5b --full --weights bf16
  lichen-train plan job.toml

Of a job file it uses what memory depends on, and of flags it has no others.";

/// Say how much memory a job needs, part by part, before anything is allocated
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    #[command(flatten)]
    file: JobFileArg,
    /// Shape of a released model, without its weights: gemma-3-270m, gemma-3-1b, qwen2.5-0.5b, -1.5b, -7b, -72b
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    geometry: Option<String>,
    /// Weight format of --geometry: f32, f16, bf16, q8_0, q4_0 or nf4 [default: q8_0]
    #[arg(long, value_name = "FORMAT", value_parser = weight_format)]
    format: Option<Format>,
    /// Every weight is trained, instead of an adapter
    #[arg(long)]
    full: bool,
    /// Plan for a GPU with this much memory that is not here; with a board's --device-config one that shares the board's
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    gpu_memory: Option<usize>,
    #[command(flatten)]
    flags: JobFlags<OfPlan>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A plan, and what it is for.
struct Planned {
    name: String,
    memory: MemorySettings,
    engine: EngineOptions,
    board: DeviceConfig,
    machine: Machine,
    plan: TrainPlan,
}

pub fn run(args: &PlanArgs) -> Outcome<()> {
    let planned = plan(args)?;
    match args.json {
        true => output::json(&as_json(&planned))?,
        false => print(&planned)?,
    }
    planned.plan.check(planned.engine.memory_budget)?;
    Ok(())
}

/// What shapes the memory of a job: of its file, and of flags, which win. What else the file says is checked and not used.
fn memory_settings(args: &PlanArgs) -> Result<MemorySettings, Error> {
    let file = args.file.job_file.as_deref().map(read_job_file).transpose()?.unwrap_or_default();
    let method = match args.full {
        true => Method::Full,
        false => file.method().unwrap_or_default(),
    };
    let mut job = Job::of(method);
    let in_file = |e: Error| match &args.file.job_file {
        Some(path) => e.in_file(path),
        None => e,
    };
    file.fill(&mut job).map_err(in_file)?;
    fill(&args.flags, &mut job)?;
    if args.format.is_some() && args.geometry.is_none() {
        return Err(Error::usage(format!("{FORMAT} is that of {GEOMETRY}; a model's file has its own")));
    }
    if args.gpu_memory.is_some() && args.flags.has(DEVICE) {
        return Err(Error::usage(format!("{DEVICE} is of this machine; {GPU_MEMORY} plans for another")));
    }
    Ok(job.memory)
}

fn plan(args: &PlanArgs) -> Outcome<Planned> {
    let memory = memory_settings(args)?;
    let (engine, board) = memory.engine_options()?;
    let machine = match args.gpu_memory {
        Some(bytes) => Machine::with_gpu(bytes, board.memory_mib.is_some()),
        None => Machine::of(&*engine.start_device()?)?,
    };
    let (name, config, bytes) = match &args.geometry {
        Some(name) => {
            let (config, format) = (presets::config(name)?, args.format.unwrap_or(Format::Q8_0));
            let bytes = geometry_bytes(&config, format, memory.method == Method::Full, &machine)?;
            (format!("{name} {format}"), config, bytes)
        }
        None => {
            let cpu = EngineOptions { device: DeviceChoice::Cpu, ..engine.clone() };
            let opened = engine::PreparedModel::new(&cpu)?;
            let tokenizer = opened.tokenizer.map_or(0, |t| t.memory_bytes());
            let bytes = ModelBytes { tokenizer, ..model_bytes(memory.method, &opened.source, &machine)? };
            (opened.name, opened.source.config().clone(), bytes)
        }
    };
    check_layers(&memory, &config)?;
    let plan = plan_of(&memory, &config, bytes, &machine, HostAndGpu::default(), engine.memory_budget);
    Ok(Planned { name, memory, engine, board, machine, plan })
}

fn as_json(planned: &Planned) -> serde_json::Value {
    let Planned { name, memory, engine, board, machine, plan } = planned;
    let item =
        |i: &lichen_runtime::memory_plan::Item| json!({"name": i.name, "bytes": i.bytes, "place": i.place.name()});
    let budget = engine.memory_budget;
    json!({
        "model": name,
        "trainable_parameters": plan.n_parameters,
        "micro_batch_size": memory.micro_batch_size,
        "max_seq": memory.max_seq,
        "kept_layers": plan.rows.kept_layers,
        "threads": engine.n_threads(),
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

fn print(planned: &Planned) -> Outcome<()> {
    let Planned { name, memory, engine, board, machine, plan } = planned;
    let how = plan.describe_layers();
    let (n, batch, max_seq) = (plan.n_parameters, memory.micro_batch_size, memory.max_seq);
    output::line(&format!("{name}: {n} trained parameters, {batch} x {max_seq} tokens, {how}"))?;
    output::line(&plan.to_string())?;
    let left = |whole: usize| match whole.checked_sub(plan.total_bytes()) {
        Some(bytes) => mib(bytes),
        None => "nothing".to_string(),
    };
    let lines = [
        ("the system has left", machine.host_bytes.map(mib)),
        ("the GPU has left", machine.gpu.map(|gpu| mib(gpu.free_bytes))),
        ("left of the budget", engine.memory_budget.map(left)),
        ("left of the board", board.memory_bytes().map(left)),
    ];
    for (name, size) in lines {
        if let Some(size) = size {
            output::line(&format!("{name:<26}{size:>12}"))?;
        }
    }
    Ok(())
}
