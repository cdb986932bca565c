//! What no file may say: unfinished work, a machine's own paths, how the product came about.

use crate::layout::has_word;
use crate::source::{split, File, Offence};
use crate::{enforce, lines_of};

/// The words of the rules are written in halves, or this file would break them.
const UNFINISHED: [[&str; 2]; 3] = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]];
const MACROS: [&str; 3] = ["todo!", "unimplemented!", "dbg!"];
const MACHINE_PATHS: [[&str; 2]; 4] = [["/wo", "rk/"], ["/tmp", "/wt"], ["/ro", "ot/"], ["/ho", "me/"]];
const MAKING: [[&str; 2]; 9] = [
    ["cla", "ude"],
    ["chat", "gpt"],
    ["copi", "lot"],
    ["anth", "ropic"],
    ["co-authored", "-by"],
    ["work", "tree"],
    ["as an ai ", "model"],
    ["the br", "ief says"],
    ["language model ", "wrote"],
];
/// Files of others, kept as they are; corpora that are text to be read, not ours to word.
const NOT_OURS: [&str; 3] = ["LICENSE-APACHE", "Cargo.lock", "tests/gguf-oracle/Cargo.lock"];

fn texts(files: &[File]) -> impl Iterator<Item = &File> {
    let ours =
        |f: &&File| !NOT_OURS.contains(&f.path.as_str()) && !f.path.ends_with(".json") && !f.path.ends_with(".jsonl");
    files.iter().filter(ours)
}

fn each_line(files: &[File], mut check: impl FnMut(&str) -> Option<String>) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in texts(files) {
        for (number, line) in file.text.lines().enumerate() {
            offences.extend(check(line).map(|what| Offence::new(&file.path, number + 1, what)));
        }
    }
    offences
}

fn finished(files: &[File]) -> Vec<Offence> {
    let words = UNFINISHED.map(|halves| halves.concat());
    each_line(files, |line| words.iter().find(|w| has_word(line, w)).cloned())
}

fn no_machine_paths(files: &[File]) -> Vec<Offence> {
    let paths = MACHINE_PATHS.map(|halves| halves.concat());
    each_line(files, |line| {
        // `~/.cargo` and `/sys/..` are anyone's; a longer path such as `/usr/home/` is not this one.
        let stands_alone = |at: usize| !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-}$)".contains(c));
        paths.iter().find(|p| line.match_indices(p.as_str()).any(|(at, _)| stands_alone(at))).cloned()
    })
}

fn product_alone(files: &[File]) -> Vec<Offence> {
    let words = MAKING.map(|halves| halves.concat());
    each_line(files, |line| {
        let line = line.to_lowercase();
        words.iter().find(|w| has_word(&line, w)).cloned()
    })
}

fn no_stubs(files: &[File]) -> Vec<Offence> {
    let mut offences = Vec::new();
    for file in files.iter().filter(|f| f.has_extension(&["rs"])) {
        for (number, line) in split(&file.text).code.lines().enumerate() {
            let stub = MACROS.iter().find(|m| has_word(line, m.trim_end_matches('!')) && line.contains(*m));
            offences.extend(stub.map(|m| Offence::new(&file.path, number + 1, *m)));
            if line.contains("#[ignore") {
                offences.push(Offence::new(&file.path, number + 1, "a test that never runs tests nothing"));
            }
        }
    }
    offences
}

#[test]
fn nothing_is_left_to_do() {
    enforce(finished);
}

#[test]
fn nothing_is_left_to_do_catches() {
    let word = UNFINISHED[0].concat();
    assert_eq!(lines_of(finished, "runtime/src/a.rs", &format!("// Done.\n// {word}: later\n")), [2]);
    assert_eq!(lines_of(finished, "README.md", &format!("{word}\n")), [1]);
    assert!(lines_of(finished, "runtime/src/a.rs", &format!("METHOD{word} MAS{word}N\n")).is_empty());
}

#[test]
fn no_path_of_one_machine() {
    enforce(no_machine_paths);
}

#[test]
fn no_path_of_one_machine_catches() {
    for path in MACHINE_PATHS.map(|halves| halves.concat()) {
        assert_eq!(lines_of(no_machine_paths, "Makefile", &format!("a:\n\tcp {path}x y\n")), [2]);
        assert!(lines_of(no_machine_paths, "Makefile", &format!("\tcp $(A){path}x frame{path}y\n")).is_empty());
    }
}

#[test]
fn the_product_speaks_of_itself() {
    enforce(product_alone);
}

#[test]
fn the_product_speaks_of_itself_catches() {
    let name = MAKING[0].concat();
    assert_eq!(lines_of(product_alone, "README.md", &format!("Fast.\nMade by {}.\n", name.to_uppercase())), [2]);
    assert!(lines_of(product_alone, "README.md", &format!("{name}tte\n")).is_empty());
}

#[test]
fn no_stubs_and_no_ignored_tests() {
    enforce(no_stubs);
}

#[test]
fn no_stubs_and_no_ignored_tests_catches() {
    let text =
        "fn a() { todo!() }\n// dbg!\nlet x = dbg!(1);\n#[ignore = \"slow\"]\nunimplemented!();\nlet todo = 1;\n";
    assert_eq!(lines_of(no_stubs, "runtime/src/a.rs", text), [1, 3, 4, 5]);
}
