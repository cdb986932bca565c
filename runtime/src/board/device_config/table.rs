//! The keys of a board's file, a line each, and how their values are read.

use toml::de::DeValue;

use super::{DeviceConfig, KvCacheChoice};
use crate::limits::{COUNT_MAX, PREFILL_CHUNK_MAX, THREADS_MAX};

/// A section of a board's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// What the board is.
    Device,
    /// How a model runs on it.
    Run,
    /// How a model is trained on it.
    Train,
    /// How programs are built for it: `cross/build-aarch64.sh` reads these.
    Build,
}

impl Section {
    pub const ALL: [Section; 4] = [Section::Device, Section::Run, Section::Train, Section::Build];

    /// As the file writes it, without brackets.
    pub fn name(self) -> &'static str {
        match self {
            Section::Device => "device",
            Section::Run => "run",
            Section::Train => "train",
            Section::Build => "build",
        }
    }
}

/// What a key's value may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number between two others, both included.
    Integer(usize, usize),
    /// A number between two others, both included. NaN lies nowhere.
    Number(f32, f32),
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// A text that the function accepts; what that is, in words.
    Text(&'static str, fn(&str) -> bool),
    /// A list of such texts.
    Texts(&'static str, fn(&str) -> bool),
}

impl Kind {
    /// `1 to 1024`, `"auto", "f32", "f16" or "int8"`.
    pub fn expected(self) -> String {
        match self {
            Kind::Integer(min, max) => format!("{min} to {max}"),
            Kind::Number(min, max) => format!("{min} to {max}"),
            Kind::Choice(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                let (last, others) = quoted.split_last().expect("at least one");
                format!("{} or {last}", others.join(", "))
            }
            Kind::Text(what, _) | Kind::Texts(what, _) => what.to_string(),
        }
    }

    /// The value, if it is of this kind.
    fn read(self, value: &DeValue) -> Option<Value> {
        match (self, value) {
            (Kind::Integer(min, max), DeValue::Integer(digits)) => {
                let n = usize::from_str_radix(digits.as_str(), digits.radix()).ok()?;
                (min..=max).contains(&n).then_some(Value::Integer(n))
            }
            (Kind::Number(min, max), DeValue::Integer(_) | DeValue::Float(_)) => {
                let n = match value {
                    DeValue::Integer(digits) => i64::from_str_radix(digits.as_str(), digits.radix()).ok()? as f32,
                    DeValue::Float(digits) => digits.as_str().parse().ok()?,
                    _ => return None,
                };
                (min..=max).contains(&n).then_some(Value::Number(n))
            }
            (Kind::Choice(words), DeValue::String(text)) => {
                words.iter().find(|word| *word == text).map(|word| Value::Text(word.to_string()))
            }
            (Kind::Text(_, accepts), DeValue::String(text)) => accepts(text).then(|| Value::Text(text.to_string())),
            (Kind::Texts(_, accepts), DeValue::Array(items)) => {
                let text = |item: &DeValue| match item {
                    DeValue::String(text) if accepts(text) => Some(text.to_string()),
                    _ => None,
                };
                items.iter().map(|item| text(item.get_ref())).collect::<Option<_>>().map(Value::Texts)
            }
            _ => None,
        }
    }
}

/// A value that was checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Integer(usize),
    Number(f32),
    Text(String),
    Texts(Vec<String>),
}

/// One key of a board's file.
pub struct Key {
    pub section: Section,
    pub name: &'static str,
    pub kind: Kind,
    /// Of the value, as the name carries it; empty for a count or a text.
    pub unit: &'static str,
    /// What holds where no file of the chain has the key.
    pub absent: &'static str,
    put: fn(&mut DeviceConfig, Value),
}

/// Every key there is.
#[rustfmt::skip]
pub const KEYS: [Key; 11] = [
    Key { section: Section::Device, name: "memory_mib", kind: Kind::Integer(1, 1 << 20), unit: "MiB", absent: "plans do not say what is left of the board", put: |c, v| c.memory_mib = v.integer() },
    Key { section: Section::Run, name: "memory_budget_mib", kind: Kind::Integer(1, 1 << 20), unit: "MiB", absent: "what the system has left", put: |c, v| c.memory_budget_mib = v.integer() },
    Key { section: Section::Run, name: "context_tokens", kind: Kind::Integer(1, COUNT_MAX), unit: "tokens", absent: "2048, or what the model has", put: |c, v| c.context_tokens = v.integer() },
    Key { section: Section::Run, name: "prefill_chunk_tokens", kind: Kind::Integer(1, PREFILL_CHUNK_MAX), unit: "tokens", absent: "128", put: |c, v| c.prefill_chunk_tokens = v.integer() },
    Key { section: Section::Run, name: "threads", kind: Kind::Integer(1, THREADS_MAX), unit: "", absent: "all cores this process may use", put: |c, v| c.threads = v.integer() },
    Key { section: Section::Run, name: "kv_cache", kind: Kind::Choice(&["auto", "f32", "f16", "int8"]), unit: "", absent: "\"auto\"", put: |c, v| c.kv_cache = v.kv_cache() },
    Key { section: Section::Train, name: "max_board_temp_c", kind: Kind::Number(40.0, 110.0), unit: "C", absent: "95, where the board has a sensor", put: |c, v| c.max_board_temp_c = v.number() },
    Key { section: Section::Train, name: "power_budget_mw", kind: Kind::Integer(100, 1_000_000), unit: "mW", absent: "training draws what it can", put: |c, v| c.power_budget_mw = v.integer().map(|mw| mw as u32) },
    Key { section: Section::Build, name: "triple", kind: Kind::Text("a target triple such as \"aarch64-unknown-linux-gnu\"", is_triple), unit: "", absent: "the board cannot be built for", put: |c, v| c.build_triple = v.text() },
    Key { section: Section::Build, name: "glibc", kind: Kind::Text("a version such as \"2.27\"", is_version), unit: "", absent: "the board cannot be built for", put: |c, v| c.build_glibc = v.text() },
    Key { section: Section::Build, name: "features", kind: Kind::Texts("a list of cargo features such as \"lichen-runtime/cli\"", is_feature), unit: "", absent: "the board cannot be built for", put: |c, v| c.build_features = v.texts() },
];

impl Key {
    /// Reads a value of this key; what is wrong with it: `threads is 0; 1 to 1024`.
    pub(super) fn read(&self, value: &DeValue) -> Result<Value, String> {
        let wrong = || format!("{} is {}; {}", self.name, show(value), self.kind.expected());
        self.kind.read(value).ok_or_else(wrong)
    }

    pub(super) fn put(&self, config: &mut DeviceConfig, value: Value) {
        (self.put)(config, value);
    }
}

/// Each gives the value if it is of that type, which [`Key::read`] made sure of.
impl Value {
    fn integer(self) -> Option<usize> {
        match self {
            Value::Integer(n) => Some(n),
            _ => None,
        }
    }

    fn number(self) -> Option<f32> {
        match self {
            Value::Number(n) => Some(n),
            _ => None,
        }
    }

    fn text(self) -> Option<String> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn texts(self) -> Option<Vec<String>> {
        match self {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    fn kv_cache(self) -> Option<KvCacheChoice> {
        KvCacheChoice::parse(&self.text()?).ok()
    }
}

fn is_triple(text: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
    (3..=4).contains(&text.split('-').count()) && text.split('-').all(is_part)
}

fn is_version(text: &str) -> bool {
    let is_number = |part: &str| (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    text.split('.').count() == 2 && text.split('.').all(is_number)
}

/// `cli`, `lichen-runtime/cli`.
fn is_feature(text: &str) -> bool {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
    };
    text.split('/').count() <= 2 && text.split('/').all(is_name)
}

/// A value as a message shows it.
pub(super) fn show(value: &DeValue) -> String {
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
