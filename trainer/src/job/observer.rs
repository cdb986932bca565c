//! Who watches a run, and what they are told.

use lichen_runtime::Error;

use crate::metrics::StepRow;

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

/// A line for a person that is no error. It names settings as errors do, and each edge spells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note(Error);

impl Note {
    pub fn new(text: impl Into<String>) -> Note {
        Note(Error::input(text))
    }

    /// The line, with settings by their plain names.
    pub fn text(&self) -> &str {
        self.0.message()
    }

    /// The line with every setting as `spell` calls it, such as [`as_flag`](lichen_runtime::setting::as_flag).
    pub fn spelled(&self, spell: &dyn Fn(&str) -> String) -> String {
        self.0.spelled(spell)
    }
}
