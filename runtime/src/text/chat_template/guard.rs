//! Looks at a template before the engine does: its parser is recursive, so nesting is counted here, without recursion.

use crate::error::{Error, Result};

/// Deepest nesting of blocks, and of brackets within one tag.
pub(super) const DEPTH_MAX: usize = 64;
/// Longest chain of operators, filters and arguments within one tag: each may nest the parsed expression once.
const OPERATORS_MAX: usize = 512;
/// Statements that would read other templates.
const REFUSED: [&str; 5] = ["include", "import", "from", "extends", "block"];

/// Refuses templates that nest too deep or that reach for other files.
pub(super) fn check(source: &str) -> Result<()> {
    if source.len() > super::SOURCE_BYTES_MAX {
        let (length, limit) = (source.len() >> 10, super::SOURCE_BYTES_MAX >> 10);
        return Err(Error::limit(format!("chat template: is {length} KiB long; at most {limit} KiB")));
    }
    let mut depth = 0usize;
    let mut rest = source;
    while let Some(at) = rest.find("{%").into_iter().chain(rest.find("{{")).chain(rest.find("{#")).min() {
        let line = 1 + source[..source.len() - rest.len() + at].matches('\n').count();
        let (opening, body) = rest[at..].split_at(2);
        if opening == "{#" {
            rest = body.find("#}").map_or("", |end| &body[end + 2..]);
            continue;
        }
        let length = tag_length(body, if opening == "{%" { "%}" } else { "}}" })?;
        let tag = &body[..length];
        rest = body.get(length + 2..).unwrap_or("");
        if opening != "{%" {
            continue;
        }
        let word = tag.trim_start_matches(['-', '+']).trim_start();
        let word = word.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("");
        if REFUSED.contains(&word) {
            return Err(Error::input(format!("chat template, line {line}: \"{word}\" is not available")));
        }
        match word {
            "raw" => rest = rest.find("endraw").map_or("", |end| &rest[end + "endraw".len()..]),
            // An elif nests inside the if it follows until the endif, which takes them all back.
            "for" | "if" | "elif" | "macro" | "filter" | "call" | "with" | "autoescape" => depth += 1,
            "set" if !has_assignment(tag) => depth += 1,
            _ if word.starts_with("end") => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
    }
    Ok(())
}

pub(super) fn too_deep() -> Error {
    Error::limit(format!("chat template: nested deeper than {DEPTH_MAX}"))
}

fn has_assignment(tag: &str) -> bool {
    tag.replace("==", "").contains('=')
}

/// Bytes up to the closing delimiter, which does not count inside strings; the whole rest where it is missing.
fn tag_length(body: &str, close: &str) -> Result<usize> {
    let bytes = body.as_bytes();
    let (mut quote, mut brackets, mut operators, mut at) = (None, 0usize, 0usize, 0);
    let mut word_start = None;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            word_start.get_or_insert(at);
        } else if let Some(start) = word_start.take() {
            if quote.is_none() && matches!(&bytes[start..at], b"not" | b"and" | b"or" | b"if" | b"else" | b"in" | b"is")
            {
                operators += 1;
            }
        }
        match (quote, byte) {
            (Some(_), b'\\') => at += 1,
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            // Inside brackets "}}" can close two maps.
            (None, _) if brackets == 0 && bytes[at..].starts_with(close.as_bytes()) => return Ok(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'(' | b'[' | b'{') => {
                brackets += 1;
                operators += 1;
            }
            (None, b')' | b']' | b'}') => brackets = brackets.saturating_sub(1),
            (None, b'~' | b'+' | b'-' | b'*' | b'/' | b'%' | b'|' | b'.' | b',' | b'<' | b'>' | b'=' | b'!') => {
                operators += 1;
            }
            (None, _) => {}
        }
        if brackets > DEPTH_MAX || operators > OPERATORS_MAX {
            return Err(too_deep());
        }
        at += 1;
    }
    Ok(body.len())
}
