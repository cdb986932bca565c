//! What the standard library does not offer: how much room a file system has, room reserved for a file, pages forgotten.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that this user may still write on the file system of `directory`; `None` when the system does not say.
pub fn free_bytes(directory: &Path) -> Option<u64> {
    let path = CString::new(directory.as_os_str().as_bytes()).ok()?;
    let mut stat = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY:
    // - `path` is a NUL-terminated string that lives until the call returns.
    // - `stat` has room for one statvfs, which is all the call writes.
    let status = unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) };
    if status != 0 {
        return None;
    }
    // SAFETY:
    // - The call succeeded, so it filled the structure.
    let stat = unsafe { stat.assume_init() };
    // The fields are 32 bits wide on some targets.
    #[allow(clippy::useless_conversion)]
    Some(u64::from(stat.f_bavail).saturating_mul(u64::from(stat.f_frsize)))
}

/// The name of the file system of `directory` when it is one of the memory cards' without a journal.
#[cfg(target_os = "linux")]
pub fn journal_free(directory: &Path) -> Option<&'static str> {
    // The magic numbers of statfs(2).
    const NAMES: [(u32, &str); 2] = [(0x4D44, "FAT"), (0x2011_BAB0, "exFAT")];
    let path = CString::new(directory.as_os_str().as_bytes()).ok()?;
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY:
    // - `path` is a NUL-terminated string that lives until the call returns.
    // - `stat` has room for one statfs, which is all the call writes.
    let status = unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) };
    if status != 0 {
        return None;
    }
    // SAFETY:
    // - The call succeeded, so it filled the structure.
    let stat = unsafe { stat.assume_init() };
    // 32 bits wide on some targets, and signed on some.
    NAMES.iter().find(|(magic, _)| *magic == stat.f_type as u32).map(|(_, name)| *name)
}

#[cfg(not(target_os = "linux"))]
pub fn journal_free(_directory: &Path) -> Option<&'static str> {
    None
}

/// Reserves room for the first `len` bytes and leaves the file's length as it is. A file system that cannot reserve is
/// no error: its `ENOSPC` comes later.
#[cfg(target_os = "linux")]
pub fn reserve(file: &File, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    let Ok(len) = libc::off64_t::try_from(len) else { return Err(io::ErrorKind::FileTooLarge.into()) };
    if len == 0 {
        return Ok(());
    }
    loop {
        // SAFETY:
        // - The call takes numbers alone; `file` keeps its descriptor open.
        let status = unsafe { libc::fallocate64(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, 0, len) };
        if status == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL) => return Ok(()),
            _ => return Err(error),
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub fn reserve(_file: &File, _len: u64) -> io::Result<()> {
    Ok(())
}

/// Drops the file's flushed pages, so that the next read comes from the device. A hint.
#[cfg(target_os = "linux")]
pub fn forget(file: &File) {
    use std::os::fd::AsRawFd;

    // SAFETY:
    // - The call takes numbers alone; `file` keeps its descriptor open.
    let status = unsafe { libc::posix_fadvise64(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    if status != 0 {
        log::debug!("posix_fadvise: {}", io::Error::from_raw_os_error(status));
    }
}

#[cfg(not(target_os = "linux"))]
pub fn forget(_file: &File) {}
