//! `lichen-train`: training on the device itself.
#![deny(unsafe_code)]

mod bench;
mod flags;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lichen_runtime::cli::{self, usage};

const EXAMPLES: &str = "Examples:
  lichen-train bench --geometry gemma-3-1b --format q8_0

Environment: LICHEN_ISA forces an instruction set, LICHEN_LOG=info says more.";

/// LoRA and full training of Gemma 3 and Qwen 2.5 on small boards
#[derive(Parser)]
#[command(name = "lichen-train", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::BenchArgs),
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
        Command::Bench(args) => bench::run(args),
    })
}
