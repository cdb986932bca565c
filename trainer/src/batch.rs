//! Rows of several samples side by side: no padding, each token costs what it is.

use std::ops::Range;

use lichen_kernels::{Device, DeviceError, Step};

use crate::data::Sample;

/// The rows of one micro-batch, T in all, allocated once for the longest.
pub struct Batch {
    /// The token of each row.
    step: Step,
    tokens: Vec<u32>,
    /// The rows of each sample, in order.
    sequences: Vec<Range<usize>>,
    /// Rows whose next token is asked for, and that token, in order of the row.
    targets: Vec<(usize, u32)>,
    max_rows: usize,
}

impl Batch {
    /// Room for `max_samples` samples of `max_rows` rows together.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(device: &Device, max_samples: usize, max_rows: usize) -> Result<Batch, DeviceError> {
        Ok(Batch {
            step: Step::new(device, max_rows)?,
            tokens: Vec::with_capacity(max_rows),
            sequences: Vec::with_capacity(max_samples),
            targets: Vec::with_capacity(max_rows),
            max_rows,
        })
    }

    /// Takes these samples. The last token of each is only ever a target: it gets no row. Panics when they do not fit.
    pub fn set<'a>(&mut self, samples: impl IntoIterator<Item = &'a Sample>) {
        self.tokens.clear();
        self.sequences.clear();
        self.targets.clear();
        for sample in samples {
            let start = self.tokens.len();
            let n = sample.ids.len().saturating_sub(1);
            self.tokens.extend_from_slice(&sample.ids[..n]);
            self.sequences.push(start..start + n);
            let labels = sample.labels.iter().enumerate().skip(1);
            self.targets.extend(labels.filter_map(|(i, label)| Some((start + i - 1, u32::try_from(*label).ok()?))));
        }
        assert!(self.tokens.len() <= self.max_rows, "{} rows of {}", self.tokens.len(), self.max_rows);
        self.step.set(0, &self.tokens);
    }

    pub fn step(&self) -> &Step {
        &self.step
    }

    /// T.
    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    pub fn sequences(&self) -> &[Range<usize>] {
        &self.sequences
    }

    /// (row, token) of each prediction that counts.
    pub fn targets(&self) -> &[(usize, u32)] {
        &self.targets
    }
}

/// Predictions that count in a sample: labelled tokens that have one before them.
pub fn n_targets(sample: &Sample) -> usize {
    sample.labels.iter().skip(1).filter(|label| **label >= 0).count()
}
