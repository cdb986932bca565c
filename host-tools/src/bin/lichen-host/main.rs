//! `lichen-host`: what the workstation does for the board.
#![deny(unsafe_code)]

mod adapter;
mod demo;
mod format;
mod progress;
mod quantize;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lichen_runtime::cli::{self, usage};

/// The workstation half of Lichen.
#[derive(Parser)]
#[command(name = "lichen-host", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Arguments),
    Quantize(quantize::Arguments),
    Adapter(adapter::Arguments),
}

fn main() -> ExitCode {
    cli::run_program("lichen-host", run)
}

fn run() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage::explain(&error),
    };
    cli::exit_code(match &arguments.command {
        Command::Demo(arguments) => demo::run(arguments),
        Command::Quantize(arguments) => quantize::run(arguments),
        Command::Adapter(arguments) => adapter::run(arguments),
    })
}
