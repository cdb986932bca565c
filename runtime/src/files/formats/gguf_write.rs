//! Writing GGUF version 3 as a stream: metadata and tensor table first, then the data of each tensor in turn.
//!
//! Layout (ggml `docs/gguf.md`): see [`super::gguf`]. Offsets count from the start of the data and are multiples of 32.

use std::io::{self, Write};

use lichen_kernels::Format;

use super::gguf::{type_id, Value};
use crate::error::{Error, Result};

/// The format's default, which readers take when the file does not say.
const ALIGNMENT: usize = 32;
/// Longest tensor name the format allows, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// A metadata value that will be written.
#[derive(Clone, Copy, Debug)]
pub enum NewValue<'a> {
    U16(u16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(&'a str),
    Strings(&'a [String]),
    F32s(&'a [f32]),
    I32s(&'a [i32]),
    Bools(&'a [bool]),
    /// As another file holds it.
    Copy(Value<'a>),
}

/// Metadata and tensor table, complete before the first byte of data.
#[derive(Default)]
pub struct Head {
    metadata: Vec<u8>,
    n_metadata: u64,
    table: Vec<u8>,
    /// Bytes of each tensor, in order.
    tensor_bytes: Vec<u64>,
}

impl Head {
    /// Adds one metadata entry. Keys must be unique: the caller's business.
    pub fn entry(&mut self, key: &str, value: NewValue) {
        put_string(&mut self.metadata, key.as_bytes());
        put_value(&mut self.metadata, value);
        self.n_metadata += 1;
    }

    /// Adds a tensor, `shape` row-major, outermost first. Data must come in the order of these calls.
    ///
    /// # Errors
    /// The name is too long for the format.
    ///
    /// Panics when GGUF has no type for the format, or a row is not whole blocks.
    pub fn tensor(&mut self, name: &str, format: Format, shape: &[usize]) -> Result<()> {
        if name.len() > MAX_NAME_BYTES {
            return Err(Error::input(format!("tensor \"{name}\": GGUF names have at most {MAX_NAME_BYTES} bytes")));
        }
        let offset = self.data_bytes();
        let (cols, outer) = shape.split_last().expect("at least one dimension");
        let row_bytes = format.row_bytes(*cols).expect("whole blocks");
        put_string(&mut self.table, name.as_bytes());
        self.table.extend_from_slice(&(shape.len() as u32).to_le_bytes());
        // The file stores the contiguous dimension first.
        for dim in shape.iter().rev() {
            self.table.extend_from_slice(&(*dim as u64).to_le_bytes());
        }
        self.table.extend_from_slice(&type_id(format).to_le_bytes());
        self.table.extend_from_slice(&offset.to_le_bytes());
        self.tensor_bytes.push(outer.iter().product::<usize>() as u64 * row_bytes as u64);
        Ok(())
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.head_bytes() + self.data_bytes()
    }

    /// Writes metadata and table, and the padding behind them.
    pub fn start<'w>(&self, out: &'w mut dyn Write) -> io::Result<DataWriter<'w>> {
        out.write_all(b"GGUF")?;
        out.write_all(&3u32.to_le_bytes())?;
        out.write_all(&(self.tensor_bytes.len() as u64).to_le_bytes())?;
        out.write_all(&self.n_metadata.to_le_bytes())?;
        out.write_all(&self.metadata)?;
        out.write_all(&self.table)?;
        let written = 24 + self.metadata.len() + self.table.len();
        out.write_all(&[0; ALIGNMENT][..self.head_bytes() as usize - written])?;
        Ok(DataWriter { out, tensor_bytes: self.tensor_bytes.clone(), tensor: 0, written: 0 })
    }

    fn head_bytes(&self) -> u64 {
        (24 + self.metadata.len() + self.table.len()).next_multiple_of(ALIGNMENT) as u64
    }

    fn data_bytes(&self) -> u64 {
        self.tensor_bytes.iter().map(|n| n.next_multiple_of(ALIGNMENT as u64)).sum()
    }
}

/// Takes the data of all tensors, in the order of the table, in pieces of any size that do not cross tensors.
pub struct DataWriter<'w> {
    out: &'w mut dyn Write,
    tensor_bytes: Vec<u64>,
    tensor: usize,
    /// Bytes of the current tensor so far.
    written: u64,
}

impl DataWriter<'_> {
    /// Panics when more data comes than the table says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let wanted = self.tensor_bytes[self.tensor];
        self.written += bytes.len() as u64;
        assert!(self.written <= wanted, "no more data than the table declares");
        self.out.write_all(bytes)?;
        if self.written == wanted {
            let padding = wanted.next_multiple_of(ALIGNMENT as u64) - wanted;
            self.out.write_all(&[0; ALIGNMENT][..padding as usize])?;
            self.tensor += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Panics when data is missing.
    pub fn finish(self) {
        assert_eq!(self.tensor, self.tensor_bytes.len(), "tensors that the table declares and nobody wrote");
    }
}

fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

/// Type, then value.
fn put_value(out: &mut Vec<u8>, value: NewValue) {
    let scalar = |out: &mut Vec<u8>, id: u32, bytes: &[u8]| {
        out.extend_from_slice(&id.to_le_bytes());
        out.extend_from_slice(bytes);
    };
    match value {
        NewValue::U16(n) => scalar(out, 2, &n.to_le_bytes()),
        NewValue::U32(n) => scalar(out, 4, &n.to_le_bytes()),
        NewValue::I32(n) => scalar(out, 5, &n.to_le_bytes()),
        NewValue::F32(v) => scalar(out, 6, &v.to_le_bytes()),
        NewValue::Bool(v) => scalar(out, 7, &[v as u8]),
        NewValue::String(text) => {
            out.extend_from_slice(&8u32.to_le_bytes());
            put_string(out, text.as_bytes());
        }
        NewValue::Strings(items) => {
            put_array_head(out, 8, items.len());
            items.iter().for_each(|item| put_string(out, item.as_bytes()));
        }
        NewValue::F32s(items) => {
            put_array_head(out, 6, items.len());
            items.iter().for_each(|item| out.extend_from_slice(&item.to_le_bytes()));
        }
        NewValue::I32s(items) => {
            put_array_head(out, 5, items.len());
            items.iter().for_each(|item| out.extend_from_slice(&item.to_le_bytes()));
        }
        NewValue::Bools(items) => {
            put_array_head(out, 7, items.len());
            items.iter().for_each(|item| out.push(*item as u8));
        }
        NewValue::Copy(value) => {
            out.extend_from_slice(&value.value_type().id().to_le_bytes());
            put_copy(out, value);
        }
    }
}

fn put_array_head(out: &mut Vec<u8>, item: u32, len: usize) {
    out.extend_from_slice(&9u32.to_le_bytes());
    out.extend_from_slice(&item.to_le_bytes());
    out.extend_from_slice(&(len as u64).to_le_bytes());
}

/// A value without its type.
fn put_copy(out: &mut Vec<u8>, value: Value) {
    match value {
        Value::U8(n) => out.push(n),
        Value::I8(n) => out.push(n as u8),
        Value::Bool(v) => out.push(v as u8),
        Value::U16(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::I16(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::U32(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::I32(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U64(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::I64(n) => out.extend_from_slice(&n.to_le_bytes()),
        Value::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::String(bytes) => put_string(out, bytes),
        Value::Array(array) => {
            out.extend_from_slice(&array.item.id().to_le_bytes());
            out.extend_from_slice(&(array.len as u64).to_le_bytes());
            array.iter().for_each(|item| put_copy(out, item));
        }
    }
}
