//! Where `unsafe` may live, and what must be written beside it.

use crate::layout::has_word;
use crate::source::{split, File, Offence};
use crate::{enforce, lines_of};

/// Files that may hold `unsafe`, beside the instruction set files of the ops ([`is_simd_leaf`]).
const LEAVES: [&str; 14] = [
    // Parts of one buffer, handed to several threads.
    "kernels/src/pool.rs",
    "kernels/src/ops/attention/cache/mod.rs",
    "kernels/src/ops/matmul/mod.rs",
    "kernels/src/ops/matmul/gemm/mod.rs",
    "kernels/src/ops/matmul/quantize.rs",
    // Instruction sets.
    "kernels/src/simd.rs",
    "kernels/src/ops/matmul/float.rs",
    "kernels/src/ops/matmul/nf4.rs",
    // The CUDA driver: its functions, and the memory it shares with the host.
    "kernels/src/cuda/driver.rs",
    "kernels/src/cuda/calls.rs",
    "kernels/src/cuda/memory.rs",
    // The operating system: the file map, free space, signals.
    "runtime/src/files/mapped_file.rs",
    "runtime/src/files/disk/space.rs",
    "runtime/src/signals.rs",
];

/// Lines between a note and the block it speaks of: attributes and the head of a statement over several lines.
const LINES_BETWEEN_MAX: usize = 4;

fn is_simd_leaf(path: &str) -> bool {
    path.starts_with("kernels/src/ops/") && (path.ends_with("/simd.rs") || path.contains("/simd/"))
}

/// Sources of the product: a test may do what it must.
fn product(files: &[File]) -> impl Iterator<Item = &File> {
    files.iter().filter(|f| f.has_extension(&["rs"]) && !f.is_test())
}

fn unsafe_in_leaves(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in product(files).filter(|f| !LEAVES.contains(&f.path.as_str()) && !is_simd_leaf(&f.path)) {
        for (number, line) in split(&file.text).code.lines().enumerate() {
            if has_word(line, "unsafe") {
                offences.push(Offence::new(&file.path, number + 1, "unsafe outside the listed leaves"));
            }
        }
    }
    offences
}

/// Blocks and impls carry a note. So does an `unsafe fn`, except in an instruction set file: what its functions need is
/// the instruction set and whole blocks, and the note stands where they are called.
fn safety_notes(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in product(files) {
        let parts = split(&file.text);
        let code: Vec<&str> = parts.code.lines().collect();
        let comments: Vec<&str> = parts.comments.lines().collect();
        let is_arch = is_simd_leaf(&file.path) || parts.code.contains("std::arch::");
        for (number, line) in code.iter().enumerate().filter(|(_, l)| has_word(l, "unsafe")) {
            let is_function = line.contains("unsafe fn") || line.contains("unsafe extern");
            if (is_function && is_arch) || has_note(&code, &comments, number) {
                continue;
            }
            offences.push(Offence::new(&file.path, number + 1, "unsafe without a SAFETY note"));
        }
    }
    offences
}

/// Looks upwards from `number` for a note that belongs to the same statement.
fn has_note(code: &[&str], comments: &[&str], number: usize) -> bool {
    let is_note = |line: usize| comments[line].contains("SAFETY:") || comments[line].contains("# Safety");
    if is_note(number) {
        return true;
    }
    let mut n_between = 0;
    for above in (0..number).rev() {
        if is_note(above) {
            return true;
        }
        let text = code[above].trim();
        if text.is_empty() && comments[above].trim().is_empty() {
            return false;
        }
        n_between += !text.is_empty() as usize;
        if text.ends_with([';', '}']) || n_between > LINES_BETWEEN_MAX {
            return false;
        }
    }
    false
}

/// Every crate root turns `unsafe` off; the leaves turn it on again.
fn roots_deny(files: &[File]) -> Vec<Offence> {
    let is_root = |f: &&File| {
        let in_crate = f.path.starts_with("tests/").then_some(()).is_none();
        in_crate && (f.path.ends_with("/src/lib.rs") || (f.path.contains("/src/bin/") && f.path.ends_with("/main.rs")))
    };
    let open = files.iter().filter(is_root).filter(|f| !split(&f.text).code.contains("#![deny(unsafe_code)]"));
    open.map(|f| Offence::new(&f.path, 1, "a crate root without #![deny(unsafe_code)]")).collect()
}

#[test]
fn unsafe_lives_in_leaves() {
    enforce(unsafe_in_leaves);
}

#[test]
fn unsafe_lives_in_leaves_catches() {
    let text = "//! unsafe\n#![deny(unsafe_code)]\nlet s = \"unsafe\";\nunsafe { f() }\n";
    assert_eq!(lines_of(unsafe_in_leaves, "runtime/src/model/mod.rs", text), [4]);
    assert!(lines_of(unsafe_in_leaves, "runtime/src/files/mapped_file.rs", text).is_empty());
    assert!(lines_of(unsafe_in_leaves, "kernels/src/ops/rope/simd.rs", text).is_empty());
    assert!(lines_of(unsafe_in_leaves, "tests/heap.rs", text).is_empty());
}

#[test]
fn unsafe_carries_a_note() {
    enforce(safety_notes);
}

#[test]
fn unsafe_carries_a_note_catches() {
    let bare = "let a = 1;\n\nlet b = unsafe { f() };\nunsafe impl Send for T {}\nunsafe fn g() {}\n";
    assert_eq!(lines_of(safety_notes, "kernels/src/pool.rs", bare), [3, 4, 5]);
    let noted = "// SAFETY:\n// - x is whole.\n#[allow(unsafe_code)]\nlet b =\n    unsafe { f() };\nunsafe { g() }\n";
    assert_eq!(lines_of(safety_notes, "kernels/src/pool.rs", noted), [6]);
    assert_eq!(lines_of(safety_notes, "kernels/src/ops/rope/simd.rs", "unsafe fn g() {}\nunsafe { g() }\n"), [2]);
    assert!(lines_of(safety_notes, "kernels/src/pool.rs", "/// # Safety\n/// x\nunsafe fn g() {}\n").is_empty());
}

#[test]
fn crate_roots_deny_unsafe() {
    enforce(roots_deny);
}

#[test]
fn crate_roots_deny_unsafe_catches() {
    let commented = "// #![deny(unsafe_code)]\npub mod a;\n";
    assert_eq!(lines_of(roots_deny, "trainer/src/lib.rs", commented), [1]);
    assert_eq!(lines_of(roots_deny, "trainer/src/bin/lichen-train/main.rs", "fn main() {}"), [1]);
    assert!(lines_of(roots_deny, "trainer/src/lib.rs", "#![deny(unsafe_code)]\n").is_empty());
}
