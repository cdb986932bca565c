//! The tensor table of a GGUF file.

use std::ops::Range;

use lichen_kernels::Format;

use super::cursor::Cursor;
use super::types::{format_of_type_id, unsupported};
use crate::error::{Error, Result};
use crate::escape::thousands;

/// Longest tensor name the format allows, in bytes.
const MAX_NAME_BYTES: u64 = 64;
const MAX_DIMS: u32 = 4;

/// One tensor: what it is and where its data lies.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    pub name: String,
    pub format: Format,
    /// Bytes of the file. Until the table is placed: offsets from the start of the data.
    pub range: Range<usize>,
    dims: [usize; MAX_DIMS as usize],
    n_dims: u8,
}

impl TensorInfo {
    /// Row-major, outermost first: `[rows, cols]` for a matrix. (The file stores the reverse.)
    pub fn shape(&self) -> &[usize] {
        &self.dims[..self.n_dims as usize]
    }
}

/// Reads `n` descriptions; ranges still count from the start of the data.
pub(super) fn read_table(cursor: &mut Cursor, n: usize) -> Result<Vec<TensorInfo>> {
    // The header's check of the count did not know how many bytes the metadata takes.
    let most = cursor.remaining() / super::MIN_TENSOR_BYTES;
    let mut tensors = Vec::with_capacity(n.min(most as usize));
    for index in 0..n {
        tensors.push(read_one(cursor, index)?);
    }
    Ok(tensors)
}

fn read_one(cursor: &mut Cursor, index: usize) -> Result<TensorInfo> {
    let cut = || Error::input(format!("tensor {index}: the file ends inside its description (download incomplete?)"));
    let name_len = cursor.u64().ok_or_else(cut)?;
    if name_len > MAX_NAME_BYTES {
        return Err(Error::input(format!("tensor {index}: name is {name_len} bytes; at most {MAX_NAME_BYTES}")));
    }
    let name = cursor.take(name_len).ok_or_else(cut)?;
    if name.is_empty() {
        return Err(Error::input(format!("tensor {index}: name is 0 bytes; at least 1")));
    }
    let Ok(name) = std::str::from_utf8(name) else {
        return Err(Error::input(format!("tensor {index}: name is not UTF-8 (\"{}\")", name.escape_ascii())));
    };
    let in_tensor = |message: String| Error::input(format!("tensor \"{name}\": {message}"));
    let n_dims = cursor.u32().ok_or_else(cut)?;
    if !(1..=MAX_DIMS).contains(&n_dims) {
        return Err(in_tensor(format!("{n_dims} dimensions; 1 to {MAX_DIMS} are allowed")));
    }
    let mut dims = [0u64; MAX_DIMS as usize];
    // The file stores the contiguous dimension first.
    for dim in dims[..n_dims as usize].iter_mut().rev() {
        *dim = cursor.u64().ok_or_else(cut)?;
    }
    let type_id = cursor.u32().ok_or_else(cut)?;
    let offset = cursor.u64().ok_or_else(cut)?;
    let format = format_of_type_id(type_id).ok_or_else(|| in_tensor(unsupported(type_id)))?;
    let size = size_bytes(format, &dims[..n_dims as usize]).map_err(in_tensor)?;
    let Some(end) = offset.checked_add(size).filter(|end| *end <= i64::MAX as u64) else {
        return Err(in_tensor(format!("offset {offset} is larger than any file")));
    };
    Ok(TensorInfo {
        name: name.to_string(),
        format,
        range: offset as usize..end as usize,
        dims: dims.map(|d| d as usize),
        n_dims: n_dims as u8,
    })
}

/// Bytes of a tensor of shape `dims` (row-major), every product checked.
fn size_bytes(format: Format, dims: &[u64]) -> std::result::Result<u64, String> {
    let too_large = || format!("shape {} is larger than any file", shape_text(dims));
    if dims.iter().any(|d| *d > i64::MAX as u64) {
        return Err(too_large());
    }
    let cols = *dims.last().expect("at least one dimension");
    let block_len = format.block_len() as u64;
    if !cols.is_multiple_of(block_len) {
        return Err(format!("row of {cols} values; {format} needs a multiple of {block_len}"));
    }
    if dims.contains(&0) {
        return Ok(0);
    }
    let mut values = 1u64;
    for dim in dims {
        values = values.checked_mul(*dim).ok_or_else(too_large)?;
    }
    (values / block_len)
        .checked_mul(format.block_bytes() as u64)
        .filter(|bytes| *bytes <= i64::MAX as u64)
        .ok_or_else(too_large)
}

/// `1152 x 6912`; huge powers of two as `2^42`.
fn shape_text(dims: &[u64]) -> String {
    let text = |d: &u64| match d.is_power_of_two() && *d > u32::MAX as u64 {
        true => format!("2^{}", d.trailing_zeros()),
        false => d.to_string(),
    };
    dims.iter().map(text).collect::<Vec<_>>().join(" x ")
}

/// Indices by name. # Errors: a name appears twice.
pub(super) fn index_by_name(tensors: &[TensorInfo]) -> Result<Vec<u32>> {
    let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
    let name = |i: u32| tensors[i as usize].name.as_str();
    by_name.sort_unstable_by(|a, b| name(*a).cmp(name(*b)));
    match by_name.windows(2).find(|pair| name(pair[0]) == name(pair[1])) {
        Some(pair) => Err(Error::input(format!("tensor \"{}\" appears twice", name(pair[0])))),
        None => Ok(by_name),
    }
}

/// Checks where the tensors lie and turns their ranges into bytes of the file.
pub(super) fn place(tensors: &mut [TensorInfo], data_offset: usize, file_len: usize, alignment: usize) -> Result<()> {
    for tensor in tensors.iter() {
        if !tensor.range.start.is_multiple_of(alignment) {
            return Err(Error::input(format!(
                "tensor \"{}\": offset {} is not a multiple of the alignment {alignment}",
                tensor.name, tensor.range.start
            )));
        }
    }
    let mut by_start: Vec<u32> = (0..tensors.len() as u32).collect();
    by_start.sort_unstable_by_key(|i| (tensors[*i as usize].range.start, tensors[*i as usize].range.end));
    let gap_bytes = check_order(tensors, &by_start, alignment)?;
    check_end(tensors, gap_bytes == 0, data_offset, file_len)?;
    if gap_bytes > 0 {
        log::warn!("{} bytes between the tensors belong to none of them", thousands(gap_bytes as u64));
    }
    for tensor in tensors {
        // No overflow: the end was checked against the file's length. An empty tensor may have been declared at the end
        // of a file that lacks the padding before its data.
        tensor.range = match tensor.range.is_empty() {
            true => 0..0,
            false => data_offset + tensor.range.start..data_offset + tensor.range.end,
        };
    }
    Ok(())
}

/// Refuses overlaps; returns the bytes that lie between tensors and are more than padding.
fn check_order(tensors: &[TensorInfo], by_start: &[u32], alignment: usize) -> Result<usize> {
    let mut gap_bytes = 0usize;
    let mut previous: Option<&TensorInfo> = None;
    for index in by_start {
        let tensor = &tensors[*index as usize];
        if tensor.range.is_empty() {
            continue;
        }
        let previous_end = previous.map_or(0, |p| p.range.end);
        if let Some(previous) = previous.filter(|p| p.range.end > tensor.range.start) {
            return Err(Error::input(format!(
                "tensors \"{}\" and \"{}\" share bytes {}..{}",
                previous.name,
                tensor.name,
                tensor.range.start,
                previous.range.end.min(tensor.range.end)
            )));
        }
        gap_bytes = gap_bytes
            .saturating_add(tensor.range.start - previous_end.next_multiple_of(alignment).min(tensor.range.start));
        previous = Some(tensor);
    }
    Ok(gap_bytes)
}

/// Refuses tensors past the end of the file. A table without gaps is that of a sound file that was cut; one with gaps
/// has a wrong offset.
fn check_end(tensors: &[TensorInfo], gapless: bool, data_offset: usize, file_len: usize) -> Result<()> {
    let data_len = file_len.saturating_sub(data_offset);
    let Some(last) = tensors.iter().max_by_key(|t| t.range.end) else { return Ok(()) };
    if last.range.end <= data_len {
        return Ok(());
    }
    if gapless {
        let needed = data_offset as u64 + last.range.end as u64;
        let missing = needed - file_len as u64;
        return Err(Error::input(format!(
            "ends {} {} early: tensor \"{}\" needs bytes up to {} (download incomplete?)",
            thousands(missing),
            if missing == 1 { "byte" } else { "bytes" },
            last.name,
            thousands(needed)
        )));
    }
    let outside = tensors.iter().find(|t| t.range.end > data_len).expect("the last one does");
    Err(Error::input(format!(
        "tensor \"{}\": bytes {}..{} lie outside the file's {} data bytes",
        outside.name,
        outside.range.start,
        outside.range.end,
        thousands(data_len as u64)
    )))
}
