//! safetensors: our own bounded reader, with the rules of the reference implementation and no more leniency.
//!
//! Layout: `u64` little-endian header length, a JSON object `{name: {dtype, shape, data_offsets: [begin, end]}}` padded
//! with spaces, then the data; ranges count from the start of the data, follow each other without holes and end with
//! the file.

mod header;

use std::ops::Range;

use lichen_kernels::{Format, SharedBytes};

use super::gguf::BytesOwner;
use crate::error::{Error, Result};
use crate::escape::thousands;

/// The reference implementation's limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// Weights have one or two dimensions, convolutions of vision towers four.
const MAX_DIMS: usize = 4;

/// How the elements of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    Bool,
    U8,
    I8,
    I32,
    I64,
    F16,
    BF16,
    F32,
}

impl Dtype {
    const ALL: [Dtype; 8] =
        [Dtype::Bool, Dtype::U8, Dtype::I8, Dtype::I32, Dtype::I64, Dtype::F16, Dtype::BF16, Dtype::F32];

    /// As the header spells it.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::Bool => "BOOL",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::I32 => "I32",
            Dtype::I64 => "I64",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::F32 => "F32",
        }
    }

    pub fn size_bytes(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 => 1,
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::I32 | Dtype::F32 => 4,
            Dtype::I64 => 8,
        }
    }

    /// The weight format of the same layout; `None` for the integer types.
    pub fn format(self) -> Option<Format> {
        match self {
            Dtype::F32 => Some(Format::F32),
            Dtype::F16 => Some(Format::F16),
            Dtype::BF16 => Some(Format::BF16),
            Dtype::Bool | Dtype::U8 | Dtype::I8 | Dtype::I32 | Dtype::I64 => None,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|d| d.name() == name)
    }
}

/// One tensor: what it is and where its data lies.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    pub name: String,
    pub dtype: Dtype,
    /// Bytes of the file.
    pub range: Range<usize>,
    dims: [usize; MAX_DIMS],
    n_dims: u8,
}

impl TensorInfo {
    /// Row-major, outermost first; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.n_dims as usize]
    }
}

/// The checked table of contents of a safetensors file, and the file's bytes.
///
/// Holding one proves: every byte of the data belongs to exactly one tensor, shapes and ranges agree, names are unique.
pub struct SafeTensors {
    owner: BytesOwner,
    /// Sorted by name.
    tensors: Vec<TensorInfo>,
    metadata: Vec<(String, String)>,
}

impl SafeTensors {
    /// Reads the table of contents.
    ///
    /// # Errors
    /// The first thing found wrong, in one sentence without the file's name ([`Error::in_file`] adds it).
    pub fn parse(owner: BytesOwner) -> Result<SafeTensors> {
        let bytes: &[u8] = (*owner).as_ref();
        let header = header_text(bytes)?;
        let data_offset = 8 + header.len();
        let header::Header { mut tensors, metadata } = header::parse(header)?;
        tensors.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = tensors.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Error::input(format!("tensor \"{}\" is declared twice", pair[0].name)));
        }
        check_cover(&tensors, bytes.len() - data_offset)?;
        for tensor in &mut tensors {
            tensor.range = data_offset + tensor.range.start..data_offset + tensor.range.end;
        }
        Ok(SafeTensors { tensors, metadata, owner })
    }

    /// Sorted by name.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let found = self.tensors.binary_search_by(|t| t.name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[found])
    }

    /// Tensors whose names begin with `prefix`, sorted by name.
    pub fn with_prefix<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a TensorInfo> {
        let first = self.tensors.partition_point(|t| t.name.as_str() < prefix);
        self.tensors[first..].iter().take_while(move |t| t.name.starts_with(prefix))
    }

    /// `__metadata__`, in the file's order.
    pub fn metadata(&self) -> &[(String, String)] {
        &self.metadata
    }

    /// The data of a tensor of this file.
    pub fn tensor_bytes(&self, tensor: &TensorInfo) -> SharedBytes {
        SharedBytes::new(self.owner.clone(), tensor.range.clone()).expect("checked when the header was read")
    }

    /// The same, borrowed.
    pub fn tensor_slice(&self, tensor: &TensorInfo) -> &[u8] {
        &(*self.owner).as_ref()[tensor.range.clone()]
    }
}

/// The JSON text, bounded by the file.
fn header_text(bytes: &[u8]) -> Result<&str> {
    let Some((len, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(Error::input(format!("is {} bytes long; a safetensors header needs 8", bytes.len())));
    };
    super::refuse_git_lfs_pointer(bytes)?;
    let len = u64::from_le_bytes(*len);
    if len > rest.len() as u64 {
        return Err(Error::input(format!("header of {len} bytes does not fit in a file of {}", bytes.len())));
    }
    if len > MAX_HEADER_BYTES {
        return Err(Error::input(format!("header of {len} bytes; at most {MAX_HEADER_BYTES} are allowed")));
    }
    let text = std::str::from_utf8(&rest[..len as usize])
        .map_err(|e| Error::input(format!("header is not JSON: not UTF-8 from byte {}", e.valid_up_to())))?;
    if !text.starts_with('{') {
        return Err(Error::input("header is not JSON: line 1 column 1: an object is needed"));
    }
    Ok(text)
}

/// Every byte of the data belongs to exactly one tensor. Ranges still count from the start of the data.
fn check_cover(tensors: &[TensorInfo], data_len: usize) -> Result<()> {
    let mut by_start: Vec<u32> = (0..tensors.len() as u32).collect();
    by_start.sort_unstable_by_key(|i| (tensors[*i as usize].range.start, tensors[*i as usize].range.end));
    let mut end = 0;
    let mut previous = "";
    for index in by_start {
        let tensor = &tensors[index as usize];
        if tensor.range.end > data_len {
            return Err(Error::input(format!(
                "tensor \"{}\": bytes {}..{} lie outside the file's {} data bytes (download incomplete?)",
                tensor.name,
                tensor.range.start,
                tensor.range.end,
                thousands(data_len as u64)
            )));
        }
        if tensor.range.start < end {
            return Err(Error::input(format!("tensors \"{previous}\" and \"{}\" share bytes", tensor.name)));
        }
        if tensor.range.start > end {
            return Err(Error::input(format!("bytes {end}..{} belong to no tensor", tensor.range.start)));
        }
        end = tensor.range.end;
        previous = &tensor.name;
    }
    if end < data_len {
        return Err(Error::input(format!("bytes {end}..{data_len} belong to no tensor")));
    }
    Ok(())
}
