//! The first pass over a file: what its rows are, and where they lie.

use std::path::Path;

use lichen_runtime::escape::{escape, thousands};
use lichen_runtime::{Error, Result};

use super::counts::{done, Counts, NOTES_MAX};
use super::dataset::Entry;
use super::encode::{encode, Encoded, Fit, Refusal, TextEncoder};
use super::row::{Fault, FaultKind, ParsedRow, Row};
use super::row_reader::{Extent, Form, Place, RowReader, ROW_BYTES_MAX};
use super::DataOptions;

/// More broken rows than this are no accident.
const BAD_MAX: usize = 100;

/// What a file holds.
pub(super) struct Scanned {
    pub counts: Counts,
    /// In the file's order; the pieces of a text follow each other.
    pub entries: Vec<Entry>,
    pub n_bytes: u64,
    pub sha256: [u8; 32],
}

/// How rows become samples.
#[derive(Clone, Copy)]
pub(super) struct How<'a> {
    pub encoder: Option<&'a TextEncoder>,
    pub vocab_size: usize,
    pub options: &'a DataOptions,
}

/// Reads, checks and encodes every row of a file, the `number`-th of a data set.
///
/// # Errors
/// It cannot be read, is something else, has too many bad rows (one with `strict`), or no usable row.
pub(super) fn scan(file: &std::fs::File, path: &Path, number: u16, how: How<'_>) -> Result<Scanned> {
    let mut reader = RowReader::new(file, path)?;
    let form = reader.form();
    let mut scan = Scan { how, number, form, counts: Counts::default(), entries: Vec::new() };
    while let Some(place) = reader.next_row()? {
        scan.take(&place, reader.bytes()).map_err(|e| e.in_file(path))?;
    }
    let Scan { counts, entries, .. } = scan;
    let (n_bytes, sha256) = reader.finish();
    if entries.is_empty() {
        for note in counts.notes() {
            log::warn!("{}: {}", path.display(), note.text());
        }
        return Err(Error::input(counts.nothing_usable(how.options.max_seq)).in_file(path));
    }
    Ok(Scanned { counts, entries, n_bytes, sha256 })
}

struct Scan<'a> {
    how: How<'a>,
    number: u16,
    form: Form,
    counts: Counts,
    entries: Vec<Entry>,
}

impl Scan<'_> {
    fn take(&mut self, place: &Place, bytes: &[u8]) -> Result<()> {
        if place.extent == Extent::Blank {
            self.counts.blank += 1;
            return Ok(());
        }
        self.counts.rows += 1;
        if place.extent == Extent::TooLong {
            return self.bad(place, Fault::meaning(format!("longer than {} MiB", ROW_BYTES_MAX >> 20)));
        }
        let ParsedRow { row, unused } = match Row::parse(bytes, place.column) {
            Ok(row) => row,
            Err(fault) if fault.kind == FaultKind::Ends && !place.is_ended => return self.torn(place, bytes, fault),
            // What follows a row that is no JSON may be a part of it.
            Err(fault) if fault.kind != FaultKind::Meaning && self.form != Form::Lines => {
                return Err(Error::input(self.at(place, &fault)));
            }
            Err(fault) => return self.bad(place, fault),
        };
        self.counts.add_unused(unused);
        self.note_control_tokens(&row);
        let How { encoder, vocab_size, options } = self.how;
        match encode(&row, encoder, vocab_size, options) {
            Ok(encoded) => self.usable(place, bytes.len(), &encoded),
            Err(Refusal::WithoutLabels(why)) => {
                self.counts.without_labels += 1;
                let note = self.at(place, &Fault::meaning(format!("nothing to learn: {why}")));
                keep(&mut self.counts.unlabelled_notes, note);
                Ok(())
            }
            Err(Refusal::TooLong(n, answer)) => {
                self.counts.dropped += 1;
                let shortest = self.counts.shortest_dropped.unwrap_or(usize::MAX);
                self.counts.shortest_dropped = Some(shortest.min(n));
                let why = match answer {
                    Some(n) => format!("left out, its last answer alone has {}", thousands(n as u64)),
                    None => "left out".to_string(),
                };
                self.long(place, n, &why);
                Ok(())
            }
            Err(Refusal::Bad(what)) => self.bad(place, Fault::meaning(what)),
            Err(Refusal::NeedsTokenizer(key)) => Err(Error::input(format!(
                "line {}: \"{key}\" needs a tokenizer, and this model has no tokenizer.json: only rows of \"input_ids\" \
                 can be used",
                place.line
            ))),
        }
    }

    /// Control tokens that a person wrote out are read as characters, which is seldom what was meant.
    fn note_control_tokens(&mut self, row: &Row) {
        let How { encoder: Some(encoder), options, .. } = self.how else { return };
        if options.parse_special && matches!(row, Row::Text(_)) {
            return;
        }
        let found = row.texts().find_map(|text| encoder.tokenizer().written_control_token(text));
        if let Some(token) = found {
            self.counts.written_control += 1;
            self.counts.control_token.get_or_insert_with(|| token.to_string());
        }
    }

    fn usable(&mut self, place: &Place, n_bytes: usize, encoded: &Encoded) -> Result<()> {
        let Ok(line) = u32::try_from(place.line) else {
            return Err(Error::limit("has more than 4,294,967,295 lines"));
        };
        match encoded.fit {
            Fit::Whole => {}
            Fit::Pieces => self.counts.in_pieces += 1,
            Fit::Beginning | Fit::Unanswered | Fit::Messages(_) | Fit::End => self.counts.cut += 1,
        }
        if encoded.fit != Fit::Whole {
            let done = done(encoded.fit, encoded.samples.len(), self.how.options.max_seq);
            self.long(place, encoded.n_whole, &done);
        }
        self.counts.usable += 1;
        self.counts.samples += encoded.samples.len();
        for (piece, sample) in encoded.samples.iter().enumerate() {
            let (n_tokens, n_labels) = (sample.ids.len(), sample.n_labels());
            self.counts.tokens += n_tokens as u64;
            self.counts.labelled_tokens += n_labels as u64;
            self.counts.longest = self.counts.longest.max(n_tokens);
            // A row has at most 4 MiB, a sample at most 2^20 ids.
            let (n_bytes, n_tokens, n_labels) = (n_bytes as u32, n_tokens as u32, n_labels as u32);
            let (offset, file, piece) = (place.offset, self.number, piece as u32);
            self.entries.push(Entry { offset, n_bytes, line, n_tokens, n_labels, piece, file });
        }
        Ok(())
    }

    fn long(&mut self, place: &Place, n_tokens: usize, done: &str) {
        let fault = Fault::meaning(Counts::long(n_tokens, self.how.options.max_seq, done));
        let note = self.at(place, &fault);
        keep(&mut self.counts.long_notes, note);
    }

    fn bad(&mut self, place: &Place, fault: Fault) -> Result<()> {
        let said = self.at(place, &fault);
        if self.how.options.strict {
            return Err(Error::input(said));
        }
        self.counts.bad += 1;
        if self.counts.bad > BAD_MAX {
            let first = &self.counts.bad_notes[0];
            return Err(Error::input(format!("{said}: more than {BAD_MAX} bad lines (the first is {first})")));
        }
        let note = format!("{said} ({} of at most {BAD_MAX} bad lines)", self.counts.bad);
        keep(&mut self.counts.bad_notes, note);
        Ok(())
    }

    /// The last line has no end, and is the beginning of a row: whoever wrote the file was stopped.
    fn torn(&mut self, place: &Place, bytes: &[u8], fault: Fault) -> Result<()> {
        if self.how.options.strict {
            return Err(Error::input(format!("{} (the last write was cut)", self.at(place, &fault))));
        }
        let (n, line) = (thousands(bytes.len() as u64), thousands(place.line as u64 - 1));
        self.counts.torn = Some(format!("repaired: dropped {n} bytes after line {line} (the last write was cut)"));
        Ok(())
    }

    /// `line 5: ..`; in an array `row 3 (line 5): ..`. Made safe to print: values of the file are in it.
    fn at(&self, place: &Place, fault: &Fault) -> String {
        let line = place.line + fault.lines_below;
        let what = escape(&fault.what);
        match self.form {
            Form::Lines => format!("line {line}: {what}"),
            Form::Array | Form::Objects => format!("row {} (line {line}): {what}", place.row),
        }
    }
}

fn keep(notes: &mut Vec<String>, note: String) {
    if notes.len() < NOTES_MAX {
        notes.push(note);
    }
}
