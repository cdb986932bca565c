//! The house rules of STYLE.md and ARCHITECTURE.md that a program can check. Each rule is a test that names every offence
//! as `file:line`, and has a test beside it that plants one.

mod layout;
mod manifests;
mod shape;
mod source;
mod unsafe_code;
mod words;

use source::{File, Offence};

/// Runs a rule over the repository and fails with all that breaks it.
fn enforce(rule: impl Fn(&[File]) -> Vec<Offence>) {
    let offences = rule(&source::files());
    for offence in &offences {
        println!("{}:{}: {}", offence.path, offence.line, offence.what);
    }
    assert!(offences.is_empty(), "{} offences, listed above", offences.len());
}

/// Runs a rule over one planted file; returns the lines it complains about.
fn lines_of(rule: impl Fn(&[File]) -> Vec<Offence>, path: &str, text: &str) -> Vec<usize> {
    rule(&[File::planted(path, text)]).iter().map(|o| o.line).collect()
}
