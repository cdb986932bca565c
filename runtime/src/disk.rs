//! Every write of every program: to a temporary file beside the target, flushed to the device, then renamed. A reader
//! sees the old file or the new one, never half of one.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Calls `write` with a buffered writer and publishes the result at `path`, replacing what is there. On any error the
/// target is untouched and the temporary file is gone.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> Result<()> {
    let temporary = temporary_path(path);
    let result = write_and_flush(&temporary, write).and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = result {
        // The error of the write is what the person needs; a leftover of the clean-up would hide it.
        let _ = fs::remove_file(&temporary);
        return Err(Error::io(path, &error));
    }
    flush_directory(path);
    Ok(())
}

/// Refuses to replace something that exists.
pub fn refuse_existing(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Error::input("already exists: choose another name or remove it first").in_file(path)),
        Err(_) => Ok(()),
    }
}

/// `.name.tmp-PID` in the same directory, so that the rename stays on one file system.
fn temporary_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp-{}", std::process::id()))
}

fn write_and_flush(path: &Path, write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    write(&mut file)?;
    let file = file.into_inner().map_err(|e| e.into_error())?;
    file.sync_all()
}

/// The rename itself is made durable; a file system that cannot sync a directory has nothing better to offer.
fn flush_directory(path: &Path) {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if let Ok(directory) = File::open(parent) {
        if let Err(error) = directory.sync_all() {
            log::debug!("{}: {error}", parent.display());
        }
    }
}
