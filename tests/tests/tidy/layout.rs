//! Which folders there are, and which way their sources may look.

use crate::source::{root_names, split, File, Offence};
use crate::{enforce, lines_of};

const FOLDERS: [&str; 7] = ["runtime", "kernels", "trainer", "cross", "device-configs", "host-tools", "tests"];
const ROOT_FILES: [&str; 17] = [
    ".ci",
    ".gitattributes",
    ".gitignore",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "STYLE.md",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "rustfmt.toml",
];

/// What the sources below a folder must not name, beside every crate above it.
const KERNELS_DO_NOT_KNOW: [&str; 8] =
    ["std::fs", "std::path", "std::net", "std::process", "memmap2", "serde", "serde_json", "tokenizers"];
/// Things of the runtime; a path in a `use` line that names one of them would be an import of it.
const RUNTIME_THINGS: [&str; 6] = ["model", "session", "tokenizer", "chat_template", "mapped_file", "file"];
/// Crates from the lowest up: each may import those before it.
const CRATES: [(&str, &str); 5] = [
    ("kernels/", "lichen_kernels"),
    ("runtime/", "lichen_runtime"),
    ("trainer/", "lichen_trainer"),
    ("host-tools/", "lichen_host_tools"),
    ("tests/", "lichen_tests"),
];

#[test]
fn top_level_folders_are_fixed() {
    let names = root_names();
    let unrecognised: Vec<&String> =
        names.iter().filter(|n| !FOLDERS.contains(&n.as_str()) && !ROOT_FILES.contains(&n.as_str())).collect();
    assert!(unrecognised.is_empty(), "not part of the layout: {unrecognised:?}");
    let missing: Vec<&&str> = FOLDERS.iter().filter(|f| !names.iter().any(|n| n == *f)).collect();
    assert!(missing.is_empty(), "folders of the layout that are missing: {missing:?}");
}

/// A crate names only crates below it.
fn sources_look_down(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in files.iter().filter(|f| f.has_extension(&["rs"])) {
        let Some(rank) = CRATES.iter().position(|(folder, _)| file.path.starts_with(folder)) else { continue };
        let code = split(&file.text).code;
        for (number, line) in code.lines().enumerate() {
            for (_, above) in CRATES[rank + 1..].iter().filter(|(_, name)| has_word(line, name)) {
                let what = format!("{} is above {}", above, CRATES[rank].1);
                offences.push(Offence::new(&file.path, number + 1, what));
            }
        }
    }
    offences
}

/// The kernels know numbers, shapes, formats and devices. A CUDA driver's machine code is cached on disk, and the build
/// compiles files: these two know folders.
fn kernels_know_no_files(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    let knows_folders = |f: &&File| f.path == "kernels/build.rs" || f.path.starts_with("kernels/src/cuda/");
    let of_kernels = files.iter().filter(|f| f.has_extension(&["rs"]) && f.path.starts_with("kernels/"));
    for file in of_kernels.filter(|f| !knows_folders(f)) {
        for (number, line) in split(&file.text).code.lines().enumerate() {
            let mut complain = |word: &str| {
                offences.push(Offence::new(&file.path, number + 1, format!("the kernels have never heard of {word}")));
            };
            KERNELS_DO_NOT_KNOW.iter().filter(|w| has_word(line, w)).for_each(|w| complain(w));
            let is_import = line.trim_start().trim_start_matches("pub ").starts_with("use ");
            RUNTIME_THINGS.iter().filter(|w| is_import && has_word(line, w)).for_each(|w| complain(w));
        }
    }
    offences
}

/// True where `word` (which may hold `::`) stands by itself.
pub fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_part) && !line[at + word.len()..].starts_with(is_part))
}

#[test]
fn imports_run_one_way() {
    enforce(sources_look_down);
}

#[test]
fn imports_run_one_way_catches() {
    let text = "use lichen_kernels::Format;\n// lichen_trainer in a comment\nuse lichen_trainer::lora;\n";
    assert_eq!(lines_of(sources_look_down, "runtime/src/a.rs", text), [3]);
    assert_eq!(lines_of(sources_look_down, "kernels/src/a.rs", "let x = lichen_runtime::f();"), [1]);
    assert_eq!(lines_of(sources_look_down, "trainer/src/a.rs", "use lichen_host_tools as h;"), [1]);
    assert!(lines_of(sources_look_down, "tests/tests/a.rs", text).is_empty());
}

#[test]
fn kernels_know_numbers_only() {
    enforce(kernels_know_no_files);
}

#[test]
fn kernels_know_numbers_only_catches() {
    let text = "use std::fs::File;\nuse crate::session::Session;\nlet model = 1;\n\nuse std::ops::Range;\n";
    assert_eq!(lines_of(kernels_know_no_files, "kernels/src/a.rs", text), [1, 2]);
    assert!(lines_of(kernels_know_no_files, "runtime/src/a.rs", text).is_empty());
    assert!(lines_of(kernels_know_no_files, "kernels/src/cuda/cubin_cache.rs", text).is_empty());
}
