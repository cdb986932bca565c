//! What a board is given unless a flag says otherwise: `device-configs/*.toml`. A file holds what differs from the one it
//! inherits from, and only that, in the sections and keys of [`KEYS`].

mod table;

use std::path::Path;

use lichen_kernels::ops::attention::KvFormat;
use toml::de::{DeTable, DeValue};

use table::{show, Value};
pub use table::{Key, Kind, Section, KEYS};

use crate::error::{Error, Result};
use crate::files::formats::json_file::{read_text_any, MAX_CONFIG_BYTES};
use crate::suggest;

/// A board's file, its family's, the base: more is a circle.
const FILES_MAX: usize = 8;
/// The key beside the sections.
const INHERIT: &str = "inherit";

/// The values that some file of the chain names. What none names is the program's to choose.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceConfig {
    /// What the board has in all, its GPU's memory included where they share it.
    pub memory_mib: Option<usize>,
    pub memory_budget_mib: Option<usize>,
    pub context_tokens: Option<usize>,
    pub prefill_chunk_tokens: Option<usize>,
    pub threads: Option<usize>,
    pub kv_cache: Option<KvCacheChoice>,
    /// Training saves and pauses above this temperature of the board, in C.
    pub max_board_temp_c: Option<f32>,
    /// Training rests between steps so that the board draws this on average.
    pub power_budget_mw: Option<u32>,
    /// Of the programs that run on the board: `aarch64-unknown-linux-gnu`.
    pub build_triple: Option<String>,
    /// Newest version of glibc that they may need: `2.27`.
    pub build_glibc: Option<String>,
    /// Cargo features, in place of the default ones.
    pub build_features: Option<Vec<String>>,
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvCacheChoice {
    /// By [`crate::memory_plan::auto_kv_format`].
    Auto,
    Format(KvFormat),
}

impl KvCacheChoice {
    /// `auto`, `f32`, `f16` or `int8`.
    ///
    /// # Errors
    /// What is allowed.
    pub fn parse(text: &str) -> std::result::Result<KvCacheChoice, String> {
        match text {
            "auto" => Ok(KvCacheChoice::Auto),
            "f32" => Ok(KvCacheChoice::Format(KvFormat::F32)),
            "f16" => Ok(KvCacheChoice::Format(KvFormat::F16)),
            "int8" => Ok(KvCacheChoice::Format(KvFormat::I8)),
            _ => Err("auto, f32, f16 or int8".to_string()),
        }
    }

    /// As [`KvCacheChoice::parse`] takes it.
    pub fn name(self) -> &'static str {
        match self {
            KvCacheChoice::Auto => "auto",
            KvCacheChoice::Format(KvFormat::F32) => "f32",
            KvCacheChoice::Format(KvFormat::F16) => "f16",
            KvCacheChoice::Format(KvFormat::I8) => "int8",
        }
    }
}

impl DeviceConfig {
    /// Reads a file and those it inherits from; the nearest one wins. A key that stands where it did before there were
    /// sections is read, and a warning on the log says which section is its own.
    ///
    /// # Errors
    /// The file or a parent cannot be read, is not TOML, names an unknown key or a value out of bounds, or the chain is
    /// a circle: `board.toml: config line 4: unknown key "thread" (did you mean "threads"?)`.
    pub fn read(path: &Path) -> Result<Self> {
        let mut files = Vec::new();
        let mut path = path.to_path_buf();
        loop {
            if files.len() == FILES_MAX {
                let what = format!("inherits through more than {FILES_MAX} files (a circle?)");
                return Err(Error::input(what).in_file(&path));
            }
            let file = parse(&read_text_any(&path, MAX_CONFIG_BYTES)?).map_err(|e| e.in_file(&path))?;
            for note in &file.notes {
                log::warn!("{}: {note}", path.display());
            }
            let parent = file.parent.clone();
            files.push(file);
            match parent {
                Some(name) => path.set_file_name(name),
                None => break,
            }
        }
        let mut config = DeviceConfig::default();
        files.into_iter().rev().for_each(|file| file.put(&mut config));
        Ok(config)
    }

    pub fn memory_bytes(&self) -> Option<usize> {
        self.memory_mib.map(|mib| mib << 20)
    }

    pub fn memory_budget_bytes(&self) -> Option<usize> {
        self.memory_budget_mib.map(|mib| mib << 20)
    }
}

/// What one file says.
#[derive(Default)]
struct File {
    values: Vec<(&'static Key, Value)>,
    /// The file it inherits from.
    parent: Option<String>,
    /// Where its keys should stand.
    notes: Vec<String>,
}

impl File {
    fn put(self, config: &mut DeviceConfig) {
        for (key, value) in self.values {
            key.put(config, value);
        }
    }

    fn take(&mut self, key: &'static Key, value: &DeValue) -> Checked<()> {
        if self.values.iter().any(|(other, _)| other.name == key.name) {
            return Err(format!("{} stands twice", key.name));
        }
        self.values.push((key, key.read(value)?));
        Ok(())
    }
}

/// A value, or what is wrong with it.
type Checked<T> = std::result::Result<T, String>;

fn parse(text: &str) -> Result<File> {
    let at_line = |at: usize, message: String| Error::input(format!("config line {}: {message}", line_at(text, at)));
    let table = DeTable::parse(text)
        .map_err(|e| at_line(e.span().map_or(0, |s| s.start), e.message().trim_end().replace('\n', ", ")))?;
    let mut file = File::default();
    for (at, name, value) in in_order(table.get_ref()) {
        let section = Section::ALL.into_iter().find(|section| section.name() == name);
        match (section, value) {
            (Some(section), DeValue::Table(inner)) => {
                for (at, name, value) in in_order(inner) {
                    let read = key_of(section, name).and_then(|key| file.take(key, value));
                    read.map_err(|message| at_line(at, message))?;
                }
            }
            (Some(_), other) => {
                return Err(at_line(at, format!("{name} is {}; the section [{name}] is needed", show(other))));
            }
            (None, value) => {
                let line = line_at(text, at);
                top_level(&mut file, name, value, line).map_err(|message| at_line(at, message))?;
            }
        }
    }
    Ok(file)
}

/// The entries of a table as the file has them: position, name and value. The table itself is ordered by name, and the
/// first mistake of the file is the one to name.
fn in_order<'a>(table: &'a DeTable<'_>) -> Vec<(usize, &'a str, &'a DeValue<'a>)> {
    let mut entries: Vec<_> =
        table.iter().map(|(key, value)| (key.span().start, key.get_ref().as_ref(), value.get_ref())).collect();
    entries.sort_by_key(|(at, ..)| *at);
    entries
}

/// A key outside of all sections: [`INHERIT`], or one that stood there before there were sections.
fn top_level(file: &mut File, name: &str, value: &DeValue, line: usize) -> Checked<()> {
    if name == INHERIT {
        file.parent = Some(file_name(value)?);
        return Ok(());
    }
    let key = key_outside(name)?;
    file.take(key, value)?;
    file.notes.push(format!("line {line}: {name} is a key of the section [{}] now", key.section.name()));
    Ok(())
}

fn key_of(section: Section, name: &str) -> Checked<&'static Key> {
    if let Some(key) = KEYS.iter().find(|key| key.name == name) {
        return match key.section == section {
            true => Ok(key),
            false => Err(format!("{name} is a key of [{}], not of [{}]", key.section.name(), section.name())),
        };
    }
    let names = KEYS.iter().filter(|key| key.section == section).map(|key| key.name);
    Err(format!("unknown key \"{name}\"{}", suggest::hint(names, name)))
}

fn key_outside(name: &str) -> Checked<&'static Key> {
    let stood_there = |key: &&Key| matches!(key.section, Section::Device | Section::Run);
    match KEYS.iter().find(|key| key.name == name) {
        Some(key) if stood_there(&key) => Ok(key),
        Some(key) => Err(format!("{name} is a key of the section [{}]", key.section.name())),
        None => {
            let keys = KEYS.iter().filter(stood_there).map(|key| key.name);
            let sections = Section::ALL.into_iter().map(Section::name);
            Err(format!("unknown key \"{name}\"{}", suggest::hint(keys.chain(sections).chain([INHERIT]), name)))
        }
    }
}

/// A file beside this one: a config must not reach into other folders.
fn file_name(value: &DeValue) -> Checked<String> {
    let is_plain =
        |name: &str| !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    match value {
        DeValue::String(name) if name.ends_with(".toml") && is_plain(name) => Ok(name.to_string()),
        other => Err(format!("{INHERIT} is {}; the name of a .toml file in the same folder", show(other))),
    }
}

/// Counted from 1.
fn line_at(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod tests;
