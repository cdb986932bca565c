//! Files as byte slices: a read-only map of a whole regular file, shared by everything that points into it.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::{Advice, Mmap, UncheckedAdvice};

use crate::error::{Error, Result};

/// A regular file, mapped read-only from its first byte to its last. An `Arc` of it owns a
/// [`lichen_kernels::SharedBytes`].
///
/// Holding one proves that the length was right when the file was opened. It does not prove that the file stays as
/// long: when another process truncates it (or a USB stick is pulled), touching the lost pages raises SIGBUS.
/// [`MappedFile::check_length`] tells before.
pub struct MappedFile {
    path: PathBuf,
    file: File,
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
}

impl MappedFile {
    /// Maps `path`. Symbolic links are followed (model caches are made of them); what they lead to must be a regular
    /// file.
    ///
    /// # Errors
    /// The file cannot be opened or mapped, or it is a folder, pipe, socket or device.
    pub fn open(path: &Path) -> Result<Arc<MappedFile>> {
        let (file, len) = open_regular(path)?;
        let map = match len {
            0 => None,
            // SAFETY:
            // - The map is private to this value, read-only, and lives as long as the slices borrowed from it.
            // - Another process may truncate or rewrite the file: readers take every byte as untrusted, validate before
            //   use, and hold no reference whose validity depends on the contents (all views are bytes, not types).
            _ => Some(unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, &e))?),
        };
        let mapped = MappedFile { path: path.to_path_buf(), file, map };
        crate::signals::name_map(path, mapped.as_ref());
        Ok(Arc::new(mapped))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Starts reading `range` (bytes of the file) ahead, in the background. A hint: failures are ignored.
    pub fn advise_will_need(&self, range: Range<usize>) {
        self.advise(Advice::WillNeed, range);
    }

    /// Tells the kernel not to read ahead around accesses to `range`. A hint: failures are ignored.
    pub fn advise_random(&self, range: Range<usize>) {
        self.advise(Advice::Random, range);
    }

    /// Gives the pages of `range` back: they no longer count as this process's memory, and are read again from the file
    /// when touched. The page cache is asked to drop them too. A hint: failures are ignored.
    pub fn advise_dont_need(&self, range: Range<usize>) {
        let Some((map, range)) = self.inside(range) else { return };
        // SAFETY:
        // - The map is file-backed and never written to: dropped pages come back with the file's bytes.
        // - The range lies inside the map: `inside` clamped it.
        let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        // SAFETY:
        // - The descriptor is open: `file` is a field of self.
        // - The call takes no pointers.
        unsafe {
            libc::posix_fadvise(
                self.file.as_raw_fd(),
                range.start as libc::off_t,
                range.len() as libc::off_t,
                libc::POSIX_FADV_DONTNEED,
            )
        };
    }

    /// Refuses when the file is no longer as long as the map.
    pub fn check_length(&self) -> Result<()> {
        let now = self.file.metadata().map_err(|e| Error::io(&self.path, &e))?.len();
        let mapped = self.as_ref().len() as u64;
        if now < mapped {
            return Err(
                Error::input(format!("was cut from {mapped} to {now} bytes since it was opened")).in_file(&self.path)
            );
        }
        Ok(())
    }

    fn advise(&self, advice: Advice, range: Range<usize>) {
        if let Some((map, range)) = self.inside(range) {
            let _ = map.advise_range(advice, range.start, range.len());
        }
    }

    /// The part of `range` that lies inside the map; `None` when nothing does.
    fn inside(&self, range: Range<usize>) -> Option<(&Mmap, Range<usize>)> {
        let map = self.map.as_ref()?;
        let range = range.start..range.end.min(map.len());
        (range.start < range.end).then_some((map, range))
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

/// Opens a regular file for reading and returns its length in bytes. Non-blocking, because opening a pipe with no
/// writer would wait for ever.
///
/// # Errors
/// The file cannot be opened, or it is a folder, pipe, socket or device.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|e| Error::io(path, &e))?;
    let metadata = file.metadata().map_err(|e| Error::io(path, &e))?;
    if metadata.is_dir() {
        return Err(Error::input("is a folder; a file is expected").in_file(path));
    }
    if !metadata.is_file() {
        return Err(Error::input("is a pipe, socket or device; a regular file is expected").in_file(path));
    }
    Ok((file, metadata.len()))
}
