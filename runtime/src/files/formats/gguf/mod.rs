//! GGUF, versions 2 and 3, little endian: our own bounded reader over a byte slice.
//!
//! Layout (ggml `docs/gguf.md`): `"GGUF" u32 version u64 n_tensors u64 n_metadata`, the metadata, the tensor table,
//! padding to `general.alignment`, the data. Strings and arrays stay where they are in the file; the table of contents
//! takes less memory than the bytes it describes.

mod cursor;
mod metadata;
mod set;
mod tensors;
mod types;

use std::sync::Arc;

use lichen_kernels::SharedBytes;

use crate::error::{Error, Result};
use crate::escape::thousands;
use cursor::Cursor;

pub use metadata::{Array, Metadata, Value, ValueType};
pub use set::{GgufSet, PartName};
pub use tensors::TensorInfo;
pub use types::{format_of_type_id, type_id};

/// Fixed part of the file, in bytes.
const HEADER_BYTES: usize = 24;
/// Key length, one byte of key, type, one byte of value.
const MIN_METADATA_BYTES: u64 = 8 + 1 + 4 + 1;
/// Name length, one byte of name, number of dimensions, one dimension, type, offset.
const MIN_TENSOR_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;
/// Real files have 20 to 60 entries; the cap bounds the time to sort them.
const MAX_METADATA: u64 = 65_536;
const DEFAULT_ALIGNMENT: usize = 32;

/// Who keeps the bytes of a file alive: a [`crate::files::mapped_file::MappedFile`], a vector, a static slice.
pub type BytesOwner = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The checked table of contents of a GGUF file, and the file's bytes.
///
/// Holding one proves: every metadata value and every tensor lies inside the file, names are unique, rows are whole
/// blocks, tensors do not overlap. It does not prove that the tensors are those of any model.
pub struct Gguf {
    owner: BytesOwner,
    version: u32,
    alignment: usize,
    data_offset: usize,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    /// Indices into `tensors`, by name.
    by_name: Vec<u32>,
}

impl Gguf {
    /// Reads the table of contents.
    ///
    /// # Errors
    /// The first thing found wrong, in one sentence without the file's name ([`Error::in_file`] adds it).
    pub fn parse(owner: BytesOwner) -> Result<Gguf> {
        let bytes: &[u8] = (*owner).as_ref();
        let header = Header::read(bytes)?;
        let mut cursor = Cursor::new(bytes, HEADER_BYTES);
        let metadata = Metadata::read(owner.clone(), &mut cursor, header.n_metadata)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = tensors::read_table(&mut cursor, header.n_tensors)?;
        let by_name = tensors::index_by_name(&tensors)?;
        let data_offset = cursor.at().next_multiple_of(alignment);
        tensors::place(&mut tensors, data_offset, bytes.len(), alignment)?;
        Ok(Gguf { version: header.version, alignment, data_offset, metadata, tensors, by_name, owner })
    }

    /// 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Tensor data starts at multiples of this many bytes from `data_offset`.
    pub fn alignment(&self) -> usize {
        self.alignment
    }

    /// Byte of the file at which tensor data starts.
    pub fn data_offset(&self) -> usize {
        self.data_offset
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// In the file's order.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        let found = self.by_name.binary_search_by(|i| self.tensors[*i as usize].name.as_str().cmp(name)).ok()?;
        Some(&self.tensors[self.by_name[found] as usize])
    }

    /// The data of a tensor of this file, in the file's layout.
    pub fn tensor_bytes(&self, tensor: &TensorInfo) -> SharedBytes {
        SharedBytes::new(self.owner.clone(), tensor.range.clone()).expect("checked when the table was read")
    }

    /// The whole file.
    pub fn bytes(&self) -> &[u8] {
        (*self.owner).as_ref()
    }
}

/// True when the bytes begin as a GGUF file does.
pub fn has_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(b"GGUF")
}

struct Header {
    version: u32,
    n_tensors: usize,
    n_metadata: usize,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Header> {
        if bytes.len() < HEADER_BYTES {
            return Err(Error::input(format!("is {} bytes long; a GGUF header needs {HEADER_BYTES}", bytes.len())));
        }
        super::refuse_git_lfs_pointer(bytes)?;
        if !has_magic(bytes) {
            let [a, b, c, d] = [bytes[0], bytes[1], bytes[2], bytes[3]];
            return Err(Error::input(format!("not a GGUF file (starts with {a:02x} {b:02x} {c:02x} {d:02x})")));
        }
        let mut cursor = Cursor::new(bytes, 4);
        let (version, n_tensors, n_metadata) = match (cursor.u32(), cursor.u64(), cursor.u64()) {
            (Some(version), Some(n_tensors), Some(n_metadata)) => (version, n_tensors, n_metadata),
            _ => unreachable!("the header's length was checked"),
        };
        if (1..=3).contains(&version.swap_bytes()) {
            return Err(Error::input("big-endian GGUF is not supported"));
        }
        if !(2..=3).contains(&version) {
            return Err(Error::input(format!("GGUF version {version}; 2 and 3 are supported")));
        }
        let follow = (bytes.len() - HEADER_BYTES) as u64;
        check_count(n_tensors, "tensors", MIN_TENSOR_BYTES, follow)?;
        check_count(n_metadata, "metadata entries", MIN_METADATA_BYTES, follow)?;
        if n_metadata > MAX_METADATA {
            return Err(Error::input(format!("more than {} metadata entries", thousands(MAX_METADATA))));
        }
        Ok(Header { version, n_tensors: n_tensors as usize, n_metadata: n_metadata as usize })
    }
}

/// A count is bounded by the bytes that are there: each entry takes at least `min_bytes`.
fn check_count(n: u64, what: &str, min_bytes: u64, follow: u64) -> Result<()> {
    if n.checked_mul(min_bytes).is_some_and(|needed| needed <= follow) {
        return Ok(());
    }
    Err(Error::input(format!("declares {n} {what}, but only {} bytes follow", thousands(follow))))
}

fn alignment(metadata: &Metadata) -> Result<usize> {
    match metadata.get("general.alignment") {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(n)) if n.is_power_of_two() && (8..=65_536).contains(&n) => Ok(n as usize),
        Some(Value::U32(n)) => {
            Err(Error::input(format!("general.alignment is {n}; a power of two from 8 to 65536 is needed")))
        }
        Some(other) => {
            Err(Error::input(format!("general.alignment is of type {}; u32 is needed", other.value_type().name())))
        }
    }
}
