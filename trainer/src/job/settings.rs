//! What the settings of a [`Job`] are called, what each accepts and where it lies. Flags, job files, the check of a job and the
//! record in a checkpoint are made from their one table (`settings/table.rs`).

mod table;

use std::ops::Deref;

use lichen_runtime::setting::table::{Access, Entry};
use lichen_runtime::setting::Setting;

use super::definition::{Job, Method};

pub use table::{setting_of_name, JOB_SETTINGS};

/// One setting of a job: a line of the table, and what else is to be known of it.
#[derive(Clone, Copy)]
pub struct JobSetting {
    pub entry: Entry<Job>,
    /// `None` for both.
    pub method: Option<Method>,
    /// Whether the memory that a job takes depends on it.
    pub shapes_memory: bool,
    /// Whether a resumed run must have the same: the trained values depend on it.
    pub is_fixed: bool,
}

impl Deref for JobSetting {
    type Target = Entry<Job>;

    fn deref(&self) -> &Entry<Job> {
        &self.entry
    }
}

impl JobSetting {
    /// Whether a job of this method has it.
    pub fn is_of(&self, method: Method) -> bool {
        self.method.is_none_or(|own| own == method)
    }

    const fn new(setting: Setting, value_name: &'static str, doc: &'static str, access: Access<Job>) -> JobSetting {
        let entry = Entry::new(setting, value_name, doc, access);
        JobSetting { entry, method: None, shapes_memory: false, is_fixed: false }
    }

    const fn of(self, method: Method) -> JobSetting {
        JobSetting { method: Some(method), ..self }
    }

    const fn was(self, old_names: &'static [&'static str]) -> JobSetting {
        JobSetting { entry: self.entry.was(old_names), ..self }
    }

    const fn short(self, name: &'static str) -> JobSetting {
        JobSetting { entry: self.entry.short(name), ..self }
    }

    const fn memory(self) -> JobSetting {
        JobSetting { shapes_memory: true, ..self }
    }

    const fn fixed(self) -> JobSetting {
        JobSetting { is_fixed: true, ..self }
    }
}

#[cfg(test)]
mod tests;
