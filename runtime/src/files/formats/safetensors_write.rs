//! Writing safetensors as a stream: the header is complete before the first byte of data, so nothing has to be held.
//!
//! Order and padding are those of the reference implementation: tensors by alignment of their type, widest first, then
//! by name; the JSON is padded with spaces to a multiple of 8; `"format": "pt"`, without which transformers refuses.

use std::io::{self, Write};
use std::path::Path;

use serde_json::{json, Map, Value};

use super::safetensors::Dtype;
use crate::error::{Error, Result};
use crate::files::disk::write_atomically;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTensor {
    pub name: String,
    pub dtype: Dtype,
    /// Row-major, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
}

impl NewTensor {
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: &[usize]) -> NewTensor {
        NewTensor { name: name.into(), dtype, shape: shape.to_vec() }
    }

    pub fn size_bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size_bytes()
    }
}

/// The header of a file, and the order in which its data must come.
pub struct Layout {
    tensors: Vec<NewTensor>,
    header: Vec<u8>,
}

impl Layout {
    /// `metadata` is added to `"format": "pt"` under `__metadata__`.
    ///
    /// # Errors
    /// Two tensors have one name.
    pub fn new(mut tensors: Vec<NewTensor>, metadata: &[(&str, &str)]) -> Result<Layout> {
        tensors.sort_by(|a, b| (b.dtype.size_bytes(), &a.name).cmp(&(a.dtype.size_bytes(), &b.name)));
        let mut entries = Map::new();
        let mut strings = Map::from_iter([("format".to_string(), json!("pt"))]);
        strings.extend(metadata.iter().map(|(key, value)| (key.to_string(), json!(value))));
        entries.insert("__metadata__".into(), Value::Object(strings));
        let mut start = 0;
        for tensor in &tensors {
            let end = start + tensor.size_bytes();
            let entry = json!({"dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [start, end]});
            if entries.insert(tensor.name.clone(), entry).is_some() {
                return Err(Error::input(format!("tensor \"{}\" would be written twice", tensor.name)));
            }
            start = end;
        }
        let mut json = Value::Object(entries).to_string().into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend_from_slice(&json);
        Ok(Layout { tensors, header })
    }

    /// In the order in which the data must be written.
    pub fn tensors(&self) -> &[NewTensor] {
        &self.tensors
    }

    /// Length of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.header.len() as u64 + self.data_bytes()
    }

    fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.size_bytes() as u64).sum()
    }

    /// Writes the header.
    pub fn start<'w>(&self, out: &'w mut dyn Write) -> io::Result<DataWriter<'w>> {
        out.write_all(&self.header)?;
        Ok(DataWriter { out, missing_bytes: self.data_bytes() })
    }
}

/// Takes the data of all tensors, in the order of [`Layout::tensors`], in pieces of any size.
pub struct DataWriter<'w> {
    out: &'w mut dyn Write,
    missing_bytes: u64,
}

impl DataWriter<'_> {
    /// Panics when more data comes than the header says.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let left = self.missing_bytes.checked_sub(bytes.len() as u64);
        self.missing_bytes = left.expect("no more data than the header declares");
        self.out.write_all(bytes)
    }

    /// Panics when data is missing.
    pub fn finish(self) {
        assert_eq!(self.missing_bytes, 0, "bytes that the header declares and nobody wrote");
    }
}

/// Writes tensors that are in memory to `path`, replacing what is there.
///
/// # Errors
/// Two tensors have one name, or the file cannot be written. Panics when bytes and shape do not belong together.
pub fn write_file(path: &Path, tensors: &[(NewTensor, &[u8])], metadata: &[(&str, &str)]) -> Result<()> {
    let layout = Layout::new(tensors.iter().map(|(tensor, _)| tensor.clone()).collect(), metadata)?;
    write_atomically(path, |out| {
        let mut data = layout.start(out)?;
        for tensor in layout.tensors() {
            let (_, bytes) = tensors.iter().find(|(t, _)| t.name == tensor.name).expect("laid out from the same list");
            assert_eq!(bytes.len(), tensor.size_bytes(), "{}", tensor.name);
            data.write(bytes)?;
        }
        data.finish();
        Ok(())
    })
}
