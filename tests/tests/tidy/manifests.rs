//! What the crates depend on, and why.

use std::fs;

use crate::source::{root, File, Offence};
use crate::{enforce, lines_of};

/// Crates from the lowest up.
const ORDER: [&str; 5] = ["kernels", "runtime", "trainer", "host-tools", "tests"];

/// A line of a dependency table of a manifest.
struct Dependency<'a> {
    line: usize,
    name: &'a str,
    value: &'a str,
    has_reason: bool,
}

/// The entries of every dependency table; each stands on one line.
fn dependencies(text: &str) -> Vec<Dependency<'_>> {
    let mut found = Vec::new();
    let mut is_inside = false;
    let mut above = "";
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            is_inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if let Some((name, value)) = line.split_once('=').filter(|_| is_inside && !line.starts_with('#')) {
            let name = name.trim().trim_end_matches(".workspace");
            found.push(Dependency { line: number + 1, name, value, has_reason: above.starts_with('#') });
        }
        above = line;
    }
    found
}

fn manifests(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|f| f.path == "Cargo.toml" || f.path.ends_with("/Cargo.toml"))
}

/// The crate graph is the layering: a crate depends on crates below it alone.
fn crates_look_down(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in manifests(files) {
        let folder = file.path.trim_end_matches("/Cargo.toml");
        let Some(rank) = ORDER.iter().position(|o| *o == folder) else { continue };
        for dependency in dependencies(&file.text) {
            let Some(other) = dependency.name.strip_prefix("lichen-") else { continue };
            if !ORDER[..rank].contains(&other) {
                offences.push(Offence::new(&file.path, dependency.line, format!("{folder} must not import {other}")));
            }
        }
    }
    offences
}

/// A dependency is a promise to keep up with it: the reason stands above it where its version does.
fn reasons(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in manifests(files) {
        for dependency in dependencies(&file.text) {
            let is_ours = dependency.value.contains("path =");
            let is_declared_elsewhere =
                dependency.value.trim() == "true" || dependency.value.contains("workspace = true");
            if !dependency.has_reason && !is_ours && !is_declared_elsewhere {
                let what = format!("{} has no reason in a comment above", dependency.name);
                offences.push(Offence::new(&file.path, dependency.line, what));
            }
        }
    }
    offences
}

/// gguf-rs turns on serde_json/arbitrary_precision for all it is built with.
fn plain_floats(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in manifests(files).filter(|f| !f.path.starts_with("tests/gguf-oracle/")) {
        for (number, line) in file.text.lines().enumerate() {
            if line.split('#').next().is_some_and(|l| l.contains("arbitrary_precision") || l.contains("gguf-rs")) {
                offences.push(Offence::new(&file.path, number + 1, "arbitrary_precision, or what turns it on"));
            }
        }
    }
    let lock = files.iter().filter(|f| f.path == "Cargo.lock");
    for file in lock {
        for (number, _) in file.text.lines().enumerate().filter(|(_, l)| l.trim() == "name = \"gguf-rs\"") {
            offences.push(Offence::new(&file.path, number + 1, "gguf-rs is in the workspace"));
        }
    }
    offences
}

#[test]
fn crates_import_downwards() {
    enforce(crates_look_down);
}

#[test]
fn crates_import_downwards_catches() {
    let text = "[dependencies]\nlichen-kernels.workspace = true\nlichen-trainer = { path = \"../trainer\" }\n";
    assert_eq!(lines_of(crates_look_down, "runtime/Cargo.toml", text), [3]);
    assert_eq!(lines_of(crates_look_down, "kernels/Cargo.toml", text), [2, 3]);
    assert!(lines_of(crates_look_down, "host-tools/Cargo.toml", text).is_empty());
    let dev = "[dev-dependencies]\nlichen-runtime.workspace = true\n";
    assert_eq!(lines_of(crates_look_down, "kernels/Cargo.toml", dev), [2]);
}

#[test]
fn dependencies_have_reasons() {
    enforce(reasons);
}

#[test]
fn dependencies_have_reasons_catches() {
    let text =
        "[workspace.dependencies]\n# Halves.\nhalf = \"2\"\nlog = \"0.4\"\nlichen-kernels = { path = \"kernels\" }\n\n\
                [profile.dev]\nopt-level = 1\n";
    assert_eq!(lines_of(reasons, "Cargo.toml", text), [4]);
    let member = "[dependencies]\nlog.workspace = true\nclap = { workspace = true, optional = true }\nrand = \"1\"\n";
    assert_eq!(lines_of(reasons, "runtime/Cargo.toml", member), [4]);
}

#[test]
fn floats_stay_plain() {
    enforce(plain_floats);
    // Whatever the manifests say: with the feature on, a number keeps all its digits.
    let digits = "1.00000000000000000000000000000000000001";
    let value: serde_json::Value = serde_json::from_str(digits).expect("a number");
    assert_ne!(value.to_string(), digits, "serde_json was built with arbitrary_precision");
}

#[test]
fn floats_stay_plain_catches() {
    let text = "# Never arbitrary_precision.\nserde_json = { version = \"1\", features = [\"arbitrary_precision\"] }\n";
    assert_eq!(lines_of(plain_floats, "Cargo.toml", text), [2]);
    assert_eq!(lines_of(plain_floats, "Cargo.lock", "[[package]]\nname = \"gguf-rs\"\n"), [2]);
    assert!(lines_of(plain_floats, "tests/gguf-oracle/Cargo.toml", "gguf-rs = \"=0.1.8\"\n").is_empty());
}

/// One version of everything, stated once.
#[test]
fn the_lock_file_is_committed() {
    assert!(fs::read_to_string(root().join("Cargo.lock")).is_ok_and(|t| t.contains("name = \"lichen-runtime\"")));
}
