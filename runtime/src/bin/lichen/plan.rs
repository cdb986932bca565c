//! `lichen plan`: the memory bill, before anything is allocated.

use clap::Args;
use lichen_kernels::Format;
use lichen_runtime::board::device_config::KvCacheChoice;
use lichen_runtime::loader::{plan_synthetic, PreparedModel};
use lichen_runtime::memory_plan::available_memory::available_bytes;
use lichen_runtime::memory_plan::{mib, MemoryPlan};
use serde_json::json;

use crate::args::{engine_options, weight_format, MachineArgs, ModelArgs, ParallelArgs};
use crate::output::{self, Outcome};

const EXAMPLES: &str = "Examples:
  lichen plan --model gemma-3-1b-it-Q8_0.gguf --context 8192 --memory-budget 1.5GiB
  lichen plan --geometry qwen2.5-7b --format q4_0 --json
  lichen plan --geometry qwen2.5-72b --format nf4 --batch 32 --context 4096 --device cuda";

/// Say how much memory a model needs, part by part, before anything is allocated
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Shape of a released model, without its weights: gemma-3-270m, gemma-3-1b, qwen2.5-0.5b, -1.5b, -7b, -72b
    #[arg(long, value_name = "NAME", conflicts_with_all = ["model", "adapter"])]
    geometry: Option<String>,
    /// Weight format of --geometry: f32, f16, bf16, q8_0, q4_0 or nf4
    #[arg(long, value_name = "FORMAT", default_value = "q8_0", requires = "geometry", value_parser = weight_format)]
    format: Format,
    #[command(flatten)]
    parallel: ParallelArgs,
    #[command(flatten)]
    machine: MachineArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &PlanArgs) -> Outcome<()> {
    let mut options = engine_options(&args.model, &args.machine)?;
    args.parallel.fill(&mut options)?;
    let (name, plan) = match &args.geometry {
        Some(name) => {
            let device = options.start_device()?;
            (format!("{name} {}", args.format), plan_synthetic(name, args.format, &options, &device)?)
        }
        None => {
            let opened = PreparedModel::new(&options)?;
            (opened.name, opened.plan)
        }
    };
    if args.json {
        output::json(&as_json(&name, &plan, options.memory_budget))?;
    } else {
        let limits = &plan.limits;
        let batch = plan.batch.map_or(String::new(), |b| {
            format!(", {} sequences at once, pages for {} of the full context", b.n_slots, b.n_contexts)
        });
        output::line(&format!(
            "{name}: context {}, kv cache {}, {} threads, {} prompt tokens at once{batch}",
            limits.context,
            KvCacheChoice::Format(limits.kv_format).name(),
            limits.n_threads,
            limits.chunk
        ))?;
        output::line(&plan.to_string())?;
        if let Some(available) = available_bytes() {
            output::line(&format!("{:<26}{:>12}", "the system has left", mib(available)))?;
        }
    }
    plan.check(options.memory_budget)?;
    Ok(())
}

fn as_json(name: &str, plan: &MemoryPlan, budget: Option<usize>) -> serde_json::Value {
    let items: Vec<_> = plan.items.iter().map(|i| json!({"name": i.name, "bytes": i.bytes})).collect();
    let limits = &plan.limits;
    json!({
        "model": name,
        "context": limits.context,
        "kv_cache": KvCacheChoice::Format(limits.kv_format).name(),
        "threads": limits.n_threads,
        "prefill_chunk": limits.chunk,
        "batch": plan.batch.map(|b| b.n_slots),
        "batch_contexts": plan.batch.map(|b| b.n_contexts),
        "items": items,
        "total_bytes": plan.total_bytes(),
        "budget_bytes": budget,
        "available_bytes": available_bytes(),
        "fits": plan.check(budget).is_ok(),
    })
}
