//! A file of rows as samples, read where they lie.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use lichen_runtime::escape::{escape, thousands};
use lichen_runtime::files::mapped_file::open_regular;
use lichen_runtime::{Error, Result};

use super::counts::{Counts, NOTES_MAX};
use super::encode::{encode, Encoded, Refusal, TextEncoder};
use super::row::{Fault, FaultKind, Row};
use super::row_reader::{Extent, Form, Place, RowReader, ROW_BYTES_MAX};
use super::{DataOptions, Permutation, Purpose, Sample, Truncation};

/// More broken rows than this are no accident.
const BAD_MAX: usize = 100;

/// The usable rows of a file, in an order that is a function of (seed, epoch, i).
#[derive(Debug)]
pub struct Dataset {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    /// In the file's order, both.
    train: Vec<Entry>,
    eval: Vec<Entry>,
    encoder: Option<TextEncoder>,
    vocab_size: usize,
    options: DataOptions,
    counts: Counts,
    sha256: [u8; 32],
}

/// What is kept of a row.
#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: u64,
    n_bytes: u32,
    line: u32,
    n_tokens: u32,
    n_labels: u32,
}

/// How large a sample is, known without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleSize {
    pub n_tokens: usize,
    /// Ids that the loss is a mean over; at least 1.
    pub n_labels: usize,
}

/// What tells that a file was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    n_bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl Stamp {
    fn of(file: &File, path: &Path) -> Result<Stamp> {
        let metadata = file.metadata().map_err(|e| Error::io(path, &e))?;
        Ok(Stamp { n_bytes: metadata.len(), modified: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

impl Dataset {
    /// Reads, checks and encodes every row of `path`, and keeps where they are. Without an encoder only rows of
    /// `input_ids` can be used.
    ///
    /// # Errors
    /// An option is out of range; the file cannot be read, is something else, has too many bad rows (one with
    /// `strict`), or no usable row. One sentence with the file and the line.
    pub fn open(
        path: &Path,
        encoder: Option<TextEncoder>,
        vocab_size: usize,
        options: &DataOptions,
    ) -> Result<Dataset> {
        options.check()?;
        if let Some(n) = encoder.as_ref().map(|e| e.tokenizer().vocab_size()).filter(|&n| n > vocab_size) {
            return Err(Error::input(format!("the tokenizer has {n} tokens, the model only {vocab_size}")));
        }
        let (file, _) = open_regular(path)?;
        let stamp = Stamp::of(&file, path)?;
        let mut reader = RowReader::new(&file, path)?;
        let form = reader.form();
        let mut scan =
            Scan { encoder: encoder.as_ref(), vocab_size, options, form, counts: Counts::default(), rows: vec![] };
        while let Some(place) = reader.next_row()? {
            scan.take(&place, reader.bytes()).map_err(|e| e.in_file(path))?;
        }
        let Scan { counts, rows, .. } = scan;
        let (n_bytes, sha256) = reader.finish();
        check_unchanged(&file, path, Stamp { n_bytes, ..stamp })?;
        if rows.is_empty() {
            for note in counts.bad_notes.iter().chain(&counts.long_notes).chain(&counts.torn) {
                log::warn!("{}: {note}", path.display());
            }
            return Err(Error::input(counts.nothing_usable()).in_file(path));
        }
        let (train, eval) = split(rows, options);
        let (path, options) = (path.to_path_buf(), options.clone());
        Ok(Dataset { path, file, stamp, train, eval, encoder, vocab_size, options, counts, sha256 })
    }

    pub fn n_train(&self) -> usize {
        self.train.len()
    }

    pub fn n_eval(&self) -> usize {
        self.eval.len()
    }

    /// The `i`-th sample of an epoch. Reads and encodes that row alone.
    ///
    /// # Errors
    /// The file was changed since it was opened, or cannot be read.
    pub fn train(&self, epoch: u64, i: usize) -> Result<Sample> {
        self.read(&self.train[self.place(epoch, i)])
    }

    /// The `i`-th sample that is kept for evaluation, in the file's order. # Errors: as [`Dataset::train`].
    pub fn eval(&self, i: usize) -> Result<Sample> {
        self.read(&self.eval[i])
    }

    /// How large [`Dataset::train`] will find its sample.
    pub fn train_size(&self, epoch: u64, i: usize) -> SampleSize {
        self.train[self.place(epoch, i)].size()
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Of the file's bytes.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Length of the file.
    pub fn n_bytes(&self) -> u64 {
        self.stamp.n_bytes
    }

    pub fn encoder(&self) -> Option<&TextEncoder> {
        self.encoder.as_ref()
    }

    /// What is held on the heap beside the tokenizer, for the memory plan.
    pub fn memory_bytes(&self) -> usize {
        (self.train.capacity() + self.eval.capacity()) * size_of::<Entry>()
    }

    /// Which of the training rows is the `i`-th of an epoch.
    fn place(&self, epoch: u64, i: usize) -> usize {
        assert!(i < self.train.len(), "sample {i} of {}", self.train.len());
        match self.options.shuffle {
            true => Permutation::new(self.train.len(), self.options.seed, Purpose::Epoch(epoch)).at(i),
            false => i,
        }
    }

    fn read(&self, entry: &Entry) -> Result<Sample> {
        let mut bytes = vec![0; entry.n_bytes as usize];
        let read = self.file.read_exact_at(&mut bytes, entry.offset);
        check_unchanged(&self.file, &self.path, self.stamp)?;
        read.map_err(|e| Error::io(&self.path, &e))?;
        let again = |what: String| Error::input(format!("line {}: {what}", entry.line)).in_file(&self.path);
        let row = Row::parse(&bytes, 0).map_err(|fault| again(format!("reads differently now: {}", fault.what)))?;
        let encoded = encode(row, self.encoder.as_ref(), self.vocab_size, &self.options);
        // Nothing but a template that looks at the clock can come to another result.
        match encoded {
            Ok(Encoded { ids, labels, .. }) if ids.len() == entry.n_tokens as usize => {
                Ok(Sample { ids, labels, line: entry.line as usize })
            }
            _ => Err(again(
                "encodes differently than when the file was opened: does the chat template write the time?".into(),
            )),
        }
    }
}

impl Entry {
    fn size(&self) -> SampleSize {
        SampleSize { n_tokens: self.n_tokens as usize, n_labels: self.n_labels as usize }
    }
}

fn check_unchanged(file: &File, path: &Path, before: Stamp) -> Result<()> {
    let now = Stamp::of(file, path)?;
    if now == before {
        return Ok(());
    }
    let (was, is) = (thousands(before.n_bytes), thousands(now.n_bytes));
    Err(Error::input(format!("was changed while in use (it had {was} bytes, and has {is}): start again")).in_file(path))
}

/// Training rows, and those for evaluation: the first of a permutation of all.
fn split(rows: Vec<Entry>, options: &DataOptions) -> (Vec<Entry>, Vec<Entry>) {
    let n_eval = options.n_eval(rows.len());
    let order = Permutation::new(rows.len(), options.seed, Purpose::EvalSplit);
    let mut is_eval = vec![false; rows.len()];
    for i in 0..n_eval {
        is_eval[order.at(i)] = true;
    }
    let mut train = Vec::with_capacity(rows.len() - n_eval);
    let mut eval = Vec::with_capacity(n_eval);
    for (row, is_eval) in rows.into_iter().zip(is_eval) {
        if is_eval { &mut eval } else { &mut train }.push(row);
    }
    (train, eval)
}

/// The first pass over a file.
struct Scan<'a> {
    encoder: Option<&'a TextEncoder>,
    vocab_size: usize,
    options: &'a DataOptions,
    form: Form,
    counts: Counts,
    rows: Vec<Entry>,
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
        let row = match Row::parse(bytes, place.column) {
            Ok(row) => row,
            Err(fault) if fault.kind == FaultKind::Ends && !place.is_ended => return self.torn(place, bytes, fault),
            // What follows a row that is no JSON may be a part of it.
            Err(fault) if fault.kind != FaultKind::Meaning && self.form == Form::Array => {
                return Err(Error::input(self.at(place, &fault)));
            }
            Err(fault) => return self.bad(place, fault),
        };
        match encode(row, self.encoder, self.vocab_size, self.options) {
            Ok(encoded) => self.usable(place, bytes.len(), &encoded),
            Err(Refusal::WithoutLabels) => {
                self.counts.without_labels += 1;
                Ok(())
            }
            Err(Refusal::TooLong(n)) => {
                self.counts.dropped += 1;
                self.long(place, n);
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

    fn usable(&mut self, place: &Place, n_bytes: usize, encoded: &Encoded) -> Result<()> {
        let n_tokens = encoded.ids.len();
        let n_labels = encoded.n_labels();
        let Ok(line) = u32::try_from(place.line) else {
            return Err(Error::limit("has more than 4,294,967,295 lines"));
        };
        if encoded.n_whole > n_tokens {
            self.counts.cut += 1;
            self.long(place, encoded.n_whole);
        }
        self.counts.usable += 1;
        self.counts.tokens += n_tokens as u64;
        self.counts.labelled_tokens += n_labels as u64;
        self.counts.longest = self.counts.longest.max(n_tokens);
        // A row has at most 4 MiB, a sample at most 2^20 ids.
        let (n_bytes, n_tokens, n_labels) = (n_bytes as u32, n_tokens as u32, n_labels as u32);
        self.rows.push(Entry { offset: place.offset, n_bytes, line, n_tokens, n_labels });
        Ok(())
    }

    fn long(&mut self, place: &Place, n_tokens: usize) {
        if self.counts.long_notes.len() < NOTES_MAX {
            let (n, most) = (thousands(n_tokens as u64), thousands(self.options.max_seq as u64));
            let done = match self.options.truncation {
                Truncation::Cut => "cut",
                Truncation::Drop => "skipped",
            };
            let fault = Fault::meaning(format!("{n} tokens, context is {most}: {done}"));
            self.counts.long_notes.push(self.at(place, &fault));
        }
    }

    fn bad(&mut self, place: &Place, fault: Fault) -> Result<()> {
        let said = self.at(place, &fault);
        if self.options.strict {
            return Err(Error::input(said));
        }
        self.counts.bad += 1;
        if self.counts.bad > BAD_MAX {
            let first = &self.counts.bad_notes[0];
            return Err(Error::input(format!("{said}: more than {BAD_MAX} bad lines (the first is {first})")));
        }
        if self.counts.bad_notes.len() < NOTES_MAX {
            self.counts.bad_notes.push(format!("{said} ({} of at most {BAD_MAX} bad lines)", self.counts.bad));
        }
        Ok(())
    }

    /// The last line has no end, and is the beginning of a row: whoever wrote the file was stopped.
    fn torn(&mut self, place: &Place, bytes: &[u8], fault: Fault) -> Result<()> {
        if self.options.strict {
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
            Form::Array => format!("row {} (line {line}): {what}", place.row),
        }
    }
}
