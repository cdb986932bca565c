//! What the settings of a [`Job`] are called, what each accepts and where it lies. Flags, job files, the check of a job and the
//! record in a checkpoint are made from their one table (`settings/table.rs`).

mod table;

use std::path::PathBuf;

use lichen_runtime::setting::Setting;

use super::definition::{Job, Method};

pub use table::{setting_of_name, JOB_SETTINGS};

/// One setting of a job.
#[derive(Clone, Copy)]
pub struct JobSetting {
    pub setting: Setting,
    /// What it was called in an earlier version: still read.
    pub old_names: &'static [&'static str],
    /// A shorter name, for people who type.
    pub short_name: Option<&'static str>,
    /// What its value is, for help; empty for a switch.
    pub value_name: &'static str,
    pub doc: &'static str,
    /// `None` for both.
    pub method: Option<Method>,
    /// Whether the memory that a job takes depends on it.
    pub shapes_memory: bool,
    /// Whether a resumed run must have the same: the trained values depend on it.
    pub is_fixed: bool,
    access: Access,
}

#[derive(Clone, Copy)]
enum Access {
    Switch(fn(&mut Job) -> &mut bool),
    Path(fn(&mut Job) -> &mut Option<PathBuf>),
    /// Several of them: each one that is set comes to those that are there.
    Paths(fn(&mut Job) -> &mut Vec<PathBuf>),
    /// Takes a text, or says what is allowed; and the text of what is there, `None` where nothing was given.
    Text(fn(&mut Job, &str) -> Result<(), String>, fn(&Job) -> Option<String>),
}

impl JobSetting {
    /// All names, the present one first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        [self.setting.name()].into_iter().chain(self.short_name).chain(self.old_names.iter().copied())
    }

    pub fn is_switch(&self) -> bool {
        matches!(self.access, Access::Switch(_))
    }

    pub fn is_path(&self) -> bool {
        matches!(self.access, Access::Path(_) | Access::Paths(_))
    }

    /// Whether it can be given several times.
    pub fn is_list(&self) -> bool {
        matches!(self.access, Access::Paths(_))
    }

    /// Takes away what a list has, before it is given anew.
    pub fn clear(&self, job: &mut Job) {
        if let Access::Paths(field) = self.access {
            field(job).clear();
        }
    }

    /// Whether a job of this method has it.
    pub fn is_of(&self, method: Method) -> bool {
        self.method.is_none_or(|own| own == method)
    }

    /// Puts a value into a job.
    ///
    /// # Errors
    /// What is allowed.
    pub fn set(&self, job: &mut Job, value: &str) -> Result<(), String> {
        match self.access {
            Access::Switch(field) => match value {
                "true" | "false" => *field(job) = value == "true",
                _ => return Err("true or false".to_string()),
            },
            Access::Path(_) | Access::Paths(_) => self.set_path(job, PathBuf::from(value))?,
            Access::Text(set, _) => set(job, value)?,
        }
        Ok(())
    }

    /// Puts a path into a job, whose bytes need not be text. Panics where the setting is no path.
    ///
    /// # Errors
    /// What is allowed.
    pub fn set_path(&self, job: &mut Job, path: PathBuf) -> Result<(), String> {
        if path.as_os_str().is_empty() {
            return Err("a path".to_string());
        }
        match self.access {
            Access::Path(field) => *field(job) = Some(path),
            Access::Paths(field) => field(job).push(path),
            Access::Switch(_) | Access::Text(..) => panic!("{} is no path", self.setting.name()),
        }
        Ok(())
    }

    /// What a job has, as [`JobSetting::set`] takes it; `None` where nothing was given.
    pub fn get(&self, job: &Job) -> Option<String> {
        match self.access {
            Access::Switch(field) => Some(field(&mut job.clone()).to_string()),
            Access::Path(field) => field(&mut job.clone()).as_ref().map(|path| path.display().to_string()),
            Access::Paths(field) => {
                let paths: Vec<String> =
                    field(&mut job.clone()).iter().map(|path| path.display().to_string()).collect();
                (!paths.is_empty()).then(|| paths.join(", "))
            }
            Access::Text(_, get) => get(job),
        }
    }

    const fn new(setting: Setting, value_name: &'static str, doc: &'static str, access: Access) -> JobSetting {
        JobSetting {
            setting,
            old_names: &[],
            short_name: None,
            value_name,
            doc,
            method: None,
            shapes_memory: false,
            is_fixed: false,
            access,
        }
    }

    const fn of(self, method: Method) -> JobSetting {
        JobSetting { method: Some(method), ..self }
    }

    const fn was(self, old_names: &'static [&'static str]) -> JobSetting {
        JobSetting { old_names, ..self }
    }

    const fn short(self, name: &'static str) -> JobSetting {
        JobSetting { short_name: Some(name), ..self }
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
