//! `metrics.jsonl` while it grows. A disk that refuses costs rows, never the run.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use lichen_runtime::files::disk::jsonl::repair_tail;
use lichen_runtime::files::disk::{parent_of, Disk, DiskFile};

use crate::job::{Note, Observer};

/// A file of lines, opened when it is needed.
pub struct Journal {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Option<Box<dyn DiskFile>>,
    /// Whether the file's name survives a power cut: a checkpoint that outlives its rows would leave a hole above them.
    has_name: bool,
    warned: bool,
}

impl Journal {
    pub fn new(disk: Arc<dyn Disk>, path: PathBuf) -> Journal {
        Journal { disk, path, file: None, has_name: false, warned: false }
    }

    /// Adds a line, with its line break.
    pub fn append(&mut self, line: &str, observer: &mut dyn Observer) {
        let written = self.write(line);
        self.report(written, observer);
    }

    /// Makes what was written survive a power cut. The file is opened anew for the next line: one that could not be flushed
    /// must not be flushed again.
    pub fn sync(&mut self, observer: &mut dyn Observer) {
        let Some(mut file) = self.file.take() else { return };
        let synced = file.sync().and_then(|()| self.sync_name());
        self.report(synced, observer);
    }

    fn sync_name(&mut self) -> io::Result<()> {
        if !self.has_name {
            self.disk.sync_dir(parent_of(&self.path))?;
            self.has_name = true;
        }
        Ok(())
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => {
                // An earlier failure may have left half a line.
                repair_tail(&*self.disk, &self.path).map_err(|e| io::Error::other(e.to_string()))?;
                self.disk.append(&self.path)?
            }
        };
        file.write_all(line.as_bytes())?;
        self.file = Some(file);
        Ok(())
    }

    fn report(&mut self, result: io::Result<()>, observer: &mut dyn Observer) {
        if let Err(error) = result {
            if !self.warned {
                observer.note(&Note::new(format!("{}: {error}; rows are lost, training goes on", self.path.display())));
            }
            self.warned = true;
        }
    }
}
