//! Files of rows as samples, read where they lie.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use lichen_runtime::escape::thousands;
use lichen_runtime::files::mapped_file::open_regular;
use lichen_runtime::{Error, Result};
use sha2::{Digest, Sha256};

use super::counts::Counts;
use super::encode::{encode, TextEncoder};
use super::row::Row;
use super::scan::{scan, How, Scanned};
use super::{DataOptions, Permutation, Purpose, Sample};
use crate::setting::{DATA, EVAL_DATA};

/// The usable rows of files, in an order that is a function of (seed, epoch, i).
#[derive(Debug)]
pub struct Dataset {
    files: Vec<DataFile>,
    /// In the files' order, both.
    train: Vec<Entry>,
    eval: Vec<Entry>,
    encoder: Option<TextEncoder>,
    vocab_size: usize,
    options: DataOptions,
    /// Of all files.
    counts: Counts,
}

/// One of the files.
#[derive(Debug)]
pub struct DataFile {
    pub path: PathBuf,
    /// Whether its rows score the result and are never trained on.
    pub is_eval: bool,
    pub counts: Counts,
    /// Of its bytes.
    pub sha256: [u8; 32],
    file: File,
    stamp: Stamp,
}

/// What is kept of a sample.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub offset: u64,
    pub n_bytes: u32,
    pub line: u32,
    pub n_tokens: u32,
    pub n_labels: u32,
    /// Of the samples that the row becomes, which one.
    pub piece: u32,
    pub file: u16,
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
    /// The rows of one file, some of them kept for evaluation: [`Dataset::open_files`].
    pub fn open(
        path: &Path,
        encoder: Option<TextEncoder>,
        vocab_size: usize,
        options: &DataOptions,
    ) -> Result<Dataset> {
        Dataset::open_files(&[path.to_path_buf()], &[], encoder, vocab_size, options)
    }

    /// Reads, checks and encodes every row of the files to train on and of those to evaluate on, and keeps where they are.
    /// Without the latter, a part of the former is kept for evaluation. Without an encoder only rows of `input_ids` can be
    /// used.
    ///
    /// # Errors
    /// An option is out of range; there is no file, or one is there twice; a file cannot be read, is something else, has too
    /// many bad rows (one with `strict`), or no usable row. One sentence with the file and the line.
    pub fn open_files(
        train: &[PathBuf],
        eval: &[PathBuf],
        encoder: Option<TextEncoder>,
        vocab_size: usize,
        options: &DataOptions,
    ) -> Result<Dataset> {
        options.check()?;
        if let Some(n) = encoder.as_ref().map(|e| e.tokenizer().vocab_size()).filter(|&n| n > vocab_size) {
            return Err(Error::input(format!("the tokenizer has {n} tokens, the model only {vocab_size}")));
        }
        let how = How { encoder: encoder.as_ref(), vocab_size, options };
        let mut files = Vec::new();
        let (mut rows, mut eval_rows) = (Vec::new(), Vec::new());
        for (path, is_eval) in train.iter().map(|path| (path, false)).chain(eval.iter().map(|path| (path, true))) {
            let number = u16::try_from(files.len()).map_err(|_| Error::limit("more than 65,536 files of data"))?;
            let (file, entries) = DataFile::open(path, is_eval, number, &files, how)?;
            files.push(file);
            if is_eval { &mut eval_rows } else { &mut rows }.extend(entries);
        }
        let mut counts = Counts::default();
        match files.as_slice() {
            [] => return Err(Error::usage(format!("{DATA} is missing"))),
            [one] => counts = one.counts.clone(),
            several => several.iter().for_each(|file| counts.add(&file.counts)),
        }
        let (train, eval) = match eval.is_empty() {
            true => split(rows, options),
            false => (rows, eval_rows),
        };
        Ok(Dataset { files, train, eval, encoder, vocab_size, options: options.clone(), counts })
    }

    /// Samples to train on.
    pub fn n_train(&self) -> usize {
        self.train.len()
    }

    /// Samples that are kept for evaluation.
    pub fn n_eval(&self) -> usize {
        self.eval.len()
    }

    /// Ids of all samples to train on: those of an epoch.
    pub fn n_train_tokens(&self) -> u64 {
        self.train.iter().map(|entry| u64::from(entry.n_tokens)).sum()
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

    /// Of all files: of one with its notes, of several without.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The files, those to train on first.
    pub fn files(&self) -> &[DataFile] {
        &self.files
    }

    /// Of the file's bytes; of several files, of what each is for and its hash.
    pub fn sha256(&self) -> [u8; 32] {
        if let [one] = self.files.as_slice() {
            return one.sha256;
        }
        let mut hash = Sha256::new();
        for file in &self.files {
            hash.update(if file.is_eval { EVAL_DATA.name() } else { DATA.name() });
            hash.update(file.sha256);
        }
        hash.finalize().into()
    }

    /// Length of the files.
    pub fn n_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.stamp.n_bytes).sum()
    }

    pub fn encoder(&self) -> Option<&TextEncoder> {
        self.encoder.as_ref()
    }

    /// What is held on the heap beside the tokenizer, for the memory plan.
    pub fn memory_bytes(&self) -> usize {
        (self.train.capacity() + self.eval.capacity()) * size_of::<Entry>()
    }

    /// Which of the training samples is the `i`-th of an epoch.
    fn place(&self, epoch: u64, i: usize) -> usize {
        assert!(i < self.train.len(), "sample {i} of {}", self.train.len());
        match self.options.shuffle {
            true => Permutation::new(self.train.len(), self.options.seed, Purpose::Epoch(epoch)).at(i),
            false => i,
        }
    }

    fn read(&self, entry: &Entry) -> Result<Sample> {
        let DataFile { path, file, stamp, .. } = &self.files[entry.file as usize];
        let mut bytes = vec![0; entry.n_bytes as usize];
        let read = file.read_exact_at(&mut bytes, entry.offset);
        check_unchanged(file, path, *stamp)?;
        read.map_err(|e| Error::io(path, &e))?;
        let again = |what: String| Error::input(format!("line {}: {what}", entry.line)).in_file(path);
        let row = Row::parse(&bytes, 0).map_err(|fault| again(format!("reads differently now: {}", fault.what)))?;
        let encoded = encode(&row.row, self.encoder.as_ref(), self.vocab_size, &self.options).ok();
        let sample = encoded.and_then(|encoded| encoded.samples.into_iter().nth(entry.piece as usize));
        // Nothing but a template that looks at the clock can come to another result.
        match sample.filter(|sample| sample.ids.len() == entry.n_tokens as usize) {
            Some(sample) => Ok(Sample { ids: sample.ids, labels: sample.labels, line: entry.line as usize }),
            None => Err(again(
                "encodes differently than when the file was opened: does the chat template write the time?".into(),
            )),
        }
    }
}

impl DataFile {
    /// Opens and scans a file that is none of `others`.
    fn open(
        path: &Path,
        is_eval: bool,
        number: u16,
        others: &[DataFile],
        how: How<'_>,
    ) -> Result<(DataFile, Vec<Entry>)> {
        let (file, _) = open_regular(path)?;
        let is_same = |other: &&DataFile| {
            let id = |file: &File| file.metadata().map(|m| (m.dev(), m.ino())).ok();
            id(&other.file) == id(&file)
        };
        if let Some(other) = others.iter().find(is_same) {
            let what = match other.is_eval == is_eval {
                true => format!("is given twice as {}", if is_eval { EVAL_DATA } else { DATA }),
                false => {
                    format!("is among {DATA} and {EVAL_DATA}: what is trained on tells nothing about what is learned")
                }
            };
            return Err(Error::input(what).in_file(path));
        }
        let stamp = Stamp::of(&file, path)?;
        let Scanned { counts, entries, n_bytes, sha256 } = scan(&file, path, number, how)?;
        check_unchanged(&file, path, Stamp { n_bytes, ..stamp })?;
        Ok((DataFile { path: path.to_path_buf(), is_eval, counts, sha256, file, stamp }, entries))
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

/// Samples to train on, and those for evaluation: of the rows the first of a permutation of all, with all their pieces.
fn split(entries: Vec<Entry>, options: &DataOptions) -> (Vec<Entry>, Vec<Entry>) {
    let n_rows = entries.iter().filter(|entry| entry.piece == 0).count();
    let n_eval = options.n_eval(n_rows);
    let order = Permutation::new(n_rows, options.seed, Purpose::EvalSplit);
    let mut is_eval = vec![false; n_rows];
    for i in 0..n_eval {
        is_eval[order.at(i)] = true;
    }
    let mut train = Vec::with_capacity(entries.len() - n_eval);
    let mut eval = Vec::with_capacity(n_eval);
    let mut row = 0;
    for entry in entries {
        row += usize::from(entry.piece == 0);
        if is_eval[row - 1] { &mut eval } else { &mut train }.push(entry);
    }
    (train, eval)
}
