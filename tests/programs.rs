//! The programs, for tests that need a process: exit codes, signals, limits, drivers.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// Names a folder of programs that were built elsewhere: a board or a server with a GPU may have no cargo.
pub const PROGRAMS: &str = "LICHEN_TEST_PROGRAMS";

/// `lichen`, built with this test's profile.
pub fn lichen() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--bin", "lichen"], "lichen")).clone()
}

/// `lichen-host`, built with this test's profile.
pub fn lichen_host() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--bin", "lichen-host"], "lichen-host")).clone()
}

/// `lichen-train`, built with this test's profile.
pub fn lichen_train() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--bin", "lichen-train"], "lichen-train")).clone()
}

/// The emulator of the CUDA driver, `libcuda.so`, built with this test's profile.
pub fn cuda_emulator() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--lib"], "libcuda.so")).clone()
}

/// Cargo builds the programs of a test's own package only, so this asks it for another's: no work when it is there.
fn build(what: &[&str], file: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os(PROGRAMS) {
        return PathBuf::from(folder).join(file);
    }
    let mut cargo = Command::new(env!("CARGO"));
    // The whole workspace's features, as `cargo test --workspace` has them: a package's own would build everything anew.
    cargo.args(["build", "--quiet", "--workspace"]).args(what);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "{file} does not build");
    // target/<profile>/deps/<test> -> target/<profile>/<file>
    let test = std::env::current_exe().expect("a path");
    test.parent().and_then(|deps| deps.parent()).expect("target folder").join(file)
}
