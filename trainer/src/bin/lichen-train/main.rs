//! `lichen-train`: training on the device itself.
#![deny(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    lichen_runtime::cli::run_program("lichen-train", || ExitCode::SUCCESS)
}
