//! Figures of a finished conversion.

use std::path::PathBuf;

use lichen_kernels::Format;
use serde::Serialize;

/// What was written, and how far it is from the source.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub model: PathBuf,
    /// The first of several parts.
    pub out: PathBuf,
    /// Files a GGUF was split into, shards of a folder.
    pub parts: usize,
    pub format: &'static str,
    /// Weights as the source's files hold them.
    pub source_bytes: u64,
    /// Everything that was written.
    pub out_bytes: u64,
    pub formats: Vec<FormatReport>,
    pub seconds: f64,
    /// Highest resident memory of this process, mapped pages included; `None` when the system does not say.
    pub peak_rss_bytes: Option<u64>,
    /// What a person should know about this conversion.
    pub notes: Vec<String>,
    /// The adapter that was added to the weights, if one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge: Option<MergeReport>,
}

/// What became of an adapter.
#[derive(Clone, Debug, Serialize)]
pub struct MergeReport {
    pub adapter: PathBuf,
    /// The factor that was asked for, beside the adapter's own scales.
    pub scale: f32,
    /// Matrices that were written with their pair added.
    pub matrices_merged: usize,
    /// Matrices the adapter has a pair for.
    pub matrices: usize,
    /// The base as the adapter names it.
    pub base_name: Option<String>,
}

/// The weights that were written in one format.
#[derive(Clone, Debug, Serialize)]
pub struct FormatReport {
    pub format: &'static str,
    pub tensors: u64,
    pub values: u64,
    pub bytes: u64,
    /// Mean of (written - source)^2.
    pub mean_squared_error: f64,
    /// The same over the mean of source^2: 0.0001 is an error of 1% in each value.
    pub relative_squared_error: f64,
}

/// Sums of one format while it is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sums {
    pub values: u64,
    pub squared_error: f64,
    pub squares: f64,
}

impl Sums {
    /// Adds `written` against `source`.
    pub fn add(&mut self, source: &[f32], written: &[f32]) {
        assert_eq!(source.len(), written.len());
        for (a, b) in source.iter().zip(written) {
            let (a, b) = (*a as f64, *b as f64);
            self.squared_error += (a - b) * (a - b);
            self.squares += a * a;
        }
        self.values += source.len() as u64;
    }
}

/// Figures of all formats, in the order in which they first appear.
#[derive(Default)]
pub struct Tally {
    formats: Vec<(Format, u64, u64, Sums)>,
}

impl Tally {
    /// Adds one tensor.
    pub fn add(&mut self, format: Format, bytes: u64, sums: Sums) {
        let at = match self.formats.iter().position(|entry| entry.0 == format) {
            Some(at) => at,
            None => {
                self.formats.push((format, 0, 0, Sums::default()));
                self.formats.len() - 1
            }
        };
        let entry = &mut self.formats[at];
        entry.1 += 1;
        entry.2 += bytes;
        entry.3.values += sums.values;
        entry.3.squared_error += sums.squared_error;
        entry.3.squares += sums.squares;
    }

    pub fn reports(&self) -> Vec<FormatReport> {
        let report = |(format, tensors, bytes, sums): &(Format, u64, u64, Sums)| FormatReport {
            format: format.name(),
            tensors: *tensors,
            values: sums.values,
            bytes: *bytes,
            mean_squared_error: sums.squared_error / sums.values.max(1) as f64,
            relative_squared_error: if sums.squares > 0.0 { sums.squared_error / sums.squares } else { 0.0 },
        };
        self.formats.iter().map(report).collect()
    }
}
