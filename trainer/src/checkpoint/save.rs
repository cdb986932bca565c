//! How a checkpoint is written. Whatever fails, the checkpoints before it are as they were.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use lichen_runtime::escape::thousands;
use lichen_runtime::files::disk::DiskFile;
use lichen_runtime::{Error, Result};
use sha2::{Digest, Sha256};

use super::manifest::{hex, is_file_name, FileEntry, Manifest};
use super::on_disk::hash_file;
use super::{checkpoint_name, Checkpoint, Store, LATEST, MANIFEST, REPLACED_PREFIX, TEMPORARY_PREFIX};

/// A card writes blocks of 128 KiB and more at full speed.
const BUFFER_BYTES: usize = 1 << 18;

/// One file of a checkpoint: its name and what writes it.
pub struct CheckpointFile<'a> {
    /// `[A-Za-z0-9._-]+`, no dot in front, not `MANIFEST`.
    pub name: &'a str,
    /// Exactly as many bytes are written.
    pub len: u64,
    /// Writes the same bytes each time it is called.
    pub write: &'a dyn Fn(&mut dyn Write) -> io::Result<()>,
}

impl Store {
    /// Writes a checkpoint; all its values are finite, which the caller has checked. When it returns, the checkpoint
    /// survives a power cut; the checkpoints that have become too many are then removed.
    ///
    /// # Errors
    /// Too little room, or the disk refuses, or gives back other bytes than it was given. Training can go on: nothing older
    /// has changed, and the next save begins anew with new files.
    pub fn save(&mut self, step: u64, files: &[CheckpointFile<'_>]) -> Result<()> {
        check_names(files);
        self.settle()?;
        self.refuse_full(files)?;
        let temporary = self.run.join(format!("{TEMPORARY_PREFIX}{step:08}"));
        let saved = self.write_checkpoint(&temporary, step, files).and_then(|m| self.put_in_place(&temporary, &m));
        if let Err(error) = saved {
            if let Err(e) = self.disk.remove_all(&temporary) {
                log::warn!("{}: leftover not removed: {e}", temporary.display());
            }
            return Err(error);
        }
        self.rejected.remove(&step);
        // The checkpoint is safe; what is left to do can wait for the next one.
        if let Err(e) = self.point_latest(step) {
            log::warn!("{e}");
        }
        if let Err(e) = self.prune(step) {
            log::warn!("{e}");
        }
        Ok(())
    }

    /// Half as much again as is written: file systems keep some for themselves, and metrics grow in between.
    fn refuse_full(&self, files: &[CheckpointFile<'_>]) -> Result<()> {
        let n_bytes = files.iter().map(|f| f.len).fold(0, u64::saturating_add);
        let needed = n_bytes.saturating_add(n_bytes / 2);
        match self.disk.free_bytes(&self.run) {
            Some(free) if free < needed => Err(Error::limit(format!(
                "a checkpoint of {} bytes needs {} free, and {} are: free {} more",
                thousands(n_bytes),
                thousands(needed),
                thousands(free),
                thousands(needed - free)
            ))
            .in_file(&self.run)),
            _ => Ok(()),
        }
    }

    /// Everything but the rename: when it returns, `temporary` is whole and durable.
    fn write_checkpoint(&self, temporary: &Path, step: u64, files: &[CheckpointFile<'_>]) -> Result<Manifest> {
        let previous = self.checkpoints()?.0.into_iter().find(|s| *s != step);
        self.disk.create_dir(temporary).map_err(|e| Error::io(temporary, &e))?;
        let mut manifest = Manifest { step, previous, files: Vec::with_capacity(files.len()) };
        for file in files {
            manifest.files.push(self.write_file(temporary, file)?);
        }
        let bytes = manifest.to_bytes();
        let write = |out: &mut dyn Write| out.write_all(&bytes);
        self.write_file(temporary, &CheckpointFile { name: MANIFEST, len: bytes.len() as u64, write: &write })?;
        self.disk.sync_dir(temporary).map_err(|e| Error::io(temporary, &e))?;
        Ok(manifest)
    }

    fn write_file(&self, folder: &Path, file: &CheckpointFile<'_>) -> Result<FileEntry> {
        let path = folder.join(file.name);
        let io = |e: io::Error| Error::io(&path, &e);
        let out = self.disk.create(&path, file.len).map_err(io)?;
        let sink = HashedFile { out, hash: Sha256::new(), n_left: file.len };
        let mut buffer = BufWriter::with_capacity(BUFFER_BYTES.min(file.len as usize + 1), sink);
        (file.write)(&mut buffer).map_err(io)?;
        let HashedFile { mut out, hash, n_left } = buffer.into_inner().map_err(|e| io(e.into_error()))?;
        if n_left != 0 {
            return Err(
                Error::input(format!("{n_left} of {} announced bytes were not written", file.len)).in_file(&path)
            );
        }
        out.sync().map_err(io)?;
        // Only flushed pages are dropped; the next read asks the device what it has.
        out.drop_cache();
        drop(out);
        let sha256 = hex(&hash.finalize());
        let found = hash_file(&*self.disk, &path, file.len, &mut |_| {}).map_err(io)?;
        if found.as_ref() != Some(&sha256) {
            return Err(
                Error::input("the disk gives back other bytes than were written: it may be failing").in_file(&path)
            );
        }
        Ok(FileEntry { name: file.name.to_string(), bytes: file.len, sha256 })
    }

    /// The rename and the flush of the run folder: the checkpoint is acknowledged when it returns. A failed flush leaves
    /// the checkpoint in place: it is whole, and whether its name is durable is not known.
    fn put_in_place(&self, temporary: &Path, manifest: &Manifest) -> Result<()> {
        let name = checkpoint_name(manifest.step);
        let target = self.run.join(&name);
        let io = |e: io::Error| Error::io(&target, &e);
        let is_taken = match self.disk.kind(&target) {
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(io(e)),
        };
        if !is_taken {
            self.disk.rename(temporary, &target).map_err(io)?;
            return self.disk.sync_dir(&self.run).map_err(io);
        }
        // A step that is trained again has the same bytes, as a rule: a link that points there is not disturbed.
        if Checkpoint::open(&self.disk, &self.run, manifest.step).is_ok_and(|g| g.files() == manifest.files) {
            self.disk.sync_dir(&self.run).map_err(io)?;
            return self.disk.remove_all(temporary).map_err(io);
        }
        // A crash between the two renames leaves a name that `settle` knows.
        let replaced = self.run.join(format!("{REPLACED_PREFIX}{:08}", manifest.step));
        self.disk.rename(&target, &replaced).map_err(io)?;
        if let Err(error) = self.disk.rename(temporary, &target) {
            if let Err(e) = self.disk.rename(&replaced, &target) {
                log::warn!("{}: put back at the next save: {e}", replaced.display());
            }
            return Err(io(error));
        }
        self.disk.sync_dir(&self.run).map_err(io)?;
        if let Err(e) = self.disk.remove_all(&replaced) {
            log::warn!("{}: leftover not removed: {e}", replaced.display());
        }
        Ok(())
    }

    fn point_latest(&self, step: u64) -> Result<()> {
        let text = checkpoint_name(step) + "\n";
        let temporary = self.run.join(format!("{TEMPORARY_PREFIX}{LATEST}"));
        self.disk.replace(&self.run.join(LATEST), &temporary, text.as_bytes()).map_err(|e| self.io(LATEST, &e))
    }
}

/// The trainer's own names.
fn check_names(files: &[CheckpointFile<'_>]) {
    for (i, file) in files.iter().enumerate() {
        assert!(is_file_name(file.name) && files[..i].iter().all(|f| f.name != file.name), "{:?}", file.name);
    }
}

/// Hashes what the file has taken, and takes no more than was announced.
struct HashedFile {
    out: Box<dyn DiskFile>,
    hash: Sha256,
    n_left: u64,
}

impl Write for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.n_left {
            return Err(io::Error::other("more bytes are written than were announced"));
        }
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.n_left -= n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
