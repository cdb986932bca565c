//! The disk of the machine.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::access::{Disk, DiskFile, DiskLock, EntryKind};
use super::space;

/// The file systems that the operating system has mounted.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names = names.collect::<io::Result<Vec<String>>>()?;
        names.sort();
        Ok(names)
    }

    fn kind(&self, path: &Path) -> io::Result<EntryKind> {
        let kind = fs::symlink_metadata(path)?.file_type();
        Ok(match () {
            () if kind.is_file() => EntryKind::File,
            () if kind.is_dir() => EntryKind::Folder,
            () if kind.is_symlink() => EntryKind::Link,
            () => EntryKind::Other,
        })
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(open_regular(file)?))
    }

    fn len(&self, file: &Path) -> io::Result<u64> {
        let meta = fs::metadata(file)?;
        if meta.is_file() {
            Ok(meta.len())
        } else {
            Err(not_regular())
        }
    }

    fn create(&self, file: &Path, len: u64) -> io::Result<Box<dyn DiskFile>> {
        let out = OpenOptions::new().write(true).create_new(true).open(file)?;
        space::reserve(&out, len)?;
        Ok(Box::new(RealFile { file: out, flush_failed: false }))
    }

    fn append(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let out = OpenOptions::new().append(true).create(true).open(file)?;
        Ok(Box::new(RealFile { file: out, flush_failed: false }))
    }

    fn truncate(&self, file: &Path, len: u64) -> io::Result<()> {
        let out = OpenOptions::new().write(true).open(file)?;
        out.set_len(len)?;
        out.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir(dir)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        match File::open(dir)?.sync_all() {
            // A file system that cannot flush a folder has nothing better to offer.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP)) => Ok(()),
            other => other,
        }
    }

    fn link(&self, target: &str, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)
    }

    fn read_link(&self, path: &Path) -> io::Result<String> {
        Ok(fs::read_link(path)?.to_string_lossy().into_owned())
    }

    fn free_bytes(&self, dir: &Path) -> Option<u64> {
        space::free_bytes(dir)
    }

    fn journal_free(&self, dir: &Path) -> Option<&'static str> {
        space::journal_free(dir)
    }

    fn lock(&self, file: &Path) -> io::Result<DiskLock> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(file)?;
        match file.try_lock() {
            Ok(()) => Ok(DiskLock::of(file)),
            Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(e)) => Err(e),
        }
    }
}

/// `O_NONBLOCK`: opening a pipe returns at once and is then refused.
fn open_regular(file: &Path) -> io::Result<File> {
    let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(file)?;
    if open.metadata()?.is_file() {
        Ok(open)
    } else {
        Err(not_regular())
    }
}

fn not_regular() -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, "is not a regular file")
}

struct RealFile {
    file: File,
    flush_failed: bool,
}

impl Write for RealFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for RealFile {
    fn sync(&mut self) -> io::Result<()> {
        if self.flush_failed {
            return Err(io::Error::other("an earlier flush of this file failed"));
        }
        let flushed = self.file.sync_all();
        self.flush_failed = flushed.is_err();
        flushed
    }

    fn drop_cache(&mut self) {
        space::forget(&self.file);
    }
}
