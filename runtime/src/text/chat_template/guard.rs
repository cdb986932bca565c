//! Looks at a template before the engine does: its parser is recursive, so nesting is counted here, without recursion.

use super::scan::{parts, word, Part, PartKind};
use crate::error::{Error, Result};

/// Deepest nesting of blocks, and of brackets within one tag.
pub(super) const DEPTH_MAX: usize = 64;
/// Statements that would read other templates.
const REFUSED: [&str; 5] = ["include", "import", "from", "extends", "block"];

/// The parts of a template. Refuses one that nests too deep or reaches for other files.
pub(super) fn check(source: &str) -> Result<Vec<Part>> {
    if source.len() > super::SOURCE_BYTES_MAX {
        let (length, limit) = (source.len() >> 10, super::SOURCE_BYTES_MAX >> 10);
        return Err(Error::limit(format!("chat template: is {length} KiB long; at most {limit} KiB")));
    }
    let parts = parts(source)?;
    let mut depth = 0usize;
    for part in parts.iter().filter(|part| part.kind == PartKind::Statement) {
        let tag = &source[part.range.clone()];
        let word = word(tag);
        if REFUSED.contains(&word) {
            let line = 1 + source[..part.range.start].matches('\n').count();
            return Err(Error::input(format!("chat template, line {line}: \"{word}\" is not available")));
        }
        match word {
            // An elif nests inside the if it follows until the endif, which takes them all back.
            "for" | "if" | "elif" | "macro" | "filter" | "call" | "with" | "autoescape" | GENERATION => depth += 1,
            "set" if !has_assignment(tag) => depth += 1,
            _ if word.starts_with("end") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
    }
    Ok(parts)
}

const GENERATION: &str = "generation";

/// The template without transformers' `{% generation %}` blocks, which say to a trainer what the model wrote and print what
/// they hold: a block of the engine stands in for each, with the same scope and the same care of white space.
pub(super) fn without_generation(source: &str, parts: &[Part]) -> String {
    let mut text = String::with_capacity(source.len());
    let mut at = 0;
    for part in parts.iter().filter(|part| part.kind == PartKind::Statement) {
        let tag = &source[part.range.clone()];
        let word = word(tag);
        let instead = match word {
            GENERATION => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        let start = part.range.start + tag.find(word).unwrap_or(0);
        text.push_str(&source[at..start]);
        text.push_str(instead);
        at = start + word.len();
    }
    text.push_str(&source[at..]);
    text
}

pub(super) fn too_deep() -> Error {
    Error::limit(format!("chat template: nested deeper than {DEPTH_MAX}"))
}

fn has_assignment(tag: &str) -> bool {
    tag.replace("==", "").contains('=')
}
