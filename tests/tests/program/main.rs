//! `lichen` as its users run it.

/// What `cross/build-aarch64.sh` and the library read of a board's file.
mod boards;
/// Each subcommand does what it says.
mod commands;
/// `generate --prompts`.
mod prompt_files;
/// SIGINT and SIGTERM where work is lost.
mod signals;
/// Tokens, templates, sampling values of a model.
mod text;
/// Wrong flags and files.
mod usage;

use std::process::Command;

use lichen_tests::programs::{self, Run};

fn command(args: &[&str]) -> Command {
    programs::command(programs::lichen(), args)
}

/// Runs `lichen` to its end.
fn lichen(args: &[&str]) -> Run {
    programs::run(&mut command(args))
}

/// The same with text on standard input.
fn lichen_with_input(args: &[&str], input: &str) -> Run {
    programs::run_with_input(&mut command(args), input)
}
