//! Where the tags of a template are, found without recursion and within limits.

use std::ops::Range;

use super::guard::{too_deep, DEPTH_MAX};
use crate::error::Result;

/// Longest chain of operators, filters and arguments within one tag: each may nest the parsed expression once.
const OPERATORS_MAX: usize = 512;

/// What a stretch of a template is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    /// Printed as it stands.
    Data,
    /// `{% .. %}`
    Statement,
    /// `{{ .. }}`
    Expression,
    /// `{# .. #}`
    Comment,
}

/// A stretch of a template; of a tag without its delimiters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub kind: PartKind,
    pub range: Range<usize>,
}

/// The parts of a template in order. What is not closed reaches to the end.
///
/// # Errors
/// An expression nests too deep or is too long.
pub(super) fn parts(source: &str) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    let mut at = 0;
    let mut is_raw = false;
    while at < source.len() {
        let rest = &source[at..];
        let tag = match is_raw {
            true => rest.find("endraw").and_then(|end| rest[..end].rfind("{%")),
            false => rest.find("{%").into_iter().chain(rest.find("{{")).chain(rest.find("{#")).min(),
        };
        let data = tag.unwrap_or(rest.len());
        if data > 0 {
            parts.push(Part { kind: PartKind::Data, range: at..at + data });
        }
        let Some(opening) = rest.get(data..data + 2) else { break };
        let start = at + data + 2;
        let body = &source[start..];
        let (kind, length) = match opening {
            "{%" => (PartKind::Statement, tag_length(body, "%}")?),
            "{{" => (PartKind::Expression, tag_length(body, "}}")?),
            _ => (PartKind::Comment, body.find("#}").unwrap_or(body.len())),
        };
        let part = Part { kind, range: start..start + length };
        is_raw = kind == PartKind::Statement && word(&source[part.range.clone()]) == "raw";
        at = (start + length + 2).min(source.len());
        parts.push(part);
    }
    Ok(parts)
}

/// The first word of a statement.
pub(super) fn word(statement: &str) -> &str {
    let statement = statement.trim_start_matches(['-', '+']).trim_start();
    statement.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("")
}

/// The strings of a tag, without their quotes.
pub(super) fn strings(tag: &str) -> Vec<Range<usize>> {
    let bytes = tag.as_bytes();
    let mut strings = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let quote = bytes[at];
        at += 1;
        if !matches!(quote, b'"' | b'\'') {
            continue;
        }
        let start = at;
        while at < bytes.len() && bytes[at] != quote {
            at += if bytes[at] == b'\\' { 2 } else { 1 };
        }
        if at < bytes.len() {
            strings.push(start..at);
        }
        at += 1;
    }
    strings
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str) -> Vec<(PartKind, &str)> {
        parts(source).unwrap().into_iter().map(|part| (part.kind, &source[part.range])).collect()
    }

    #[test]
    fn parts_are_found() {
        use PartKind::*;
        let cases: [(&str, &[(PartKind, &str)]); 7] = [
            ("a{{ '}}' }}b", &[(Data, "a"), (Expression, " '}}' "), (Data, "b")]),
            ("{%- if x -%}{# {{ #}", &[(Statement, "- if x -"), (Comment, " {{ ")]),
            (
                "{% raw %}{{ x }}{%- endraw %}c",
                &[(Statement, " raw "), (Data, "{{ x }}"), (Statement, "- endraw "), (Data, "c")],
            ),
            ("{% raw %}{{ x", &[(Statement, " raw "), (Data, "{{ x")]),
            ("{{ {'a': {}}}}", &[(Expression, " {'a': {}}")]),
            ("{{ x", &[(Expression, " x")]),
            ("", &[]),
        ];
        for (source, want) in cases {
            assert_eq!(shown(source), want, "{source}");
        }
        // Cut off inside a character's neighbourhood: nothing may slice it.
        for source in ["{{ 'é\\", "{#é", "{% '\\é", "{%é%"] {
            parts(source).unwrap();
        }
    }

    #[test]
    fn strings_are_found() {
        let tag = r#" 'a' + "b\"c" ~ 'é\'' + 'open"#;
        let found: Vec<&str> = strings(tag).into_iter().map(|range| &tag[range]).collect();
        assert_eq!(found, ["a", r#"b\"c"#, r"é\'"]);
    }
}
