//! How a GGUF file is split: which tensors go into which part, and what each says of the whole, as llama.cpp's
//! `llama-gguf-split` does it.

use std::path::Path;

use lichen_runtime::files::formats::gguf::PartName;
use lichen_runtime::files::formats::gguf_write::{Head, NewValue};
use lichen_runtime::Result;

use super::gguf_file::Entry;

/// Metadata and table of one file, and the tensors it holds.
pub(super) struct FilePart<'a> {
    pub head: Head,
    pub entries: &'a [Entry],
}

/// Cuts the tensors, in order, into files of at most `bytes_max` where that is given; a tensor that is larger by itself has
/// a file of its own. The first has the `metadata`. One file alone does not say that it is a part.
///
/// # Errors
/// A tensor's name is too long for the format.
pub(super) fn cut(metadata: Head, entries: &[Entry], bytes_max: Option<u64>) -> Result<Vec<FilePart<'_>>> {
    let ends = ends(metadata.file_bytes(), entries, bytes_max.unwrap_or(u64::MAX));
    let (n_parts, mut metadata, mut start) = (ends.len(), Some(metadata), 0);
    let part = |(i, end): (usize, usize)| {
        let mut head = metadata.take().unwrap_or_default();
        if n_parts > 1 {
            // A part has a tensor at least, and 512 layers have fewer than 7,000: the numbers fit.
            head.entry("split.no", NewValue::U16(i as u16));
            head.entry("split.count", NewValue::U16(n_parts as u16));
            head.entry("split.tensors.count", NewValue::I32(entries.len() as i32));
        }
        let entries = &entries[start..end];
        start = end;
        entries.iter().try_for_each(|entry| head.tensor(&entry.name, entry.format, &entry.shape))?;
        Ok(FilePart { head, entries })
    };
    ends.into_iter().enumerate().map(part).collect()
}

/// The index behind the last tensor of each part.
fn ends(metadata_bytes: u64, entries: &[Entry], bytes_max: u64) -> Vec<usize> {
    // The header, the three keys of a split with their values, and the padding before the data.
    const HEAD_BYTES: u64 = 24 + 3 * (8 + 4 + 4) + 8 + 11 + 19 + 32;
    let (mut ends, mut n_in_part) = (Vec::new(), 0);
    let mut bytes = metadata_bytes + HEAD_BYTES;
    for (i, entry) in entries.iter().enumerate() {
        // Its description in the table, and its data with the padding behind.
        let more = (24 + entry.name.len() + 8 * entry.shape.len()) as u64 + entry.data_bytes().next_multiple_of(32);
        if n_in_part > 0 && bytes.saturating_add(more) > bytes_max {
            ends.push(i);
            (n_in_part, bytes) = (0, HEAD_BYTES);
        }
        bytes += more;
        n_in_part += 1;
    }
    ends.push(entries.len());
    ends
}

/// Names of the files beside each other: `m.gguf`, or `m-00001-of-00003.gguf` and so on.
pub(super) fn names(out: &Path, n_parts: usize) -> Vec<String> {
    let name = out.file_name().map_or_else(|| "model.gguf".into(), |name| name.to_string_lossy().into_owned());
    if n_parts == 1 {
        return vec![name];
    }
    let part = PartName { stem: name.strip_suffix(".gguf").unwrap_or(&name), number: 1, count: n_parts };
    (1..=n_parts).map(|number| part.of(number)).collect()
}
