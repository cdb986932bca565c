//! How a run ended, and what came of it.

use super::evaluation::{Scores, Verdict};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// All steps are done.
    Finished(Verdict),
    /// It was asked to stop, and is saved.
    Stopped,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub ending: Ending,
    pub step: u64,
    pub n_steps: u64,
    /// The step that was resumed from.
    pub resumed: Option<u64>,
    pub before: Scores,
    pub after: Option<Scores>,
    pub loss: Option<f64>,
    pub skipped: u64,
    /// The folder of the checkpoint, in the run folder.
    pub checkpoint: String,
    pub seconds: f64,
}
