//! What every program of the house shares at its edge: flags that are spelled alike, one way to print, to complain and to
//! end.

pub mod args;
pub mod flags;
pub mod output;
pub mod progress;
pub mod usage;

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::process::ExitCode;
use std::sync::Mutex;

use crate::error::Kind;
use crate::setting::as_flag;
use output::{Failure, Outcome};

/// Exit code of a fault of ours (EX_SOFTWARE of sysexits.h).
const EXIT_FAULT: u8 = 70;
pub const EXIT_USAGE: u8 = 2;
const EXIT_FAILED: u8 = 1;

/// Runs a program: a panic becomes one sentence and exit code 70.
pub fn run_program(name: &str, run: impl FnOnce() -> ExitCode) -> ExitCode {
    static PANIC: Mutex<Option<String>> = Mutex::new(None);
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|l| format!("{}:{}", l.file(), l.line())).unwrap_or_default();
        let payload = info.payload();
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        // The first panic is the cause; a worker's is raised again in its caller.
        PANIC.lock().unwrap_or_else(|e| e.into_inner()).get_or_insert(format!("{text} ({place})"));
    }));
    crate::signals::install_in_program();
    output::start_log();
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(code) => code,
        Err(_) => {
            let text = PANIC.lock().unwrap_or_else(|e| e.into_inner()).take().unwrap_or_default();
            output::error(&format!("a fault inside {name}, please report it: {text}"));
            ExitCode::from(EXIT_FAULT)
        }
    }
}

/// The exit code of a subcommand, its error printed.
pub fn exit_code(outcome: Outcome<()>) -> ExitCode {
    match outcome {
        // Whoever read our output has seen enough.
        Ok(()) | Err(Failure::Closed) => ExitCode::SUCCESS,
        Err(Failure::Reported) => ExitCode::from(EXIT_FAILED),
        Err(Failure::Interrupted) => ExitCode::from(crate::signals::EXIT_INTERRUPTED as u8),
        Err(Failure::Error(error)) => {
            output::error(&error.spelled(&as_flag));
            ExitCode::from(if error.kind() == Kind::Usage { EXIT_USAGE } else { EXIT_FAILED })
        }
    }
}
