//! `lichen`: chat with a model, generate, and measure what a model needs and gives on this machine.
#![deny(unsafe_code)]

mod args;
mod bench;
mod chat;
mod generate;
mod info;
mod logits;
mod output;
mod perplexity;
mod plan;
mod usage;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;

use clap::{Parser, Subcommand};
use lichen_runtime::error::Kind;
use output::Failure;

/// Exit code of a fault of ours (EX_SOFTWARE of sysexits.h).
const EXIT_FAULT: u8 = 70;
const EXIT_USAGE: u8 = 2;
const EXIT_FAILED: u8 = 1;

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
    Info(info::InfoArgs),
    Plan(plan::PlanArgs),
    Bench(bench::BenchArgs),
    Perplexity(perplexity::PerplexityArgs),
    Logits(logits::LogitsArgs),
}

fn main() -> ExitCode {
    static PANIC: Mutex<Option<String>> = Mutex::new(None);
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        // The first panic is the cause; a worker's is raised again in its caller.
        PANIC.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(format!("{text} ({place})"));
    }));
    lichen_runtime::fault::report_lost_files();
    output::start_log();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(code) => code,
        Err(_) => {
            let text = PANIC.lock().unwrap_or_else(|e| e.into_inner()).take().unwrap_or_default();
            output::error(&format!("a fault inside lichen, please report it: {text}"));
            ExitCode::from(EXIT_FAULT)
        }
    }
}

fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::explain(&error),
    };
    let outcome = match &cli.command {
        Command::Chat(args) => chat::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Info(args) => info::run(args),
        Command::Plan(args) => plan::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Perplexity(args) => perplexity::run(args),
        Command::Logits(args) => logits::run(args),
    };
    match outcome {
        // Whoever read our output has seen enough.
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::from(EXIT_FAILED),
        Err(Failure::Interrupted) => ExitCode::from(lichen_runtime::fault::EXIT_INTERRUPTED as u8),
        Err(Failure::Error(error)) => {
            output::error(error.message());
            ExitCode::from(if error.kind() == Kind::Usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}
