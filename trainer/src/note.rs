//! Lines for a person.

use lichen_runtime::Error;

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
