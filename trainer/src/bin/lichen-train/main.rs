//! `lichen-train`: training on the device itself.
#![deny(unsafe_code)]

mod bench;
mod job_flags;
mod plan;
mod report;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lichen_runtime::cli::{self, usage};

const EXAMPLES: &str = "Examples:
  lichen-train lora --model gemma-3-1b-it-Q8_0.gguf --data robot.jsonl --out runs/robot
  lichen-train plan --geometry gemma-3-1b --format q8_0 --rank 8
  lichen-train bench --geometry gemma-3-1b --format q8_0
  lichen-train report runs/robot

Environment: LICHEN_ISA forces an instruction set, LICHEN_LOG=info says more.";

/// LoRA and full training of Gemma 3 and Qwen 2.5 on small boards
#[derive(Parser)]
#[command(name = "lichen-train", version, after_help = EXAMPLES, disable_help_subcommand = true)]
// Of a flag that comes twice, the last counts.
#[command(args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Lora(Box<train::LoraArgs>),
    Full(Box<train::FullArgs>),
    Plan(Box<plan::PlanArgs>),
    Bench(bench::BenchArgs),
    Report(report::ReportArgs),
    Rollback(report::RollbackArgs),
}

fn main() -> ExitCode {
    cli::run_program("lichen-train", run)
}

fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error),
    };
    cli::exit_code(match &cli.command {
        Command::Lora(args) => train::lora(args),
        Command::Full(args) => train::full(args),
        Command::Plan(args) => plan::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Report(args) => report::report(args),
        Command::Rollback(args) => report::roll_back(args),
    })
}
