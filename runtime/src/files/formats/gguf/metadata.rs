//! The key/value part of a GGUF file. Values are decoded when asked for; an entry costs 32 bytes of memory.

use super::cursor::Cursor;
use super::BytesOwner;
use crate::error::{Error, Result};

/// The type of a metadata value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// By the number in the file.
    const BY_ID: [ValueType; 13] = [
        ValueType::U8,
        ValueType::I8,
        ValueType::U16,
        ValueType::I16,
        ValueType::U32,
        ValueType::I32,
        ValueType::F32,
        ValueType::Bool,
        ValueType::String,
        ValueType::Array,
        ValueType::U64,
        ValueType::I64,
        ValueType::F64,
    ];

    fn from_id(id: u32) -> Option<Self> {
        Self::BY_ID.get(id as usize).copied()
    }

    /// The number in the file.
    pub fn id(self) -> u32 {
        Self::BY_ID.iter().position(|t| *t == self).expect("every type is listed") as u32
    }

    /// Bytes of one value; `None` for strings and arrays.
    fn fixed_bytes(self) -> Option<u64> {
        match self {
            ValueType::U8 | ValueType::I8 | ValueType::Bool => Some(1),
            ValueType::U16 | ValueType::I16 => Some(2),
            ValueType::U32 | ValueType::I32 | ValueType::F32 => Some(4),
            ValueType::U64 | ValueType::I64 | ValueType::F64 => Some(8),
            ValueType::String | ValueType::Array => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            ValueType::U8 => "u8",
            ValueType::I8 => "i8",
            ValueType::U16 => "u16",
            ValueType::I16 => "i16",
            ValueType::U32 => "u32",
            ValueType::I32 => "i32",
            ValueType::F32 => "f32",
            ValueType::Bool => "bool",
            ValueType::String => "string",
            ValueType::Array => "array",
            ValueType::U64 => "u64",
            ValueType::I64 => "i64",
            ValueType::F64 => "f64",
        }
    }
}

/// One metadata value, borrowed from the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    /// Not checked to be UTF-8.
    String(&'a [u8]),
    Array(Array<'a>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value<'_> {
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::U8(_) => ValueType::U8,
            Value::I8(_) => ValueType::I8,
            Value::U16(_) => ValueType::U16,
            Value::I16(_) => ValueType::I16,
            Value::U32(_) => ValueType::U32,
            Value::I32(_) => ValueType::I32,
            Value::F32(_) => ValueType::F32,
            Value::Bool(_) => ValueType::Bool,
            Value::String(_) => ValueType::String,
            Value::Array(_) => ValueType::Array,
            Value::U64(_) => ValueType::U64,
            Value::I64(_) => ValueType::I64,
            Value::F64(_) => ValueType::F64,
        }
    }

    /// Any of the integer types.
    pub fn as_integer(&self) -> Option<i128> {
        match *self {
            Value::U8(n) => Some(n.into()),
            Value::I8(n) => Some(n.into()),
            Value::U16(n) => Some(n.into()),
            Value::I16(n) => Some(n.into()),
            Value::U32(n) => Some(n.into()),
            Value::I32(n) => Some(n.into()),
            Value::U64(n) => Some(n.into()),
            Value::I64(n) => Some(n.into()),
            Value::F32(_) | Value::F64(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => None,
        }
    }
}

/// An array of numbers, bools or strings; every item is known to lie inside the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Array<'a> {
    pub item: ValueType,
    pub len: usize,
    /// From the first item on; longer than the array.
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The items, in order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.bytes, 0);
        let item = self.item;
        (0..self.len).map(move |_| decode(item, &mut cursor).expect("checked when the table was read"))
    }
}

/// Where one entry lies in the file; 32 bytes, less than three times the shortest entry.
struct Entry {
    key_start: usize,
    key_len: usize,
    value_type: ValueType,
    value_start: usize,
}

/// All entries, unique by key.
pub struct Metadata {
    owner: BytesOwner,
    entries: Vec<Entry>,
    /// Indices into `entries`, by key.
    by_key: Vec<u32>,
}

impl Metadata {
    pub(super) fn read(owner: BytesOwner, cursor: &mut Cursor, n: usize) -> Result<Metadata> {
        let mut entries = Vec::with_capacity(n);
        for index in 0..n {
            entries.push(read_entry(cursor, index)?);
        }
        let mut by_key: Vec<u32> = (0..n as u32).collect();
        let bytes: &[u8] = (*owner).as_ref();
        let key = |i: u32| {
            let entry = &entries[i as usize];
            &bytes[entry.key_start..entry.key_start + entry.key_len]
        };
        by_key.sort_unstable_by(|a, b| key(*a).cmp(key(*b)));
        if let Some(pair) = by_key.windows(2).find(|pair| key(pair[0]) == key(pair[1])) {
            return Err(Error::input(format!(
                "metadata key \"{}\" appears twice",
                String::from_utf8_lossy(key(pair[0]))
            )));
        }
        Ok(Metadata { entries, by_key, owner })
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keys and values in the file's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.entries.iter().map(|entry| {
            let key = std::str::from_utf8(self.key_bytes(entry)).expect("checked when the table was read");
            (key, self.value(entry))
        })
    }

    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        let found =
            self.by_key.binary_search_by(|i| self.key_bytes(&self.entries[*i as usize]).cmp(key.as_bytes())).ok()?;
        Some(self.value(&self.entries[self.by_key[found] as usize]))
    }

    /// A string. # Errors: another type, or not UTF-8.
    pub fn string(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(bytes)) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err(Error::input(format!("\"{key}\" is not UTF-8"))),
            },
            Some(other) => Err(wrong_type(key, other, "a string")),
        }
    }

    /// An integer of any width. # Errors: another type, or outside `min..=max`.
    pub fn integer(&self, key: &str, min: u64, max: u64) -> Result<Option<u64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let Some(n) = value.as_integer() else { return Err(wrong_type(key, value, "an integer")) };
        if n < min as i128 || n > max as i128 {
            return Err(Error::input(format!("\"{key}\" is {n}; {min} to {max} expected")));
        }
        Ok(Some(n as u64))
    }

    /// A floating-point number. # Errors: another type.
    pub fn float(&self, key: &str) -> Result<Option<f32>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::F32(v)) => Ok(Some(v)),
            Some(Value::F64(v)) => Ok(Some(v as f32)),
            Some(other) => Err(wrong_type(key, other, "a floating-point number")),
        }
    }

    /// A bool. # Errors: another type.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(v)) => Ok(Some(v)),
            Some(other) => Err(wrong_type(key, other, "a bool")),
        }
    }

    /// An array with items of type `item`. # Errors: not an array, or other items.
    pub fn array(&self, key: &str, item: ValueType) -> Result<Option<Array<'_>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.item == item => Ok(Some(array)),
            Some(Value::Array(array)) => {
                Err(Error::input(format!("{key} holds {}; {} is needed", array.item.name(), item.name())))
            }
            Some(other) => Err(wrong_type(key, other, "an array")),
        }
    }

    fn key_bytes(&self, entry: &Entry) -> &[u8] {
        &(*self.owner).as_ref()[entry.key_start..entry.key_start + entry.key_len]
    }

    fn value(&self, entry: &Entry) -> Value<'_> {
        let mut cursor = Cursor::new((*self.owner).as_ref(), entry.value_start);
        decode(entry.value_type, &mut cursor).expect("checked when the table was read")
    }
}

fn wrong_type(key: &str, found: Value, needed: &str) -> Error {
    let article = match found.value_type() {
        ValueType::U8 => "a u8".to_string(),
        other if other.name().starts_with(['a', 'i']) => format!("an {}", other.name()),
        other => format!("a {}", other.name()),
    };
    Error::input(format!("\"{key}\" is {article}; {needed} is needed"))
}

/// Reads and checks one entry; the index counts from 0.
fn read_entry(cursor: &mut Cursor, index: usize) -> Result<Entry> {
    let Some(key_len) = cursor.u64() else {
        return Err(Error::input(format!("metadata entry {index}: the file ends before its key")));
    };
    let key_start = cursor.at();
    let Some(key) = cursor.take(key_len) else {
        return Err(Error::input(format!(
            "metadata entry {index}: key length {key_len} runs past the end of the file"
        )));
    };
    if key.is_empty() {
        return Err(Error::input(format!("metadata entry {index}: key length 0; at least 1 is needed")));
    }
    let Ok(key) = std::str::from_utf8(key) else {
        let shown = key[..key.len().min(64)].escape_ascii();
        return Err(Error::input(format!("metadata entry {index}: key is not UTF-8 (\"{shown}\")")));
    };
    if key.chars().any(char::is_control) {
        return Err(Error::input(format!("metadata entry {index}: key \"{key}\" holds a control character")));
    }
    let in_value = |message: String| Error::input(format!("metadata \"{key}\": {message}"));
    let cut = || in_value("the file ends inside its value".into());
    let id = cursor.u32().ok_or_else(cut)?;
    let value_type = ValueType::from_id(id).ok_or_else(|| in_value(format!("unknown value type {id}")))?;
    let value_start = cursor.at();
    match value_type {
        ValueType::Array => skip_array(cursor).map_err(|e| e.map_or_else(cut, in_value))?,
        ValueType::String => skip_string(cursor).map_err(|e| e.map_or_else(cut, in_value))?,
        fixed => {
            cursor.take(fixed.fixed_bytes().expect("neither string nor array")).ok_or_else(cut)?;
        }
    }
    Ok(Entry { key_start, key_len: key.len(), value_type, value_start })
}

/// `Err(None)`: the file ends here. `Err(Some(..))`: what is wrong.
fn skip_string(cursor: &mut Cursor) -> std::result::Result<(), Option<String>> {
    let n = cursor.u64().ok_or(None)?;
    cursor.take(n).ok_or_else(|| Some(format!("string of {n} bytes runs past the end")))?;
    Ok(())
}

fn skip_array(cursor: &mut Cursor) -> std::result::Result<(), Option<String>> {
    let id = cursor.u32().ok_or(None)?;
    let n = cursor.u64().ok_or(None)?;
    let Some(item) = ValueType::from_id(id) else { return Err(Some(format!("unknown value type {id}"))) };
    if item == ValueType::Array {
        return Err(Some("nested arrays are not supported".into()));
    }
    // A string takes at least the eight bytes of its length.
    let min_bytes = n.checked_mul(item.fixed_bytes().unwrap_or(8));
    let Some(min_bytes) = min_bytes.filter(|needed| *needed <= cursor.remaining()) else {
        return Err(Some(format!("array of {n} items needs more bytes than remain")));
    };
    if item == ValueType::String {
        for _ in 0..n {
            skip_string(cursor)?;
        }
    } else {
        cursor.take(min_bytes).ok_or(None)?;
    }
    Ok(())
}

/// Decodes the value at the cursor and moves past it (for an array: past its head only).
fn decode<'a>(value_type: ValueType, cursor: &mut Cursor<'a>) -> Option<Value<'a>> {
    let fixed = |cursor: &mut Cursor<'a>| cursor.take(value_type.fixed_bytes()?);
    Some(match value_type {
        ValueType::U8 => Value::U8(fixed(cursor)?[0]),
        ValueType::I8 => Value::I8(fixed(cursor)?[0] as i8),
        ValueType::Bool => Value::Bool(fixed(cursor)?[0] != 0),
        ValueType::U16 => Value::U16(u16::from_le_bytes(fixed(cursor)?.try_into().ok()?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(fixed(cursor)?.try_into().ok()?)),
        ValueType::U32 => Value::U32(cursor.u32()?),
        ValueType::I32 => Value::I32(cursor.u32()? as i32),
        ValueType::F32 => Value::F32(f32::from_bits(cursor.u32()?)),
        ValueType::U64 => Value::U64(cursor.u64()?),
        ValueType::I64 => Value::I64(cursor.u64()? as i64),
        ValueType::F64 => Value::F64(f64::from_bits(cursor.u64()?)),
        ValueType::String => {
            let n = cursor.u64()?;
            Value::String(cursor.take(n)?)
        }
        ValueType::Array => {
            let item = ValueType::from_id(cursor.u32()?)?;
            let len = usize::try_from(cursor.u64()?).ok()?;
            let bytes = cursor.take(cursor.remaining())?;
            Value::Array(Array { item, len, bytes })
        }
    })
}
