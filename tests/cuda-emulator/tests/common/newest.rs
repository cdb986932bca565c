//! The emulator that `cargo test` has just built is the one that runs.

use std::env;
use std::fs;
use std::path::Path;

/// `cargo build` leaves a libcuda.so beside the programs, which the loader finds before the one that `cargo test` builds in
/// `deps`: an old one there would run old kernels.
pub fn renew() {
    let Ok(test) = env::current_exe() else { return };
    let Some(deps) = test.parent().filter(|folder| folder.ends_with("deps")) else { return };
    let (built, copy) = (deps.join("libcuda.so"), deps.with_file_name("libcuda.so"));
    let age = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if age(&copy) < age(&built) && copy.exists() {
        // Removed first: a program that runs keeps the file it has mapped.
        let _ = fs::remove_file(&copy);
        fs::copy(&built, &copy).expect("room for a copy of the emulator");
    }
}
