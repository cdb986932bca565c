//! `lichen-train plan`: the memory bill of a job, before anything is allocated.

use clap::Args;
use lichen_kernels::Format;
use lichen_runtime::available_memory::available_bytes;
use lichen_runtime::cli::args::weight_format;
use lichen_runtime::cli::output::{self, Outcome};
use lichen_runtime::engine::{self, DeviceChoice, EngineOptions};
use lichen_runtime::geometry;
use lichen_runtime::memory_plan::{mib, ModelBytes};
use lichen_runtime::model::Model;
use lichen_trainer::job::{plan_of, Kind};
use lichen_trainer::plan::start_device;
use serde_json::json;

use crate::job_args::{FullFlags, JobArgs, LoraFlags};

const EXAMPLES: &str = "Examples:
  lichen-train plan --model gemma-3-1b-it-Q8_0.gguf --rank 8 --max-seq 256 --memory-budget 1.7GiB
  lichen-train plan --geometry qwen2.5-7b --format nf4 --rank 32 --json
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
    let (name, config, bytes) = match &args.geometry {
        Some(name) => {
            start_device(&job.engine)?;
            let config = geometry::config(name)?;
            let heap = geometry::weights_bytes(&config, args.format)?;
            (format!("{name} {}", args.format), config, ModelBytes { heap, ..ModelBytes::default() })
        }
        None => {
            start_device(&job.engine)?;
            let cpu = EngineOptions { device: DeviceChoice::Cpu, ..job.engine.clone() };
            let opened = engine::Opened::new(&cpu)?;
            let (mapped, heap) = Model::planned_bytes(&opened.source)?;
            let tokenizer = opened.tokenizer.map_or(0, |t| t.memory_bytes());
            let bytes = ModelBytes { mapped, heap, tokenizer, ..ModelBytes::default() };
            (opened.name, opened.source.config().clone(), bytes)
        }
    };
    let plan = plan_of(&job, &config, bytes, 0);
    let budget = job.engine.memory_budget;
    if args.job.json {
        let items: Vec<_> = plan.items.iter().map(|i| json!({"name": i.name, "bytes": i.bytes})).collect();
        output::json(&json!({
            "model": name,
            "trainable_parameters": plan.n_parameters,
            "batch": job.batch,
            "max_seq": job.data_options.max_seq,
            "kept_layers": plan.rows.kept_layers,
            "threads": job.engine.n_threads(),
            "items": items,
            "total_bytes": plan.total_bytes(),
            "budget_bytes": budget,
            "available_bytes": available_bytes(),
            "fits": plan.check(budget).is_ok(),
        }))?;
    } else {
        let how = plan.describe_layers();
        let (n, batch, max_seq) = (plan.n_parameters, job.batch, job.data_options.max_seq);
        output::line(&format!("{name}: {n} trained parameters, {batch} x {max_seq} tokens, {how}"))?;
        output::line(&plan.to_string())?;
        if let Some(available) = available_bytes() {
            output::line(&format!("{:<26}{:>12}", "the system has left", mib(available)))?;
        }
    }
    plan.check(budget)?;
    Ok(())
}
