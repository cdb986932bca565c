//! JSON files of a model or adapter folder: size-capped, and the two files people have instead of them recognised.

use std::io::Read;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::files::mapped_file::open_regular;

const MIB: u64 = 1 << 20;
/// config.json, generation_config.json, adapter_config.json: a few kilobytes in the wild.
pub const MAX_CONFIG_BYTES: u64 = MIB;
/// tokenizer_config.json lists every added token (1.2 MB for Gemma); an index lists every tensor (0.1 MB for 72B).
pub const MAX_LIST_BYTES: u64 = 4 * MIB;

/// Reads the text of a whole JSON file of at most `max_bytes`.
///
/// # Errors
/// Not a regular file, too large, a Git LFS pointer, an HTML page, not UTF-8. The file's name is in front.
pub fn read_text(path: &Path, max_bytes: u64) -> Result<String> {
    let text = read_text_any(path, max_bytes)?;
    if text.trim_ascii_start().starts_with('<') {
        return Err(Error::input("is an HTML or XML page, not JSON (a failed download?)").in_file(path));
    }
    Ok(text)
}

/// The same for a text file that may well begin with `<`.
pub fn read_text_any(path: &Path, max_bytes: u64) -> Result<String> {
    let (file, len) = open_regular(path)?;
    let too_large =
        |len: u64| Error::input(format!("is {} MB; at most {} MB", len.div_ceil(MIB), max_bytes / MIB)).in_file(path);
    if len > max_bytes {
        return Err(too_large(len));
    }
    let mut bytes = Vec::with_capacity(len as usize);
    // The file may have grown since its length was read.
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, &e))?;
    if bytes.len() as u64 > max_bytes {
        return Err(too_large(bytes.len() as u64));
    }
    super::refuse_git_lfs_pointer(&bytes).map_err(|e| e.in_file(path))?;
    if without_bom(&bytes).len() < bytes.len() {
        bytes.drain(..BOM.len());
    }
    String::from_utf8(bytes)
        .map_err(|e| Error::input(format!("is not UTF-8 from byte {}", e.utf8_error().valid_up_to())).in_file(path))
}

/// The byte order mark that editors on Windows put in front of UTF-8.
const BOM: &[u8] = "\u{feff}".as_bytes();

/// The bytes behind a byte order mark; all of them where there is none.
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}

/// Reads and parses a JSON file of at most `max_bytes` into `T`. # Errors: as [`read_text`], and what JSON is wrong.
pub fn read_json<T: DeserializeOwned>(path: &Path, max_bytes: u64) -> Result<T> {
    parse(&read_text(path, max_bytes)?).map_err(|e| e.in_file(path))
}

/// Parses JSON text. # Errors: `is not JSON: line 1 column 9: ..`, or where it is not what `T` is; no file name in
/// front.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|e| match e.is_data() {
        true => Error::input(describe(&e)),
        false => Error::input(format!("is not JSON: {}", describe(&e))),
    })
}

/// `line 1 column 9: expected value`: the position in front.
pub fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let what = text.strip_suffix(&position).unwrap_or(&text);
    match error.line() {
        0 => what.to_string(),
        _ => format!("line {} column {}: {what}", error.line(), error.column()),
    }
}

/// The fields of a JSON object, read by name; messages name the field, the value found and what is allowed.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// # Errors: `value` is not an object; `what` is its name.
    pub fn of(value: &'a Value, what: &str) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Fields { map }),
            other => Err(Error::input(format!("{what} is {}; an object is needed", show(other)))),
        }
    }

    /// `None` when the field is absent or null.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|v| !v.is_null())
    }

    /// Names in the file's order.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    /// An object inside this one.
    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>> {
        self.get(name).map(|v| Fields::of(v, name)).transpose()
    }

    pub fn integer(&self, name: &str, min: u64, max: u64) -> Result<Option<u64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64() {
            Some(n) if (min..=max).contains(&n) => Ok(Some(n)),
            _ => Err(Error::input(format!("{name} is {}; {min} to {max} expected", show(value)))),
        }
    }

    /// A number above 0 and at most `max`.
    pub fn positive(&self, name: &str, max: f64) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_f64() {
            Some(v) if v > 0.0 && v <= max => Ok(Some(v)),
            _ => Err(Error::input(format!("{name} is {}; a number above 0 and at most {max} expected", show(value)))),
        }
    }

    pub fn boolean(&self, name: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_bool() {
            Some(v) => Ok(Some(v)),
            None => Err(Error::input(format!("{name} is {}; true or false expected", show(value)))),
        }
    }

    pub fn string(&self, name: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_str() {
            Some(v) => Ok(Some(v)),
            None => Err(Error::input(format!("{name} is {}; a string expected", show(value)))),
        }
    }
}

/// A value as a message shows it: short, whatever it is.
pub fn show(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".into(),
        Value::Object(_) => "an object".into(),
        Value::String(text) if text.chars().count() > 64 => "a long string".into(),
        other => other.to_string(),
    }
}
