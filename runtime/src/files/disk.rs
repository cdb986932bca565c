//! Every write of every program: to a temporary name beside the target, flushed to the device, then renamed. A reader
//! sees the old file or the new one, never half of one. What must also survive a power cut at any instant goes through
//! [`Disk`], which the tests can replace.

mod access;
pub mod jsonl;
mod real;
mod space;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::escape::thousands;

pub use access::{Disk, DiskFile, DiskLock, EntryKind};
pub use real::RealDisk;
pub use space::free_bytes;

const BUFFER_BYTES: usize = 1 << 20;

/// Calls `write` with a buffered writer and publishes the result at `path`, replacing what is there. On any error the
/// target is untouched and the temporary file is gone.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut file = NewFile::create(path)?;
    write(&mut file).map_err(|e| Error::io(path, &e))?;
    file.publish()
}

/// Refuses to replace something that exists.
pub fn refuse_existing(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(_) => Err(Error::input("already exists: choose another name or remove it first").in_file(path)),
        Err(_) => Ok(()),
    }
}

/// Refuses when fewer than `needed` bytes are free where `path` is to be; a system that does not say is trusted.
pub fn refuse_full(path: &Path, needed: u64) -> Result<()> {
    match free_bytes(parent_of(path)) {
        Some(free) if free < needed => Err(Error::limit(format!(
            "needs {} bytes, and {} are free on the disk: free {} more or choose another place",
            thousands(needed),
            thousands(free),
            thousands(needed - free)
        ))
        .in_file(path)),
        _ => Ok(()),
    }
}

/// A file under a temporary name. Dropping it before [`NewFile::publish`] removes it.
pub struct NewFile {
    target: PathBuf,
    temporary: PathBuf,
    /// `None` once published.
    out: Option<BufWriter<File>>,
}

impl NewFile {
    /// Creates the temporary file beside `target`.
    pub fn create(target: &Path) -> Result<NewFile> {
        let temporary = temporary_path(target);
        let file = File::create(&temporary).map_err(|e| Error::io(target, &e))?;
        let out = Some(BufWriter::with_capacity(BUFFER_BYTES, file));
        Ok(NewFile { target: target.to_path_buf(), temporary, out })
    }

    /// Flushes to the device and renames to the target, replacing what is there.
    pub fn publish(mut self) -> Result<()> {
        let io = |e: io::Error| Error::io(&self.target, &e);
        let out = self.out.as_mut().expect("published once");
        out.flush().and_then(|()| out.get_ref().sync_all()).map_err(io)?;
        fs::rename(&self.temporary, &self.target).map_err(io)?;
        self.out = None;
        flush_directory(parent_of(&self.target));
        Ok(())
    }

    /// The same, unless something has appeared at the target.
    pub fn publish_new(self) -> Result<()> {
        refuse_existing(&self.target)?;
        self.publish()
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.as_mut().expect("not yet published").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.as_mut().expect("not yet published").flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(out) = self.out.take() {
            // Not flushed: what is in the buffer is for a file that goes away. The error that led here is what the
            // person needs; a leftover of the clean-up would hide it.
            let _ = out.into_parts();
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// A folder under a temporary name. Dropping it before [`NewFolder::publish_new`] removes it with what is in it.
pub struct NewFolder {
    target: PathBuf,
    temporary: PathBuf,
    published: bool,
}

impl NewFolder {
    /// Creates the temporary folder beside `target`.
    pub fn create(target: &Path) -> Result<NewFolder> {
        let temporary = temporary_path(target);
        fs::create_dir(&temporary).map_err(|e| Error::io(target, &e))?;
        Ok(NewFolder { target: target.to_path_buf(), temporary, published: false })
    }

    /// Where to create its files; each is flushed by [`NewFile::publish`].
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Moves the files of these names out of the folder to beside its target, unless something of their names is there. The
    /// last goes first: who finds the first one finds all. The folder is gone afterwards.
    ///
    /// # Errors
    /// The names are taken, or a file cannot be moved; then none of them is there.
    pub fn publish_files(self, names: &[String]) -> Result<()> {
        flush_directory(&self.temporary);
        let beside = parent_of(&self.target);
        names.iter().try_for_each(|name| refuse_existing(&beside.join(name)))?;
        for (i, name) in names.iter().enumerate().rev() {
            let target = beside.join(name);
            if let Err(e) = fs::rename(self.temporary.join(name), &target) {
                // As for a file that is dropped.
                names[i + 1..].iter().for_each(|moved| drop(fs::remove_file(beside.join(moved))));
                return Err(Error::io(&target, &e));
            }
        }
        flush_directory(beside);
        Ok(())
    }

    /// Renames to the target, unless something has appeared there.
    pub fn publish_new(mut self) -> Result<()> {
        flush_directory(&self.temporary);
        refuse_existing(&self.target)?;
        fs::rename(&self.temporary, &self.target).map_err(|e| Error::io(&self.target, &e))?;
        self.published = true;
        flush_directory(parent_of(&self.target));
        Ok(())
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.published {
            // As for a file.
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// `.name.tmp-PID` in the same directory, so that the rename stays on one file system.
fn temporary_path(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp-{}", std::process::id()))
}

/// The folder that a path is in.
pub fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The rename itself is made durable; a file system that cannot sync a directory has nothing better to offer.
fn flush_directory(directory: &Path) {
    if let Ok(file) = File::open(directory) {
        if let Err(error) = file.sync_all() {
            log::debug!("{}: {error}", directory.display());
        }
    }
}
