//! The programs, for tests that need a process: exit codes, signals, limits.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// `lichen-host`, built with this test's profile.
pub fn lichen_host() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("lichen-host")).clone()
}

/// Cargo builds the programs of a test's own package only, so this asks it for another's: no work when it is there.
fn build(program: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    // The whole workspace's features, as `cargo test --workspace` has them: a package's own would build everything anew.
    cargo.args(["build", "--quiet", "--workspace", "--bin", program]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "{program} does not build");
    // target/<profile>/deps/<test> -> target/<profile>/<program>
    let test = std::env::current_exe().expect("a path");
    test.parent().and_then(|deps| deps.parent()).expect("target folder").join(program)
}
