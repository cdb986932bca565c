//! What a board is given unless a flag says otherwise: `device-configs/*.toml`. A file holds what differs from the one it
//! inherits from, and only that.

use std::path::Path;

use lichen_kernels::ops::attention::KvFormat;
use toml::de::{DeTable, DeValue};
use toml::Spanned;

use crate::error::{Error, Result};
use crate::formats::json_file::{read_text_any, MAX_CONFIG_BYTES};
use crate::spelling;

/// A board's file, its family's, the base: more is a circle.
const FILES_MAX: usize = 8;
const KEYS: [&str; 7] =
    ["inherit", "memory_mib", "memory_budget_mib", "context_tokens", "prefill_chunk_tokens", "threads", "kv_cache"];
/// 1 TiB.
const MEMORY_MIB_MAX: usize = 1 << 20;
const CONTEXT_TOKENS_MAX: usize = 1 << 24;
const PREFILL_CHUNK_TOKENS_MAX: usize = 4096;
const THREADS_MAX: usize = 1024;

/// The values that some file of the chain names. What none names is the program's to choose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceConfig {
    /// What the board has in all, its GPU's memory included where they share it.
    pub memory_mib: Option<usize>,
    pub memory_budget_mib: Option<usize>,
    pub context_tokens: Option<usize>,
    pub prefill_chunk_tokens: Option<usize>,
    pub threads: Option<usize>,
    pub kv_cache: Option<KvCacheChoice>,
}

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvCacheChoice {
    /// By [`crate::memory_plan::auto_kv_format`].
    Auto,
    Format(KvFormat),
}

impl DeviceConfig {
    /// Reads a file and those it inherits from; the nearest one wins.
    ///
    /// # Errors
    /// The file or a parent cannot be read, is not TOML, names an unknown key or a value out of bounds, or the chain is
    /// a circle: `board.toml: config line 4: unknown key "thread" (did you mean "threads"?)`.
    pub fn read(path: &Path) -> Result<Self> {
        let mut config = DeviceConfig::default();
        let mut path = path.to_path_buf();
        for _ in 0..FILES_MAX {
            let text = read_text_any(&path, MAX_CONFIG_BYTES)?;
            let (own, parent) = parse(&text).map_err(|e| e.in_file(&path))?;
            config = config.or(own);
            match parent {
                Some(name) => path.set_file_name(name),
                None => return Ok(config),
            }
        }
        Err(Error::input(format!("inherits through more than {FILES_MAX} files (a circle?)")).in_file(&path))
    }

    pub fn memory_bytes(&self) -> Option<usize> {
        self.memory_mib.map(|mib| mib << 20)
    }

    pub fn memory_budget_bytes(&self) -> Option<usize> {
        self.memory_budget_mib.map(|mib| mib << 20)
    }

    /// These values, and `parent`'s where there is none.
    fn or(self, parent: DeviceConfig) -> DeviceConfig {
        DeviceConfig {
            memory_mib: self.memory_mib.or(parent.memory_mib),
            memory_budget_mib: self.memory_budget_mib.or(parent.memory_budget_mib),
            context_tokens: self.context_tokens.or(parent.context_tokens),
            prefill_chunk_tokens: self.prefill_chunk_tokens.or(parent.prefill_chunk_tokens),
            threads: self.threads.or(parent.threads),
            kv_cache: self.kv_cache.or(parent.kv_cache),
        }
    }
}

/// The values of one file, and the name of the file it inherits from.
fn parse(text: &str) -> Result<(DeviceConfig, Option<String>)> {
    let table = DeTable::parse(text).map_err(|e| {
        let message = e.message().trim_end().replace('\n', ", ");
        Error::input(format!("config line {}: {message}", line_at(text, e.span().map_or(0, |s| s.start))))
    })?;
    let mut config = DeviceConfig::default();
    let mut inherit = None;
    // The table is ordered by name; the first mistake of the file is the one to name.
    let mut entries: Vec<_> = table.get_ref().iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in entries {
        let entry = Entry { name: key.get_ref(), value: value.get_ref() };
        let read = entry.read_into(&mut config, &mut inherit);
        read.map_err(|message| Error::input(format!("config line {}: {message}", line_of(text, key))))?;
    }
    Ok((config, inherit))
}

/// A value, or what is wrong with it.
type Checked<T> = std::result::Result<T, String>;

/// `name = value`.
struct Entry<'a> {
    name: &'a str,
    value: &'a DeValue<'a>,
}

impl Entry<'_> {
    fn read_into(&self, config: &mut DeviceConfig, inherit: &mut Option<String>) -> Checked<()> {
        match self.name {
            "inherit" => *inherit = Some(self.file_name()?),
            "memory_mib" => config.memory_mib = Some(self.integer(MEMORY_MIB_MAX)?),
            "memory_budget_mib" => config.memory_budget_mib = Some(self.integer(MEMORY_MIB_MAX)?),
            "context_tokens" => config.context_tokens = Some(self.integer(CONTEXT_TOKENS_MAX)?),
            "prefill_chunk_tokens" => config.prefill_chunk_tokens = Some(self.integer(PREFILL_CHUNK_TOKENS_MAX)?),
            "threads" => config.threads = Some(self.integer(THREADS_MAX)?),
            "kv_cache" => config.kv_cache = Some(self.kv_cache()?),
            unknown => return Err(format!("unknown key \"{unknown}\"{}", spelling::hint(KEYS, unknown))),
        }
        Ok(())
    }

    /// 1 to `max`.
    fn integer(&self, max: usize) -> Checked<usize> {
        let wrong = || format!("{} is {}; 1 to {max}", self.name, show(self.value));
        let DeValue::Integer(digits) = self.value else { return Err(wrong()) };
        let value = usize::from_str_radix(digits.as_str(), digits.radix()).map_err(|_| wrong())?;
        (1..=max).contains(&value).then_some(value).ok_or_else(wrong)
    }

    fn kv_cache(&self) -> Checked<KvCacheChoice> {
        match self.value {
            DeValue::String(name) if name == "auto" => Ok(KvCacheChoice::Auto),
            DeValue::String(name) if name == "f32" => Ok(KvCacheChoice::Format(KvFormat::F32)),
            DeValue::String(name) if name == "f16" => Ok(KvCacheChoice::Format(KvFormat::F16)),
            DeValue::String(name) if name == "int8" => Ok(KvCacheChoice::Format(KvFormat::I8)),
            other => Err(format!("{} is {}; \"auto\", \"f32\", \"f16\" or \"int8\"", self.name, show(other))),
        }
    }

    /// A file beside this one: a config must not reach into other folders.
    fn file_name(&self) -> Checked<String> {
        let is_plain =
            |name: &str| !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        match self.value {
            DeValue::String(name) if name.ends_with(".toml") && is_plain(name) => Ok(name.to_string()),
            other => Err(format!("{} is {}; the name of a .toml file in the same folder", self.name, show(other))),
        }
    }
}

/// A value as a message shows it.
fn show(value: &DeValue) -> String {
    match value {
        DeValue::String(text) if text.chars().count() > 64 => "a long string".into(),
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(digits) => digits.to_string(),
        DeValue::Float(digits) => digits.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "an array".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn line_of<T>(text: &str, item: &Spanned<T>) -> usize {
    line_at(text, item.span().start)
}

/// Counted from 1.
fn line_at(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count()
}

#[cfg(test)]
mod tests;
