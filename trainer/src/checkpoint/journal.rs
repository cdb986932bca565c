//! metrics.jsonl when a run is resumed.

use std::io;
use std::path::Path;

use lichen_runtime::files::disk::jsonl::{each_line, repair_tail, TornTail};
use lichen_runtime::files::disk::Disk;
use lichen_runtime::{Error, Result};
use serde::Deserialize;

/// What resuming took away from the journal.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cut {
    pub torn: Option<TornTail>,
    /// Lines of steps that will be trained again, and what stands below them.
    pub n_lines: u64,
}

#[derive(Deserialize)]
struct StepOnly {
    step: u64,
}

/// Repairs the end of a journal and cuts it before the first line whose `step` is later than `step`. Lines without a step
/// belong to the lines above them. A file that is not there has nothing to cut.
///
/// # Errors
/// The file cannot be read, cut or flushed.
pub fn cut_after_step(disk: &dyn Disk, path: &Path, step: u64) -> Result<Cut> {
    let torn = repair_tail(disk, path)?;
    let io = |e: io::Error| Error::io(path, &e);
    let (mut kept_bytes, mut n_lines) = (0, 0);
    let scanned = each_line(disk, path, |end, line| {
        let is_later = serde_json::from_slice(line).is_ok_and(|l: StepOnly| l.step > step);
        if n_lines > 0 || is_later {
            n_lines += 1;
        } else {
            kept_bytes = end;
        }
        true
    });
    match scanned {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Cut::default()),
        Err(e) => return Err(io(e)),
        Ok(_) if n_lines > 0 => disk.truncate(path, kept_bytes).map_err(io)?,
        Ok(_) => {}
    }
    Ok(Cut { torn, n_lines })
}
