//! One checkpoint on disk, checked.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_runtime::files::disk::Disk;
use lichen_runtime::{Error, Result};
use sha2::{Digest, Sha256};

use super::manifest::{hex, FileEntry, Manifest};
use super::{checkpoint_name, MANIFEST};

/// A manifest of a thousand files has 160 kB.
const MANIFEST_BYTES_MAX: u64 = 1 << 20;
const CHUNK_BYTES: usize = 1 << 16;

/// A checkpoint whose files had the lengths and hashes of its manifest when it was opened.
#[derive(Clone)]
pub struct Checkpoint {
    pub step: u64,
    /// The checkpoint that was the newest when this one was written.
    pub previous: Option<u64>,
    pub path: PathBuf,
    files: Vec<FileEntry>,
    disk: Arc<dyn Disk>,
}

impl Checkpoint {
    /// Reads the manifest and every file.
    ///
    /// # Errors
    /// The first thing that is wrong, without the path: `optimizer.safetensors differs from its manifest`.
    pub fn open(disk: &Arc<dyn Disk>, run: &Path, step: u64) -> Result<Checkpoint> {
        let path = run.join(checkpoint_name(step));
        let manifest = read_manifest(&**disk, &path, step)?;
        let (previous, files) = (manifest.previous, manifest.files);
        let checkpoint = Checkpoint { step, previous, path, files, disk: disk.clone() };
        for file in &checkpoint.files {
            checkpoint.check(file, &mut |_| {})?;
        }
        Ok(checkpoint)
    }

    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// The contents of a file, checked again: a disk may give other bytes than it gave a moment ago.
    ///
    /// # Errors
    /// The manifest does not list it, it cannot be read, or it has changed.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let listed = self.files.iter().find(|f| f.name == name);
        let file = listed.ok_or_else(|| Error::input(format!("holds no {name}")).in_file(&self.path))?;
        let mut bytes = Vec::new();
        self.check(file, &mut |chunk| bytes.extend_from_slice(chunk)).map_err(|e| e.in_file(&self.path))?;
        Ok(bytes)
    }

    fn check(&self, file: &FileEntry, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
        let (name, path) = (&file.name, self.path.join(&file.name));
        let len = self.disk.len(&path).map_err(|e| unreadable(name, &e))?;
        if len != file.bytes {
            let says = file.bytes;
            return Err(Error::input(format!("{name} is {len} bytes long; its manifest says {says}")));
        }
        let found = hash_file(&*self.disk, &path, file.bytes, sink).map_err(|e| unreadable(name, &e))?;
        if found.as_ref() != Some(&file.sha256) {
            return Err(Error::input(format!("{name} differs from its manifest")));
        }
        Ok(())
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint").field("step", &self.step).field("path", &self.path).finish_non_exhaustive()
    }
}

fn read_manifest(disk: &dyn Disk, folder: &Path, step: u64) -> Result<Manifest> {
    let io = |e: io::Error| unreadable(MANIFEST, &e);
    let mut bytes = Vec::new();
    let file = disk.open(&folder.join(MANIFEST)).map_err(io)?;
    file.take(MANIFEST_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(Error::input(format!("{MANIFEST} is longer than {MANIFEST_BYTES_MAX} bytes")));
    }
    Manifest::parse(&bytes, step)
}

fn unreadable(name: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::input(format!("{name} is missing")),
        _ => Error::input(format!("{name}: {error}")),
    }
}

/// sha256 in hexadecimal of a file of `len` bytes, each of which goes to `sink`; `None` when there are more or fewer.
pub fn hash_file(disk: &dyn Disk, path: &Path, len: u64, sink: &mut dyn FnMut(&[u8])) -> io::Result<Option<String>> {
    let mut file = disk.open(path)?;
    let mut hash = Sha256::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut n_read = 0;
    loop {
        let n = match file.read(&mut chunk) {
            Ok(0) => return Ok((n_read == len).then(|| hex(&hash.finalize()))),
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        n_read += n as u64;
        if n_read > len {
            return Ok(None);
        }
        hash.update(&chunk[..n]);
        sink(&chunk[..n]);
    }
}
