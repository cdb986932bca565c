//! What opening a file found in it.

use std::fmt;

use lichen_runtime::escape::{counted, escape, thousands};

use super::encode::Fit;
use crate::note::Note;
use crate::setting::{MAX_SEQ, PARSE_SPECIAL, TRUNCATION};

/// How many messages of a kind are kept.
pub(super) const NOTES_MAX: usize = 5;
/// How many keys that are not used are named.
const UNUSED_MAX: usize = 12;

/// What a file holds. Every row is one of: usable, bad, dropped, without labels, torn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines, or items of the array, that are not blank.
    pub rows: usize,
    /// Blank lines.
    pub blank: usize,
    /// Rows that became samples.
    pub usable: usize,
    /// Those samples: a long text becomes several.
    pub samples: usize,
    /// Rows that are broken.
    pub bad: usize,
    /// The first of them: `line 4711: "output" is missing (1 of at most 100 bad lines)`.
    pub bad_notes: Vec<String>,
    /// Usable rows that lost something: longer than max_seq, and kept that long.
    pub cut: usize,
    /// Rows of text that were cut into pieces, and lost nothing.
    pub in_pieces: usize,
    /// Rows longer than max_seq that are left out.
    pub dropped: usize,
    /// The first rows that were too long: `line 5: 1,204 tokens, max_seq is 512: left out`.
    pub long_notes: Vec<String>,
    /// Ids of the shortest row that is left out for its length.
    pub shortest_dropped: Option<usize>,
    /// Rows with nothing to learn in what is kept of them.
    pub without_labels: usize,
    /// The first of them: `line 7: nothing to learn: no answer in it is learned`.
    pub unlabelled_notes: Vec<String>,
    /// `repaired: dropped 37 bytes after line 9,120 (the last write was cut)`: the last line has no end and is no whole
    /// row. The file itself stays as it is.
    pub torn: Option<String>,
    /// Keys that are not used, each with the number of rows that have it, in the order in which they came.
    pub unused: Vec<(String, usize)>,
    /// Rows with such keys beyond those that are kept.
    pub more_unused: usize,
    /// Rows in whose text a control token is written out and read as plain characters, and the first such token.
    pub written_control: usize,
    pub control_token: Option<String>,
    /// Ids of the usable rows.
    pub tokens: u64,
    /// Those with a label.
    pub labelled_tokens: u64,
    /// Ids of the longest sample.
    pub longest: usize,
}

impl Counts {
    /// Everything beside the one line that a person should know of a file, a line each.
    pub fn notes(&self) -> Vec<Note> {
        let mut lines: Vec<String> = Vec::new();
        let kinds = [
            (&self.bad_notes, self.bad, "bad"),
            (&self.long_notes, self.cut + self.in_pieces + self.dropped, "longer"),
            (&self.unlabelled_notes, self.without_labels, "without anything to learn"),
        ];
        for (notes, n, what) in kinds {
            lines.extend(notes.iter().cloned());
            if n > notes.len() {
                lines.push(format!("and {} more {what}", thousands((n - notes.len()) as u64)));
            }
        }
        lines.extend(self.torn.clone());
        if !self.unused.is_empty() {
            let keys =
                self.unused.iter().map(|(key, n)| format!("\"{}\" ({})", escape(key), counted(*n as u64, "row")));
            let more = if self.more_unused > 0 { ", and others" } else { "" };
            lines.push(format!("keys that are not used: {}{more}", keys.collect::<Vec<_>>().join(", ")));
        }
        if let Some(token) = &self.control_token {
            lines.push(format!(
                "{} with control tokens written out, such as {}: they are read as plain text ({PARSE_SPECIAL} reads those \
                 of \"text\" as tokens; conversations are given as \"messages\")",
                counted(self.written_control as u64, "row"),
                escape(token)
            ));
        }
        lines.into_iter().map(Note::new).collect()
    }

    pub(super) fn add_unused(&mut self, keys: Vec<String>) {
        for key in keys {
            match self.unused.iter().position(|(known, _)| *known == key) {
                Some(at) => self.unused[at].1 += 1,
                None if self.unused.len() < UNUSED_MAX => self.unused.push((key, 1)),
                None => self.more_unused += 1,
            }
        }
    }

    /// Takes the counts of another file; its notes stay with it.
    pub(super) fn add(&mut self, other: &Counts) {
        let Counts { rows, blank, usable, samples, bad, cut, in_pieces, dropped, without_labels, .. } = other;
        self.rows += rows;
        self.blank += blank;
        self.usable += usable;
        self.samples += samples;
        self.bad += bad;
        self.cut += cut;
        self.in_pieces += in_pieces;
        self.dropped += dropped;
        self.without_labels += without_labels;
        self.tokens += other.tokens;
        self.labelled_tokens += other.labelled_tokens;
        self.longest = self.longest.max(other.longest);
    }

    /// What was done to a row of more than max_seq ids: `1,204 tokens, max_seq is 512: left out`.
    pub(super) fn long(n_tokens: usize, max_seq: usize, done: &str) -> String {
        let (n, most) = (thousands(n_tokens as u64), thousands(max_seq as u64));
        format!("{n} tokens, {MAX_SEQ} is {most}: {done}")
    }

    /// Why nothing is left: `no usable samples in 120 lines (88 too long, 32 bad): nothing to train`.
    pub(super) fn nothing_usable(&self, max_seq: usize) -> String {
        let found = [
            (self.dropped, "too long"),
            (self.bad, "bad"),
            (self.without_labels, "without labels"),
            (self.torn.is_some() as usize, "torn"),
        ];
        let found: Vec<String> =
            found.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(*n))).collect();
        let why = if found.is_empty() { String::new() } else { format!(" ({})", found.join(", ")) };
        let hint = match self.shortest_dropped {
            Some(n) => format!(
                ": {MAX_SEQ} is {}, and the shortest that is too long has {} tokens ({TRUNCATION} says what happens then)",
                thousands(max_seq as u64),
                count(n)
            ),
            None => String::new(),
        };
        format!("no usable samples in {}{why}: nothing to train{hint}", counted(self.rows as u64, "line"))
    }
}

/// What became of a long row, in words.
pub(super) fn done(fit: Fit, n_samples: usize, max_seq: usize) -> String {
    let most = thousands(max_seq as u64);
    match fit {
        Fit::Whole => String::new(),
        Fit::Beginning => format!("cut, its first {most} are kept"),
        Fit::Unanswered => "cut, what follows its last answer is left out".to_string(),
        Fit::Messages(n) => format!("cut, its {} left out", oldest(n)),
        Fit::End => format!("cut, its last {most} are kept"),
        Fit::Pieces => format!("cut into {} pieces", count(n_samples)),
    }
}

fn oldest(n: usize) -> String {
    match n {
        1 => "oldest message is".to_string(),
        _ => format!("oldest {} messages are", count(n)),
    }
}

/// One line: `100 samples, 12,345 tokens (longest 512), 6,789 labelled; 3 cut, 12 too long, 5 bad`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (tokens, labelled) = (thousands(self.tokens), thousands(self.labelled_tokens));
        let (samples, longest) = (count(self.samples), count(self.longest));
        write!(f, "{samples} samples, {tokens} tokens (longest {longest}), {labelled} labelled")?;
        let others = [
            (self.cut, "cut"),
            (self.in_pieces, "in pieces"),
            (self.dropped, "too long"),
            (self.bad, "bad"),
            (self.without_labels, "without labels"),
            (self.torn.is_some() as usize, "torn"),
        ];
        let mut separator = "; ";
        for (n, what) in others.iter().filter(|(n, _)| *n > 0) {
            write!(f, "{separator}{} {what}", count(*n))?;
            separator = ", ";
        }
        Ok(())
    }
}

fn count(n: usize) -> String {
    thousands(n as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_names_what_there_is() {
        let mut counts = Counts {
            rows: 1200,
            usable: 1190,
            samples: 1192,
            tokens: 12_345,
            labelled_tokens: 6789,
            longest: 512,
            ..Counts::default()
        };
        assert_eq!(counts.to_string(), "1,192 samples, 12,345 tokens (longest 512), 6,789 labelled");
        (counts.cut, counts.in_pieces, counts.bad, counts.torn) = (3, 2, 10, Some(String::new()));
        assert_eq!(
            counts.to_string(),
            "1,192 samples, 12,345 tokens (longest 512), 6,789 labelled; 3 cut, 2 in pieces, 10 bad, 1 torn"
        );
    }

    #[test]
    fn keys_are_counted_and_only_the_first_are_named() {
        let mut counts = Counts::default();
        counts.add_unused(vec!["id".into(), "a\u{1b}b".into()]);
        counts.add_unused(vec!["id".into()]);
        let said = |counts: &Counts| counts.notes().iter().map(|n| n.text().to_string()).collect::<Vec<_>>();
        assert_eq!(said(&counts), ["keys that are not used: \"id\" (2 rows), \"a\\u{1b}b\" (1 row)"]);
        counts.add_unused((0..20).map(|i| format!("k{i}")).collect());
        let line = &said(&counts)[0];
        assert!(line.ends_with("\"k9\" (1 row), and others"), "{line}");
    }

    #[test]
    fn more_notes_than_are_kept_are_counted() {
        let counts = Counts { bad: 7, bad_notes: vec!["x".into(); 5], ..Counts::default() };
        assert_eq!(counts.notes().last().map(Note::text), Some("and 2 more bad"));
    }

    #[test]
    fn nothing_usable_says_why() {
        let check = |counts: Counts, expected: &str| {
            assert_eq!(Note::new(counts.nothing_usable(256)).text(), expected);
        };
        let empty = Counts::default();
        check(empty.clone(), "no usable samples in 0 lines: nothing to train");
        check(
            Counts { rows: 120, dropped: 88, bad: 32, shortest_dropped: Some(1204), ..empty.clone() },
            "no usable samples in 120 lines (88 too long, 32 bad): nothing to train: max_seq is 256, and the shortest that \
             is too long has 1,204 tokens (truncation says what happens then)",
        );
        check(
            Counts { rows: 1, without_labels: 1, ..empty },
            "no usable samples in 1 line (1 without labels): nothing to train",
        );
    }
}
