//! Training data: rows of text, conversations, or token ids with labels.
//!
//! A file holds one JSON object per line, one JSON array of objects (the original Alpaca file is one), or objects one behind
//! the other over several lines. A byte order mark, CRLF, blank lines and a missing last line end are accepted; anything else is
//! refused by the name of what it is. What an object holds decides what it is, the first of these that is there:
//!
//! | keys | ids | labels |
//! | --- | --- | --- |
//! | `input_ids`, perhaps `labels`, masks | as they are, less padding (`attention_mask`) | `labels` or all ids, where `completion_mask`, `assistant_masks`, `loss_mask` are 1 |
//! | `messages`, `conversations` (`role`, `content`, or ShareGPT's `from`, `value`) | the model's chat template | each answer and its end marker |
//! | `instruction`, `prompt`, `question` or `query`, and `output`, `completion`, `response` or `answer`, perhaps `input` or `context`, `history` | the same, as a question and its answer | each answer and its end marker; of a `prompt` that is a list of messages none |
//! | `text` | BOS, text, EOS, where the tokenizer has them | all |
//!
//! - Beside a conversation, `system` is its system text and `tools` are given to the chat template; `weight`, `train` and their
//!   like say of one message whether it is learned. Other keys that would change what is trained (`images`, `chosen`) are
//!   refused by name; keys that are not used are counted by name, and one of these keys twice in a row is refused.
//! - Labels stand at the id they belong to and are not shifted: the loss at position i - 1 predicts id i. Nothing
//!   predicts the first id, so it never has a label.
//! - The end marker is the control token that the template writes after the answer (`<end_of_turn>`), not the line end
//!   behind it. An answer without text has no labels: it would teach the model to say nothing. An id that holds characters of the
//!   answer and of what stands before it is labelled.
//! - [`LossOn::All`] labels the questions and the template's own text too, all but the first id. Rows that bring their labels
//!   keep them.
//! - Text in a row never becomes a control token, but that of `text` with `parse_special`; an id in `input_ids` may be one.
//!
//! A row longer than `max_seq`: running text is cut into pieces, each id of it learned once. Of a row of ids the first are
//! kept. Of a conversation the end is kept: first what stands behind its last answer is left out, then its oldest exchanges
//! (system text and tools stay), then the beginning of its last question. One whose last answer alone has no room is left out.
//! With [`Truncation::Drop`], all but running text is left out. A row without a label, from the start or after the cut, is
//! counted and left out.
//!
//! Opening reads the files once, through a buffer of 64 KiB and a row of at most 4 MiB, checks and encodes every row, and
//! keeps 32 bytes of each sample. A row is read and encoded again when its turn comes. Which row that is, is a function of
//! (seed, epoch, i, number of rows): there is no state to save.

mod counts;
mod dataset;
mod encode;
mod paths;
mod permutation;
mod regression_prompt;
mod row;
mod row_reader;
mod scan;

pub use counts::Counts;
pub use dataset::{DataFile, Dataset, SampleSize};
pub use encode::TextEncoder;
pub use paths::find_files;
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

/// What happens to a row of more than `max_seq` ids. Running text is cut into pieces either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// Of a conversation the end is kept, of a row of ids the beginning.
    Cut,
    /// It is left out.
    Drop,
}

/// What of a conversation is learned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossOn {
    /// Answers and their end markers.
    #[default]
    Answers,
    /// Everything but the first id: questions, and the template's own text.
    All,
}

/// How a file is read, and in which order.
#[derive(Clone, Debug)]
pub struct DataOptions {
    /// Most ids of a sample.
    pub max_seq: usize,
    pub truncation: Truncation,
    /// Refuses the file at its first bad row. Otherwise up to 100 are skipped.
    pub strict: bool,
    /// What of a conversation has labels.
    pub loss_on: LossOn,
    /// Control tokens that are written in a row of `text` are tokens.
    pub parse_special: bool,
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
            loss_on: LossOn::Answers,
            parse_special: false,
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
