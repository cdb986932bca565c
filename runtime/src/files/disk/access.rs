//! All that the trainer and the host tools ask of a disk. A trait, because the tests bring a second disk: one in memory
//! that lists every state a power cut may leave behind.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::parent_of;

/// One file system. Paths are used as they are; nothing is buffered and nothing is retried.
pub trait Disk: Send + Sync {
    /// Creates one folder; `AlreadyExists` when the name is taken.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// What a folder holds, sorted.
    fn names(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// What a name stands for; links are not followed.
    fn kind(&self, path: &Path) -> io::Result<EntryKind>;

    /// Opens a regular file; anything else is `InvalidInput`, so that a pipe cannot block.
    fn open(&self, file: &Path) -> io::Result<Box<dyn Read + Send>>;

    /// Bytes in a regular file.
    fn len(&self, file: &Path) -> io::Result<u64>;

    /// Creates a file that does not exist yet, to be written from start to end. Room for `len` bytes is reserved where
    /// the file system can do so, so that a full disk shows before the first byte.
    fn create(&self, file: &Path, len: u64) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file to write at its end, and creates it if need be.
    fn append(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Cuts a file to `len` bytes and flushes it.
    fn truncate(&self, file: &Path, len: u64) -> io::Result<()>;

    /// Replaces a file or link; a folder only if it is empty.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    fn remove_file(&self, file: &Path) -> io::Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, dir: &Path) -> io::Result<()>;

    /// Flushes the names in a folder: creations, renames and removals survive a power cut only after this.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Creates a symbolic link.
    fn link(&self, target: &str, path: &Path) -> io::Result<()>;

    fn read_link(&self, path: &Path) -> io::Result<String>;

    /// Bytes that may still be written where `dir` is; `None` when the system does not say.
    fn free_bytes(&self, dir: &Path) -> Option<u64>;

    /// The name of a file system that keeps no journal of its names: a power cut may lose or cross them. `None` for the
    /// others.
    fn journal_free(&self, _dir: &Path) -> Option<&'static str> {
        None
    }

    /// Takes the one lock of a file, which is created if need be; `WouldBlock` when somebody else holds it.
    fn lock(&self, file: &Path) -> io::Result<DiskLock>;

    /// The whole of a regular file.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open(file)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Creates a folder and those above it; each is flushed into the one above.
    fn create_dirs(&self, path: &Path) -> io::Result<()> {
        let created = match self.create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && path.parent().is_some() => {
                self.create_dirs(parent_of(path))?;
                self.create_dir(path)
            }
            other => other,
        };
        match created {
            // A link to a folder will do; that it is one shows when its names are read. Whoever created it may have
            // been killed before the flush; a folder above that cannot be opened is left as it is.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let _ = self.sync_dir(parent_of(path));
                self.names(path).map(|_| ())
            }
            Err(e) => Err(e),
            Ok(()) => self.sync_dir(parent_of(path)),
        }
    }

    /// Writes a small file under `temporary`, flushes it and renames it to `file` in the same folder: a reader sees the
    /// old file or the new one.
    fn replace(&self, file: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut out = self.create(temporary, bytes.len() as u64)?;
        out.write_all(bytes)?;
        out.sync()?;
        drop(out);
        self.rename(temporary, file)
    }

    /// Points the link at `path` to `target` by way of a link under `temporary`; durable when it returns. A leftover under
    /// that name is removed.
    fn replace_link(&self, path: &Path, temporary: &Path, target: &str) -> io::Result<()> {
        self.remove_all(temporary)?;
        self.link(target, temporary)?;
        self.rename(temporary, path)?;
        self.sync_dir(parent_of(path))
    }

    /// Removes a file, a link, or a folder with all that is in it; what is not there is no error. Links are not followed.
    fn remove_all(&self, path: &Path) -> io::Result<()> {
        let removed = match self.kind(path) {
            Ok(EntryKind::Folder) => {
                for name in self.names(path)? {
                    self.remove_all(&path.join(name))?;
                }
                self.remove_dir(path)
            }
            Ok(_) => self.remove_file(path),
            Err(e) => Err(e),
        };
        match removed {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Folder,
    Link,
    /// A pipe, a socket or a device.
    Other,
}

/// A file that is being written.
pub trait DiskFile: Write + Send {
    /// Flushes to the device. After a failure the file must not be trusted and every further call fails: the system
    /// may have dropped the bytes and would report success, so what was in it is written again to a new file.
    fn sync(&mut self) -> io::Result<()>;

    /// Asks that the next read comes from the device. A hint: a system that does not do it loses nothing.
    fn drop_cache(&mut self);
}

/// A held lock; dropping it, or the end of the process, lets go of it.
#[derive(Debug)]
pub struct DiskLock {
    _file: Option<File>,
}

impl DiskLock {
    pub(super) fn of(file: File) -> DiskLock {
        DiskLock { _file: Some(file) }
    }

    /// For a disk that only one process can see.
    pub fn unshared() -> DiskLock {
        DiskLock { _file: None }
    }
}
