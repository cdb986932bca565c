//! `lichen bench`: tokens per second, the first token, memory, and how close decode comes to the memory bandwidth.

use std::sync::Arc;

use clap::Args;
use lichen_kernels::{Device, Format};
use lichen_runtime::board::device_config::KvCacheChoice;
use lichen_runtime::engine::Engine;
use lichen_runtime::loader::LoadedModel;
use lichen_runtime::measure::bench::{self, BenchOptions, BenchReport, Spread};
use lichen_runtime::memory_plan::{mib, Place};
use serde_json::{json, Value};

use crate::args::{engine_options, number, weight_format, MachineArgs, ModelArgs, ParallelArgs};
use crate::output::{self, Outcome};

const EXAMPLES: &str = "Examples:
  lichen bench --geometry gemma-3-1b --format q8_0 --prompt-tokens 128 --new-tokens 32 --threads 4
  lichen bench --model gemma-3-1b-it-Q8_0.gguf --json
  lichen bench --geometry qwen2.5-72b --format nf4 --batch 16 --context 1024

With --geometry the weights are random and made in memory: a board can be measured before anything is downloaded to it. \
Each figure is the median of --repeat runs, after one that warms up. With --batch all sequences are prefilled, then decoded \
together; the figures are those of all of them, and a --context that is given is used to its end.";

/// Measure prefill, decode, the first token, memory and its bandwidth
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Shape of a released model: gemma-3-270m, gemma-3-1b, qwen2.5-0.5b, -1.5b, -7b, -72b
    #[arg(long, value_name = "NAME", conflicts_with_all = ["model", "adapter"])]
    geometry: Option<String>,
    /// Weight format of --geometry: f32, f16, bf16, q8_0, q4_0 or nf4
    #[arg(long, value_name = "FORMAT", default_value = "q8_0", requires = "geometry", value_parser = weight_format)]
    format: Format,
    #[command(flatten)]
    parallel: ParallelArgs,
    /// Tokens of the prompt [default: 128; with --batch and --context, what the new tokens leave]
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = number(1usize, 1 << 20))]
    prompt_tokens: Option<usize>,
    /// Tokens decoded after it
    #[arg(long, value_name = "N", default_value = "32", allow_hyphen_values = true,
          value_parser = number(1usize, 1 << 20))]
    new_tokens: usize,
    /// Measured runs
    #[arg(long, value_name = "N", default_value = "3", allow_hyphen_values = true,
          value_parser = number(1usize, 1000))]
    repeat: usize,
    #[command(flatten)]
    machine: MachineArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: &BenchArgs) -> Outcome<()> {
    let mut options = engine_options(&args.model, &args.machine)?;
    args.parallel.fill(&mut options)?;
    let mut engine = match &args.geometry {
        Some(name) => Engine::new(Arc::new(LoadedModel::synthetic(name, args.format, &options)?))?,
        None => Engine::open(&options)?,
    };
    let (new_tokens, repeat) = (args.new_tokens, args.repeat);
    let left = options.context.filter(|_| options.parallel.is_some()).map(|c| c.saturating_sub(new_tokens).max(1));
    let prompt_tokens = args.prompt_tokens.or(left).unwrap_or(DEFAULT_PROMPT_TOKENS);
    let what = BenchOptions { prompt_tokens, new_tokens, repeat };
    let report = bench::run(&mut engine, &what)?;
    if args.json {
        output::json(&as_json(args, options.parallel, &what, engine.model(), &report))
    } else {
        output::line(&as_text(options.parallel, &what, engine.model(), &report))
    }
}

const DEFAULT_PROMPT_TOKENS: usize = 128;

/// Which of our kernels computed.
fn isa(device: &Device) -> String {
    match device {
        Device::Cpu(cpu) => cpu.isa.name().to_string(),
        Device::Cuda(cuda) => format!("sm_{}", cuda.arch()),
    }
}

fn as_json(
    args: &BenchArgs,
    parallel: Option<usize>,
    what: &BenchOptions,
    model: &LoadedModel,
    report: &BenchReport,
) -> Value {
    let limits = &model.plan.limits;
    let spread = |s: Spread| json!({"min": s.min, "max": s.max});
    json!({
        "model": if args.geometry.is_some() { Value::Null } else { json!(model.name) },
        "geometry": args.geometry,
        "format": model.model.layers[0].q.format().name(),
        "batch": parallel,
        "prompt_tokens": what.prompt_tokens,
        "new_tokens": args.new_tokens,
        "repeat": args.repeat,
        "context": limits.context,
        "kv_cache": KvCacheChoice::Format(limits.kv_format).name(),
        "threads": limits.n_threads,
        "isa": isa(&model.device),
        "device": model.device.describe(),
        "version": env!("CARGO_PKG_VERSION"),
        "prefill_tokens_per_s": report.prefill_tokens_per_s.median,
        "decode_tokens_per_s": report.decode_tokens_per_s.median,
        "decode_bytes_per_token": report.decode_bytes_per_token,
        "memory_bandwidth_gb_per_s": report.memory_bandwidth_gb_per_s.median,
        "memory_bandwidth_fraction": report.memory_bandwidth_fraction(),
        "load_s": model.load_s,
        "time_to_first_token_s": report.time_to_first_token_s,
        "peak_rss_bytes": report.peak_rss_bytes,
        "planned_bytes": model.plan.total_bytes(),
        "planned_device_bytes": model.plan.bytes_in(Place::Device),
        "spread": {
            "prefill_tokens_per_s": spread(report.prefill_tokens_per_s),
            "decode_tokens_per_s": spread(report.decode_tokens_per_s),
            "memory_bandwidth_gb_per_s": spread(report.memory_bandwidth_gb_per_s),
        },
    })
}

fn as_text(parallel: Option<usize>, what: &BenchOptions, model: &LoadedModel, report: &BenchReport) -> String {
    let range = |s: Spread, unit: &str| format!("{:>9.1} {unit:<9} {:.1} to {:.1}", s.median, s.min, s.max);
    let peak = report.peak_rss_bytes.map_or("not known here".to_string(), mib);
    let times = parallel.map_or(String::new(), |n| format!("{n} x "));
    let (n_prompt, n_new) = (what.prompt_tokens, what.new_tokens);
    let rows = [
        ("model", format!("{} {}, {}", model.name, model.model.layers[0].q.format(), model.device.describe())),
        ("prefill", format!("{}  ({times}{n_prompt} tokens)", range(report.prefill_tokens_per_s, "tokens/s"))),
        ("decode", format!("{}  ({times}{n_new} tokens)", range(report.decode_tokens_per_s, "tokens/s"))),
        ("bytes per token", format!("{:>9.1} MB", report.decode_bytes_per_token as f64 / 1e6)),
        ("memory bandwidth", range(report.memory_bandwidth_gb_per_s, "GB/s")),
        ("used by decode", format!("{:>9.1} %", 100.0 * report.memory_bandwidth_fraction())),
        ("load", format!("{:>9.3} s", model.load_s)),
        ("first token", format!("{:>9.3} s         from the start of loading", report.time_to_first_token_s)),
        ("peak memory", format!("{peak:>13}     planned {}", mib(model.plan.total_bytes()))),
    ];
    let lines: Vec<String> = rows.iter().map(|(name, value)| format!("{name:<18}{value}")).collect();
    lines.join("\n")
}
