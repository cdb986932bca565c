//! What opening a file found in it.

use std::fmt;

use lichen_runtime::escape::thousands;

/// How many messages of a kind are kept.
pub(super) const NOTES_MAX: usize = 5;

/// What a file holds. Every row is one of: usable, bad, dropped, without labels, torn.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines, or items of the array, that are not blank.
    pub rows: usize,
    /// Blank lines.
    pub blank: usize,
    /// Rows that became samples.
    pub usable: usize,
    /// Rows that are broken.
    pub bad: usize,
    /// The first of them: `line 4711: "output" is missing (1 of at most 100 bad lines)`.
    pub bad_notes: Vec<String>,
    /// Usable rows that lost their end: longer than max_seq, and kept that long.
    pub cut: usize,
    /// Rows longer than max_seq that are left out.
    pub dropped: usize,
    /// The first rows that were too long: `line 5: 1,204 tokens, context is 512: cut`.
    pub long_notes: Vec<String>,
    /// Rows with nothing to learn in what is kept of them.
    pub without_labels: usize,
    /// `repaired: dropped 37 bytes after line 9,120 (the last write was cut)`: the last line has no end and is no whole
    /// row. The file itself stays as it is.
    pub torn: Option<String>,
    /// Ids of the usable rows.
    pub tokens: u64,
    /// Those with a label.
    pub labelled_tokens: u64,
    /// Ids of the longest sample.
    pub longest: usize,
}

impl Counts {
    /// Why nothing is left: `no usable samples in 120 lines (88 too long, 32 bad): nothing to train`.
    pub(super) fn nothing_usable(&self) -> String {
        let found = [
            (self.dropped, "too long"),
            (self.bad, "bad"),
            (self.without_labels, "without labels"),
            (self.torn.is_some() as usize, "torn"),
        ];
        let found: Vec<String> =
            found.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", count(*n))).collect();
        let lines = if self.rows == 1 { "line" } else { "lines" };
        let why = if found.is_empty() { String::new() } else { format!(" ({})", found.join(", ")) };
        format!("no usable samples in {} {lines}{why}: nothing to train", count(self.rows))
    }
}

/// One line: `100 samples, 12,345 tokens (longest 512), 6,789 labelled; 3 cut, 12 too long, 5 bad`.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (tokens, labelled) = (thousands(self.tokens), thousands(self.labelled_tokens));
        let (samples, longest) = (count(self.usable), count(self.longest));
        write!(f, "{samples} samples, {tokens} tokens (longest {longest}), {labelled} labelled")?;
        let others = [
            (self.cut, "cut"),
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
        let mut counts =
            Counts { rows: 1200, usable: 1190, tokens: 12_345, labelled_tokens: 6789, ..Counts::default() };
        counts.longest = 512;
        assert_eq!(counts.to_string(), "1,190 samples, 12,345 tokens (longest 512), 6,789 labelled");
        (counts.cut, counts.bad, counts.torn) = (3, 10, Some(String::new()));
        assert_eq!(
            counts.to_string(),
            "1,190 samples, 12,345 tokens (longest 512), 6,789 labelled; 3 cut, 10 bad, 1 torn"
        );
    }

    #[test]
    fn nothing_usable_says_why() {
        let check = |counts: Counts, expected: &str| assert_eq!(counts.nothing_usable(), expected);
        let empty = Counts::default();
        check(empty.clone(), "no usable samples in 0 lines: nothing to train");
        check(
            Counts { rows: 120, dropped: 88, bad: 32, ..empty.clone() },
            "no usable samples in 120 lines (88 too long, 32 bad): nothing to train",
        );
        check(
            Counts { rows: 1, without_labels: 1, ..empty },
            "no usable samples in 1 line (1 without labels): nothing to train",
        );
    }
}
