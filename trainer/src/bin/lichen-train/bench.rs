//! `lichen-train bench`: seconds a step of a released model's shape, on random weights and tokens.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use lichen_kernels::Device;
use lichen_kernels::Format;
use lichen_runtime::cli::args::{number, weight_format, DeviceArgs};
use lichen_runtime::cli::output::{self, Outcome};
use lichen_runtime::measure::bench::peak_rss_bytes;
use lichen_runtime::memory_plan::{mib, ModelBytes, Place};
use lichen_runtime::model::presets;
use lichen_runtime::model::synthetic;
use lichen_runtime::{Error, ModelConfig};
use lichen_trainer::data::Sample;
use lichen_trainer::full::Full;
use lichen_trainer::job::parse_targets;
use lichen_trainer::layers::Layers;
use lichen_trainer::lora::{Lora, Targets};
use lichen_trainer::machine::{host, prepare_kernels, Machine};
use lichen_trainer::network::{Mode, Network};
use lichen_trainer::optimizer::AdamWSettings;
use lichen_trainer::plan::{HostAndGpu, JobSize, Recompute, TrainPlan};
use serde_json::json;

const EXAMPLES: &str = "Examples:
  lichen-train bench --geometry gemma-3-1b --format q8_0 --rank 8 --max-seq 256 --steps 5 --threads 2 --json
  lichen-train bench --geometry qwen2.5-0.5b --format bf16 --full --batch 16 --max-seq 512 --device cuda

Weights and tokens are random and made in memory; every position is labelled. The first step warms up and is not counted.";

/// Measure training on this machine, before any model or data is downloaded to it
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// Shape of a released model: gemma-3-270m, gemma-3-1b, qwen2.5-0.5b, -1.5b, -7b, -72b
    #[arg(long, value_name = "NAME", default_value = "gemma-3-1b")]
    geometry: String,
    /// Format of the weights that are multiplied: f32, f16, bf16, q8_0, q4_0 or nf4
    #[arg(long, value_name = "FORMAT", default_value = "q8_0", value_parser = weight_format)]
    format: Format,
    /// Train every weight, instead of an adapter; --format is f32 or bf16 then
    #[arg(long)]
    full: bool,
    /// Rank of the adapter
    #[arg(long, value_name = "R", default_value = "8", value_parser = number(1usize, 1024))]
    rank: usize,
    /// Matrices with an adapter: all, or some of q,k,v,o,gate,up,down
    #[arg(long, value_name = "LIST", default_value = "all", value_parser = parse_targets)]
    targets: Targets,
    /// Layers with an adapter, from 0: all, or such as 18-25 or 18,20-25
    #[arg(long, value_name = "RANGES", default_value = "all", value_parser = Layers::parse)]
    layers: Layers,
    /// Tokens of each sample, all of them computed and labelled
    #[arg(long, value_name = "TOKENS", default_value = "256", value_parser = number(1usize, 1 << 20))]
    max_seq: usize,
    /// Samples computed together
    #[arg(long, visible_alias = "batch", value_name = "N", default_value = "1", value_parser = number(1usize, 4096))]
    micro_batch_size: usize,
    /// Steps that are measured
    #[arg(long, value_name = "N", default_value = "5", value_parser = number(1usize, 100_000))]
    steps: usize,
    /// Recompute layers in the backward pass instead of keeping them: auto, on or off
    #[arg(long, value_name = "WHEN", default_value = "auto", value_parser = Recompute::parse)]
    checkpoint_activations: Recompute,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A network to be measured.
struct Ready {
    device: Arc<Device>,
    /// As it was before the network.
    machine: Machine,
    plan: TrainPlan,
    network: Network,
    n_threads: usize,
}

pub fn run(args: &BenchArgs) -> Outcome<()> {
    let Ready { device, machine, plan, mut network, n_threads } = start(args)?;
    let Measured { seconds, median, losses } = measure(args, &mut network)?;
    let tokens_per_s = (args.micro_batch_size * args.max_seq) as f64 / median;
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    if args.json {
        return output::json(&json!({
            "geometry": args.geometry,
            "format": args.format.name(),
            "full": args.full,
            "rank": plan.rows.rank,
            "trainable_parameters": plan.n_parameters,
            "micro_batch_size": args.micro_batch_size,
            "max_seq": args.max_seq,
            "steps": args.steps,
            "threads": n_threads,
            "device": device.describe(),
            "kept_layers": plan.rows.kept_layers,
            "s_per_step": median,
            "s_per_step_min": seconds[0],
            "s_per_step_max": seconds[seconds.len() - 1],
            "tokens_per_s": tokens_per_s,
            "peak_rss_bytes": peak_rss_bytes(),
            "gpu_bytes": gpu_bytes(&device, &machine)?,
            "planned_bytes": plan.total_bytes(),
            "planned_gpu_bytes": plan.bytes_in(&[Place::Device]),
            "loss_first": first,
            "loss_last": last,
            "version": env!("CARGO_PKG_VERSION"),
        }));
    }
    let peak = peak_rss_bytes().map_or("not known here".to_string(), mib);
    let gpu = match gpu_bytes(&device, &machine)? {
        Some(bytes) => {
            format!("\nGPU memory        {:>13}     planned {}", mib(bytes), mib(plan.bytes_in(&[Place::Device])))
        }
        None => String::new(),
    };
    let how = plan.describe_layers();
    output::line(&format!(
        "{} {}, {}, {how}\nstep              {median:>9.3} s         {:.3} to {:.3}\ntokens/s          {tokens_per_s:>9.1}\n\
         peak memory       {peak:>13}     planned {}{gpu}\nloss              {first:>9.4}           then {last:.4}",
        args.geometry,
        args.format,
        device.describe(),
        seconds[0],
        seconds[seconds.len() - 1],
        mib(plan.bytes_in(&[Place::Mapped, Place::Host, Place::Pinned])),
    ))
}

fn start(args: &BenchArgs) -> Outcome<Ready> {
    let (options, _) = args.device.filled()?.with_board()?;
    let device = options.start_device()?;
    let machine = Machine::of(&device)?;
    let config = presets::config(&args.geometry)?;
    if let Some(last) = args.layers.last().filter(|last| *last >= config.n_layers) {
        let message = format!("--layers names layer {last}; 0 to {} in this model", config.n_layers - 1);
        return Err(Error::usage(message).into());
    }
    let mode = mode(args, &config)?;
    let size = JobSize {
        n_parameters: mode.n_parameters(),
        first_layer: mode.first_layer(),
        full_format: args.full.then_some(args.format),
        batch: args.micro_batch_size,
        max_seq: args.max_seq,
        rank: if args.full { 0 } else { args.rank },
        has_dropout: false,
        regression_prompts: HostAndGpu::default(),
    };
    let bytes = geometry_bytes(&config, args.format, args.full, &machine)?;
    let plan = TrainPlan::new(&config, bytes, &size, &machine, args.checkpoint_activations, options.memory_budget);
    plan.check(options.memory_budget)?;
    let table_format = if args.full { args.format } else { synthetic::table_format(args.format) };
    prepare_kernels(&device, &[args.format, table_format], None)?;
    // Weights that are to change are on the host before.
    let files = if args.full { Arc::new(host()?) } else { device.clone() };
    let model = Arc::new(synthetic::model(config, args.format, &files)?);
    let settings = AdamWSettings { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, clip: Some(1.0) };
    let mut network = Network::new(device.clone(), model, mode, settings, &plan.rows, args.micro_batch_size)?;
    if let Mode::Lora(lora) = network.mode() {
        let lora = lora.clone();
        network.set_values(|values| lora.initialise(values, 0))?;
    }
    Ok(Ready { device, machine, plan, network, n_threads: options.n_threads() })
}

fn mode(args: &BenchArgs, config: &ModelConfig) -> Outcome<Mode> {
    Ok(match (args.full, args.format) {
        (false, _) => Mode::Lora(Lora::new(config, args.targets, &args.layers, args.rank, 2.0 * args.rank as f32)),
        (true, Format::F32 | Format::BF16) => Mode::Full(Full::new(config), args.format),
        (true, other) => return Err(Error::usage(format!("--format is {other}; with --full f32 or bf16")).into()),
    })
}

/// What a model of random weights brings to the memory plan; in full training it is made on the host.
pub fn geometry_bytes(config: &ModelConfig, format: Format, full: bool, machine: &Machine) -> Outcome<ModelBytes> {
    Ok(match machine.gpu {
        Some(_) if !full => {
            let (device, heap) = synthetic::gpu_bytes(config, format)?;
            ModelBytes { device, heap, ..ModelBytes::default() }
        }
        _ => ModelBytes { heap: synthetic::weights_bytes(config, format)?, ..ModelBytes::default() },
    })
}

/// What has gone from the GPU's memory since the start.
fn gpu_bytes(device: &Device, start: &Machine) -> Outcome<Option<usize>> {
    Ok(match (device, start.gpu) {
        (Device::Cuda(cuda), Some(gpu)) => {
            let left = cuda.free_bytes().map_err(Error::from)?;
            Some(gpu.free_bytes.saturating_sub(left))
        }
        _ => None,
    })
}

/// What the steps took, in order of length, and the loss of each, the first one's included.
struct Measured {
    seconds: Vec<f64>,
    median: f64,
    losses: Vec<f64>,
}

fn measure(args: &BenchArgs, network: &mut Network) -> Outcome<Measured> {
    let vocab_size = network.model().config.vocab_size;
    let samples: Vec<Sample> = (0..args.micro_batch_size).map(|i| sample(i, args.max_seq, vocab_size)).collect();
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for step in 0..=args.steps {
        let start = Instant::now();
        let report = network.step(&samples, 1e-3, None)?;
        if step > 0 {
            seconds.push(start.elapsed().as_secs_f64());
        }
        losses.push(report.loss);
    }
    seconds.sort_by(f64::total_cmp);
    let median = (seconds[(seconds.len() - 1) / 2] + seconds[seconds.len() / 2]) / 2.0;
    Ok(Measured { seconds, median, losses })
}

/// One token more than rows: the last is a target alone.
fn sample(index: usize, rows: usize, vocab_size: usize) -> Sample {
    let id = |i: usize| ((i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20) % vocab_size as u64;
    let ids: Vec<u32> = (0..=rows).map(|i| id(index * (rows + 1) + i + 1) as u32).collect();
    Sample { labels: ids.iter().map(|id| *id as i32).collect(), ids, line: index + 1 }
}
