//! Who watches a run, and what they are told.

use crate::metrics::StepRow;
use crate::note::Note;

/// Who watches a run.
pub trait Observer {
    /// Before the first step: `n_steps` in all, `step` of them done.
    fn started(&mut self, step: u64, n_steps: u64);
    /// After each step.
    fn stepped(&mut self, row: &StepRow);
    /// Something worth a line.
    fn note(&mut self, note: &Note);
    /// True when the run is to end after this step.
    fn wants_to_stop(&self) -> bool;
}
