//! Training data: rows of token ids and labels from JSONL files.
//!
//! A file holds one JSON object per line, or one JSON array of objects (the original Alpaca file is one). A byte order
//! mark, CRLF, blank lines and a missing last line end are accepted. What an object holds decides what it is; other keys
//! are ignored, and one of these keys twice in a row is refused:
//!
//! | keys | ids | labels |
//! | --- | --- | --- |
//! | `input_ids`, perhaps `labels` | as they are | `labels`, or all ids |
//! | `messages` (`role`, `content`) | the model's chat template | each answer and its end marker |
//! | `instruction`, perhaps `input`, `output` | the same, as one question and its answer | the answer and its end marker |
//! | `text` | BOS, text, EOS, where the tokenizer has them | all |
//!
//! - Labels stand at the id they belong to and are not shifted: the loss at position i - 1 predicts id i. Nothing
//!   predicts the first id, so it never has a label.
//! - The end marker is the control token that the template writes after the answer (`<end_of_turn>`), not the line end
//!   behind it. An answer without text has no labels: it would teach the model to say nothing.
//! - `train_on_prompt` labels the questions and the template's own text too, all but the first id. Rows that bring their labels
//!   keep them.
//! - A row longer than `max_seq` is cut to its first `max_seq` ids, or dropped. A row without a label, from the start or
//!   after the cut, is counted and dropped.
//! - Text in a row never becomes a control token; an id in `input_ids` may be one.
//!
//! Opening reads the file once, through a buffer of 64 KiB and a row of at most 4 MiB, checks and encodes every row, and
//! keeps 24 bytes of each. A row is read and encoded again when its turn comes. Which row that is, is a function of
//! (seed, epoch, i, number of rows): there is no state to save.

mod counts;
mod dataset;
mod encode;
mod permutation;
mod regression_prompt;
mod row;
mod row_reader;

pub use counts::Counts;
pub use dataset::{Dataset, SampleSize};
pub use encode::TextEncoder;
pub use permutation::{Permutation, Purpose};
pub use regression_prompt::{read_regression_prompts, RegressionPrompt, REGRESSION_PROMPTS_MAX};

use lichen_runtime::{Error, Result};

use crate::setting::{EVAL_SPLIT, MAX_SEQ};

/// The label of an id that nothing is trained to predict; as in transformers.
pub const IGNORED: i32 = -100;
/// Longest sample that can be asked for.
pub(crate) const MAX_SEQ_MAX: usize = 1 << 20;
/// Most of a file that may be kept for evaluation.
pub(crate) const EVAL_SPLIT_MAX: f64 = 0.9;

/// One sample: `ids` (n) and `labels` (n), the id that each is trained to be predicted as, or [`IGNORED`]. `labels[i]`
/// belongs to `ids[i]`; the loss at position i - 1 predicts it. `labels[0]` is always [`IGNORED`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub ids: Vec<u32>,
    pub labels: Vec<i32>,
    /// Where the row begins in its file; the first line is 1.
    pub line: usize,
}

/// What happens to a row of more than `max_seq` ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// Its first `max_seq` ids are kept.
    Cut,
    Drop,
}

/// How a file is read, and in which order.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// Most ids of a sample.
    pub max_seq: usize,
    pub truncation: Truncation,
    /// Refuses the file at its first bad row. Otherwise up to 100 are skipped.
    pub strict: bool,
    /// Labels questions and template too. Nothing predicts a row's first id (BOS where there is one): it has no label.
    pub train_on_prompt: bool,
    /// The part of the usable rows that is kept for evaluation, 0 to 0.9: round(n * eval_split) of n rows, at least one
    /// when it is above 0 and n is at least 2, and never all.
    pub eval_split: f64,
    pub seed: u64,
    /// A new order in each epoch; otherwise that of the file.
    pub shuffle: bool,
}

impl Default for DataOptions {
    fn default() -> Self {
        DataOptions {
            max_seq: 512,
            truncation: Truncation::Cut,
            strict: false,
            train_on_prompt: false,
            eval_split: 0.0,
            seed: 0,
            shuffle: true,
        }
    }
}

impl DataOptions {
    /// Refuses values outside their range.
    pub fn check(&self) -> Result<()> {
        if !(2..=MAX_SEQ_MAX).contains(&self.max_seq) {
            return Err(Error::usage(format!("{MAX_SEQ} is {}; 2 to {MAX_SEQ_MAX}", self.max_seq)));
        }
        // NaN lies in no range.
        if !(0.0..=EVAL_SPLIT_MAX).contains(&self.eval_split) {
            return Err(Error::usage(format!("{EVAL_SPLIT} is {}; 0 to {EVAL_SPLIT_MAX}", self.eval_split)));
        }
        Ok(())
    }

    /// How many of `n_rows` rows are kept for evaluation.
    fn n_eval(&self, n_rows: usize) -> usize {
        if self.eval_split == 0.0 || n_rows < 2 {
            return 0;
        }
        ((n_rows as f64 * self.eval_split).round() as usize).clamp(1, n_rows - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let check = |change: fn(&mut DataOptions)| {
            let mut options = DataOptions::default();
            change(&mut options);
            options.check().err().map(|e| e.to_string())
        };
        assert_eq!(check(|_| {}), None);
        assert_eq!(check(|o| o.max_seq = 1).unwrap(), "max_seq is 1; 2 to 1048576");
        assert_eq!(check(|o| o.max_seq = (1 << 20) + 1).unwrap(), "max_seq is 1048577; 2 to 1048576");
        assert_eq!(check(|o| o.eval_split = -0.1).unwrap(), "eval_split is -0.1; 0 to 0.9");
        assert_eq!(check(|o| o.eval_split = 1.5).unwrap(), "eval_split is 1.5; 0 to 0.9");
        assert_eq!(check(|o| o.eval_split = f64::NAN).unwrap(), "eval_split is NaN; 0 to 0.9");
    }

    #[test]
    fn the_evaluation_takes_its_part_and_never_all() {
        let cases = [
            (0, 0.5, 0),
            (1, 0.9, 0),
            (2, 0.01, 1),
            (2, 0.9, 1),
            (10, 0.0, 0),
            (10, 0.24, 2),
            (10, 0.25, 3),
            (10, 0.9, 9),
            (52_002, 0.05, 2600),
        ];
        for (n_rows, eval_split, expected) in cases {
            let options = DataOptions { eval_split, ..DataOptions::default() };
            assert_eq!(options.n_eval(n_rows), expected, "{n_rows} rows, {eval_split}");
        }
    }
}
