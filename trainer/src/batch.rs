//! Rows of several samples side by side: no padding, each token costs what it is.

use std::ops::Range;

use lichen_kernels::ops::attention::train::Starts;
use lichen_kernels::{Device, DeviceError, Staged, Step, View};

use crate::data::Sample;

/// The rows of one micro-batch, T in all, allocated once for the longest.
pub struct Batch {
    /// The token of each row.
    step: Step,
    tokens: Vec<u32>,
    /// The rows of each sample, in order.
    sequences: Vec<Range<usize>>,
    starts: Starts,
    /// Rows whose next token is asked for, in order, and those tokens: (n_targets) each.
    target_rows: Vec<u32>,
    target_tokens: Vec<u32>,
    /// The position of each row in its sample, (T).
    positions: Vec<u32>,
    /// Rows and tokens of the targets, and the positions, where the device reads them.
    on_device: [Staged<u32>; 3],
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
            starts: Starts::new(device, max_samples)?,
            target_rows: Vec::with_capacity(max_rows),
            target_tokens: Vec::with_capacity(max_rows),
            positions: Vec::with_capacity(max_rows),
            on_device: [Staged::new(device, max_rows)?, Staged::new(device, max_rows)?, Staged::new(device, max_rows)?],
            max_rows,
        })
    }

    /// Bytes on a GPU, and as many of pinned memory.
    pub fn size_bytes(max_samples: usize, max_rows: usize) -> usize {
        Step::size_bytes(max_rows) + 4 * (3 * max_rows + max_samples + 1)
    }

    /// Takes these samples. The last token of each is only ever a target: it gets no row. Panics when they do not fit. The
    /// device must have finished with the samples before.
    pub fn set<'a>(&mut self, samples: impl IntoIterator<Item = &'a Sample>) {
        self.tokens.clear();
        self.sequences.clear();
        self.target_rows.clear();
        self.target_tokens.clear();
        self.positions.clear();
        for sample in samples {
            let start = self.tokens.len();
            let n = sample.ids.len().saturating_sub(1);
            self.tokens.extend_from_slice(&sample.ids[..n]);
            self.sequences.push(start..start + n);
            self.positions.extend(0..n as u32);
            for (i, label) in sample.labels.iter().enumerate().skip(1) {
                let Ok(token) = u32::try_from(*label) else { continue };
                self.target_rows.push((start + i - 1) as u32);
                self.target_tokens.push(token);
            }
        }
        assert!(self.tokens.len() <= self.max_rows, "{} rows of {}", self.tokens.len(), self.max_rows);
        self.step.set(0, &self.tokens);
        self.step.send();
        self.starts.set(&self.sequences);
        let [rows, tokens, positions] = &mut self.on_device;
        positions.set(&self.positions);
        rows.set(&self.target_rows);
        tokens.set(&self.target_tokens);
    }

    /// The rows of each sample.
    pub fn sequences(&self) -> &[Range<usize>] {
        &self.sequences
    }

    pub fn step(&self) -> &Step {
        &self.step
    }

    /// T.
    pub fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// The position of each row in its sample, (T).
    pub fn positions(&self) -> View<'_, u32, 1> {
        self.on_device[2].view([self.n_rows()])
    }

    /// Where samples start, for attention.
    pub fn starts(&self) -> &Starts {
        &self.starts
    }

    /// Predictions that count.
    pub fn n_targets(&self) -> usize {
        self.target_rows.len()
    }

    /// The rows of some of them, (n).
    pub fn target_rows(&self, part: Range<usize>) -> View<'_, u32, 1> {
        self.on_device[0].part(part)
    }

    /// The tokens that are asked for there, (n).
    pub fn target_tokens(&self, part: Range<usize>) -> View<'_, u32, 1> {
        self.on_device[1].part(part)
    }
}

/// Predictions that count in a sample: labelled tokens that have one before them.
pub fn n_targets(sample: &Sample) -> usize {
    sample.labels.iter().skip(1).filter(|label| **label >= 0).count()
}
