//! `lichen`: chat with a model, generate, and measure what a model needs and gives on this machine.
#![deny(unsafe_code)]

mod bench;
mod chat;
mod generate;
mod generate_batch;
mod info;
mod logits;
mod opening;
mod perplexity;
mod plan;
mod tokenize;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lichen_runtime::cli::{self, args, output, usage};

const EXAMPLES: &str = "Examples:
  lichen chat                                   talk to the demo model inside this program
  lichen chat --model gemma-3-1b-it-Q8_0.gguf
  lichen bench --geometry gemma-3-1b --format q8_0
  lichen plan --model gemma-3-1b-it-Q8_0.gguf --context 8192

Environment: LICHEN_ISA forces an instruction set, LICHEN_LOG=info says more.";

/// Gemma 3 and Qwen 2.5 on small boards
#[derive(Parser)]
#[command(name = "lichen", version, after_help = EXAMPLES, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Chat(Box<chat::ChatArgs>),
    Generate(Box<generate::GenerateArgs>),
    Tokenize(tokenize::TokenizeArgs),
    Info(info::InfoArgs),
    Plan(plan::PlanArgs),
    Bench(bench::BenchArgs),
    Perplexity(perplexity::PerplexityArgs),
    Logits(logits::LogitsArgs),
}

fn main() -> ExitCode {
    cli::run_program("lichen", run)
}

fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error),
    };
    cli::exit_code(match &cli.command {
        Command::Chat(args) => chat::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Tokenize(args) => tokenize::run(args),
        Command::Info(args) => info::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Logits(args) => logits::run(args),
    })
}
