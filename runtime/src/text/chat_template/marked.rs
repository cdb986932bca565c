//! The other way round: the template's own text in placeholders, and the messages as they are.
//!
//! A template that looks for a marker inside a message (`content.split('</think>')`) finds it only where both are as
//! they are. So here its own text is what is told apart: what it prints as it stands, and the strings of its
//! expressions. A string that it compares with messages has to stay plain; which ones is found by trying, one after
//! the other, whether its placeholder changes anything. A control token can then only be made of characters that the
//! template wrote: no message holds one of them.

use std::ops::Range;

use super::scan::{self, PartKind};
use super::substitution::{is_marker, Cover, Substituted, Substitution};
use super::{Chat, JinjaTemplate, Pass, Role};
use crate::error::Result;

/// A template's source, and what of it can be told apart.
#[derive(Debug)]
pub(super) struct Marks {
    source: String,
    /// Printed as it stands.
    data: Vec<Range<usize>>,
    /// Strings with characters of markers in them.
    strings: Vec<Range<usize>>,
}

impl Marks {
    /// # Errors: an expression nests too deep.
    pub fn of(source: String) -> Result<Marks> {
        let (mut data, mut strings) = (Vec::new(), Vec::new());
        for part in scan::parts(&source)? {
            let start = part.range.start;
            match part.kind {
                PartKind::Data => data.push(part.range),
                PartKind::Comment => {}
                PartKind::Statement | PartKind::Expression => {
                    let found = scan::strings(&source[part.range]).into_iter().map(|r| r.start + start..r.end + start);
                    strings.extend(found.filter(|r| source[r.clone()].contains(is_marker)));
                }
            }
        }
        Ok(Marks { source, data, strings })
    }

    /// The template with its text in placeholders, but for the strings that are `plain`.
    pub fn apply(&self, substitution: &Substitution, plain: &[bool]) -> String {
        let hidden = self.strings.iter().zip(plain).filter(|(_, plain)| !**plain).map(|(range, _)| (range, true));
        let mut all: Vec<_> = self.data.iter().map(|range| (range, false)).chain(hidden).collect();
        all.sort_unstable_by_key(|(range, _)| range.start);
        let (mut text, mut at) = (String::with_capacity(2 * self.source.len()), 0);
        for (range, has_escapes) in all {
            text.push_str(&self.source[at..range.start]);
            let own = &self.source[range.clone()];
            match has_escapes {
                true => hide_string(own, substitution, &mut text),
                false => text.push_str(&substitution.hide(own)),
            }
            at = range.end;
        }
        text.push_str(&self.source[at..]);
        text
    }
}

/// Escapes stay what they are.
fn hide_string(own: &str, substitution: &Substitution, text: &mut String) {
    let mut chars = own.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push_str(&substitution.hide(c.encode_utf8(&mut [0; 4])));
            continue;
        }
        text.push(c);
        let Some(kind) = chars.next() else { return };
        text.push(kind);
        let n_digits = match kind {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            _ => 0,
        };
        text.extend(chars.by_ref().take(n_digits));
    }
}

/// Renders a conversation with the template's text in placeholders, and turns the result round: the template's text
/// plain, that of the messages in placeholders. `None` where that cannot be had without changing what the template says,
/// which is `plain`.
pub(super) fn render(
    template: &JinjaTemplate,
    chat: Chat<'_>,
    unix_now: u64,
    plain: &str,
) -> Result<Option<Substituted>> {
    let substitution = Substitution::new(Cover::Everything, chat, plain)?;
    let marks = template.marks();
    let pass = Pass { unix_now, placeholders: true };
    let same = |is_plain: &[bool]| {
        let rendered = template.render_marked(chat, pass, &substitution, is_plain).ok()?;
        (substitution.reveal(&rendered) == plain).then_some(rendered)
    };
    // With every string plain only what is printed as it stands is told apart.
    let mut is_plain = vec![true; marks.strings.len()];
    let Some(mut rendered) = same(&is_plain) else { return Ok(None) };
    for i in 0..is_plain.len() {
        is_plain[i] = false;
        match same(&is_plain) {
            Some(more) => rendered = more,
            None => is_plain[i] = true,
        }
    }
    Ok(Some(Substituted::new(substitution, turned_round(&rendered, &substitution))))
}

/// Placeholders to characters and the other way; a role's name, which the template passes on, stays as it is.
fn turned_round(rendered: &str, substitution: &Substitution) -> String {
    let mut text = String::with_capacity(2 * rendered.len());
    let mut content = String::new();
    let flush = |content: &mut String, text: &mut String| {
        let is_role = Role::ALL.iter().any(|role| role.name() == content);
        match is_role {
            true => text.push_str(content),
            false => text.push_str(&substitution.hide(content)),
        }
        content.clear();
    };
    for c in rendered.chars() {
        match substitution.original(c) {
            None if !c.is_whitespace() => content.push(c),
            own => {
                flush(&mut content, &mut text);
                text.push(own.unwrap_or(c));
            }
        }
    }
    flush(&mut content, &mut text);
    text
}
