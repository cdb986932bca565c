//! `lichen-host`: what the workstation does for the board.
#![deny(unsafe_code)]

mod quantize;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lichen_runtime::error::Kind;

/// The workstation half of Lichen.
#[derive(Parser)]
#[command(name = "lichen-host", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Quantize(quantize::Arguments),
}

fn main() -> ExitCode {
    env_logger::init_from_env(env_logger::Env::default().default_filter_or("warn"));
    // A wrong flag ends the program here, with exit code 2.
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Quantize(arguments) => quantize::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            match error.kind() {
                Kind::Usage => ExitCode::from(2),
                Kind::Input | Kind::Limit | Kind::Io | Kind::Device => ExitCode::FAILURE,
            }
        }
    }
}
