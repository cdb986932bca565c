//! Runs foreign code that may panic on hostile input, and turns the panic into an error.

use std::cell::Cell;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use crate::error::{Error, Result};

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work`; a panic inside becomes `message`, and prints nothing.
///
/// The process has one panic hook. Ours is put in front of it once and stays silent only for the thread that is
/// inside this function, so every other panic is reported as before.
pub(super) fn guarded<T>(message: &str, work: impl FnOnce() -> T) -> Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !QUIET.with(Cell::get) {
                previous(info);
            }
        }));
    });
    let before = QUIET.with(|quiet| quiet.replace(true));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    QUIET.with(|quiet| quiet.set(before));
    outcome.map_err(|_| Error::input(message))
}
