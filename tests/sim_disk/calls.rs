//! The calls of a disk, each of which may fail.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use lichen_runtime::files::disk::{Disk, DiskFile, DiskLock, EntryKind};

use super::fault::Call;
use super::{Lie, Node, Op, SimDisk};

/// A page: more than this is never taken by one write, so that files are written in pieces.
const WRITE_BYTES_MAX: usize = 4096;

impl Disk for SimDisk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.call(Call::TakesRoom)?;
        state.enter(path, Node::Folder(BTreeMap::new())).map(|_| ())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.faults.call(Call::Other)?;
        let dir = state.find(dir)?;
        Ok(state.names(dir)?.keys().cloned().collect())
    }

    fn kind(&self, path: &Path) -> io::Result<EntryKind> {
        let mut state = self.state();
        state.faults.call(Call::Other)?;
        let id = state.find(path)?;
        Ok(match state.nodes[id] {
            Node::Folder(_) => EntryKind::Folder,
            Node::File(_) => EntryKind::File,
            Node::Link(_) => EntryKind::Link,
        })
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn Read + Send>> {
        let mut state = self.state();
        state.faults.call(Call::Other)?;
        let id = state.find_file(file)?;
        Ok(Box::new(Reader { disk: self.clone(), id, at: 0 }))
    }

    fn len(&self, file: &Path) -> io::Result<u64> {
        let mut state = self.state();
        state.faults.call(Call::Other)?;
        let id = state.find_file(file)?;
        Ok(state.file(id).len() as u64)
    }

    fn create(&self, file: &Path, _len: u64) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.faults.call(Call::TakesRoom)?;
        let id = state.enter(file, Node::File(Vec::new()))?;
        let is_damaged = state.damages.is_some_and(|d| file.file_name().is_some_and(|n| n == d));
        Ok(Box::new(Writer { disk: self.clone(), id, n_syncs_max: 1, is_damaged }))
    }

    fn append(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.state();
        state.faults.call(Call::TakesRoom)?;
        let id = match state.find_file(file) {
            Err(e) if e.kind() == ErrorKind::NotFound => state.enter(file, Node::File(Vec::new()))?,
            other => other?,
        };
        Ok(Box::new(Writer { disk: self.clone(), id, n_syncs_max: usize::MAX, is_damaged: false }))
    }

    fn truncate(&self, file: &Path, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.faults.call(Call::Other)?;
        let file = state.find_file(file)?;
        state.change(Op::Cut { file, len: len as usize });
        state.faults.call(Call::Other)?;
        state.log.push(Op::SyncFile { file, is_ok: true });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.call(Call::TakesRoom)?;
        let id = state.find(from)?;
        let ((dir, from), (to_dir, to)) = (state.split(from)?, state.split(to)?);
        assert_eq!(dir, to_dir, "a rename across folders is not atomic");
        if let Some(target) = state.names(dir)?.get(&to) {
            match (&state.nodes[id], &state.nodes[*target]) {
                (Node::Folder(_), Node::Folder(held)) if held.is_empty() => {}
                (Node::Folder(_), Node::Folder(_)) => return Err(ErrorKind::DirectoryNotEmpty.into()),
                (Node::Folder(_), _) => return Err(ErrorKind::NotADirectory.into()),
                (_, Node::Folder(_)) => return Err(ErrorKind::IsADirectory.into()),
                _ => {}
            }
        }
        state.change(Op::Move { dir, from, to, id });
        Ok(())
    }

    fn remove_file(&self, file: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.call(Call::Other)?;
        let id = state.find(file)?;
        if matches!(state.nodes[id], Node::Folder(_)) {
            return Err(ErrorKind::IsADirectory.into());
        }
        state.leave(file);
        Ok(())
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.call(Call::Other)?;
        let id = state.find(dir)?;
        if !state.names(id)?.is_empty() {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        state.leave(dir);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let dir = state.find(dir)?;
        state.names(dir)?;
        state.faults.call(Call::TakesRoom)?;
        if state.lie != Lie::Folders {
            state.log.push(Op::SyncDir { dir });
        }
        Ok(())
    }

    fn link(&self, target: &str, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.faults.call(Call::TakesRoom)?;
        state.enter(path, Node::Link(target.to_string())).map(|_| ())
    }

    fn read_link(&self, path: &Path) -> io::Result<String> {
        let mut state = self.state();
        state.faults.call(Call::Other)?;
        let id = state.find(path)?;
        match &state.nodes[id] {
            Node::Link(target) => Ok(target.clone()),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    fn free_bytes(&self, _dir: &Path) -> Option<u64> {
        self.state().free_bytes
    }

    fn lock(&self, _file: &Path) -> io::Result<DiskLock> {
        Ok(DiskLock::unshared())
    }
}

struct Reader {
    disk: SimDisk,
    id: usize,
    at: usize,
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        let is_short = state.faults.call(Call::Moves)?;
        let bytes = &state.file(self.id)[self.at..];
        let n = bytes.len().min(out.len());
        let n = if is_short { n.div_ceil(2) } else { n };
        out[..n].copy_from_slice(&bytes[..n]);
        self.at += n;
        Ok(n)
    }
}

struct Writer {
    disk: SimDisk,
    id: usize,
    /// What is written once is flushed once; a second flush could report the success that the first did not have.
    n_syncs_max: usize,
    is_damaged: bool,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.disk.state();
        let is_short = state.faults.call(Call::MovesIn)?;
        let n = bytes.len().min(WRITE_BYTES_MAX);
        let n = if is_short { n.div_ceil(2) } else { n };
        let mut bytes = bytes[..n].to_vec();
        if let Some(last) = bytes.last_mut().filter(|_| self.is_damaged) {
            *last ^= 0x10;
        }
        let (file, at) = (self.id, state.file(self.id).len());
        state.change(Op::Write { file, at, bytes });
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for Writer {
    fn sync(&mut self) -> io::Result<()> {
        assert!(self.n_syncs_max > 0, "flushed again after a flush");
        self.n_syncs_max -= 1;
        let mut state = self.disk.state();
        let called = state.faults.call(Call::TakesRoom).map(|_| ());
        let (file, is_ok) = (self.id, called.is_ok());
        if state.lie != Lie::Files {
            state.log.push(Op::SyncFile { file, is_ok });
        }
        if !is_ok {
            self.n_syncs_max = 0;
        }
        called
    }

    fn drop_cache(&mut self) {}
}
