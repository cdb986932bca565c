//! The checkpoints of one run: opened, recovered, cleared. Saving is in `save.rs`.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_runtime::files::disk::{Disk, DiskLock};
use lichen_runtime::{Error, Result};

use super::prune::remove_checkpoint;
use super::publish::published_names;
use super::{checkpoint_name, step_of, Checkpoint};
use super::{CHECKPOINT_PREFIX, LATEST, LOCK, REPLACED_PREFIX, TEMPORARY_PREFIX};
use crate::setting::{OUT, RESTART};

/// Two may be damaged and the run goes on.
pub const CHECKPOINTS_KEPT: usize = 3;

/// The checkpoints of a run folder, and the lock that makes this trainer their only writer.
pub struct Store {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) run: PathBuf,
    /// Newest checkpoints that stay.
    pub(super) n_kept: usize,
    /// A checkpoint that stays whatever its age: the best so far.
    pub(super) pinned: Option<u64>,
    /// Checkpoints that recovery turned down: the first to go when room is made.
    pub(super) rejected: BTreeSet<u64>,
    _lock: DiskLock,
}

/// The newest sound checkpoint, and one line for each newer one.
#[derive(Debug)]
pub struct Recovered {
    pub checkpoint: Checkpoint,
    /// `step 1200 skipped: optimizer.safetensors differs from its manifest`.
    pub rejected: Vec<String>,
}

impl Store {
    /// Creates the run folder if need be and takes its lock, which is held until the store is dropped.
    ///
    /// # Errors
    /// Another process holds the lock, or the folder cannot be written.
    pub fn open(disk: Arc<dyn Disk>, run: &Path) -> Result<Store> {
        disk.create_dirs(run).map_err(|e| Error::io(run, &e))?;
        if let Some(name) = disk.journal_free(run) {
            let run = run.display();
            log::warn!("{run}: is on {name}, where a power cut may cost more than one checkpoint: ext4 is safer");
        }
        let lock = disk.lock(&run.join(LOCK)).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => {
                Error::input(format!("another trainer is at work in this folder: wait for it, or choose another {OUT}"))
                    .in_file(run)
            }
            _ => Error::io(&run.join(LOCK), &e),
        })?;
        let (run, rejected) = (run.to_path_buf(), BTreeSet::new());
        let store = Store { disk, run, n_kept: CHECKPOINTS_KEPT, pinned: None, rejected, _lock: lock };
        store.settle()?;
        Ok(store)
    }

    /// How many of the newest checkpoints stay; at least one.
    pub fn keep(&mut self, n_checkpoints: usize) {
        assert!(n_checkpoints >= 1);
        self.n_kept = n_checkpoints;
    }

    /// Keeps the checkpoint of `step` beside the newest ones. It is not recorded: pin again after a start.
    pub fn pin(&mut self, step: Option<u64>) {
        self.pinned = step;
    }

    /// The newest checkpoint that is sound and that `accept` takes: fingerprints, finite values. `None` only when the run
    /// has no checkpoint at all.
    ///
    /// # Errors
    /// There are checkpoints and none is valid; the sentence says what is wrong with each.
    pub fn recover(&mut self, accept: &dyn Fn(&Checkpoint) -> Result<()>) -> Result<Option<Recovered>> {
        self.settle()?;
        let (steps, unrecognised) = self.checkpoints()?;
        let n_checkpoints = steps.len() + unrecognised.len();
        let mut rejected = Vec::new();
        for step in steps {
            let opened = Checkpoint::open(&self.disk, &self.run, step);
            match opened.and_then(|g| accept(&g).map(|()| g)) {
                Ok(checkpoint) => {
                    self.acknowledge_again();
                    return Ok(Some(Recovered { checkpoint, rejected }));
                }
                Err(e) => {
                    rejected.push(format!("step {step} skipped: {}", e.message()));
                    self.rejected.insert(step);
                }
            }
        }
        rejected.extend(unrecognised.iter().map(|name| format!("{name} skipped: no checkpoint has such a name")));
        if n_checkpoints == 0 {
            return Ok(None);
        }
        let reasons = rejected.join("; ");
        let what = format!("{reasons}; no valid checkpoint of {n_checkpoints} (start over with {RESTART})");
        Err(Error::input(what).in_file(&self.run))
    }

    /// Removes every checkpoint and leftover; a crash on the way leaves the newest, so that nothing older is resumed.
    ///
    /// # Errors
    /// A published checkpoint would go, or the disk refuses.
    pub fn clear(&mut self) -> Result<()> {
        self.settle()?;
        let (steps, unrecognised) = self.checkpoints()?;
        let names: Vec<String> =
            unrecognised.into_iter().chain(steps.iter().rev().map(|s| checkpoint_name(*s))).collect();
        if let Some(name) = published_names(&*self.disk, &self.run)?.iter().find(|n| names.contains(n)) {
            let what = format!("{name} is published, and {RESTART} would remove it: choose another {OUT}");
            return Err(Error::input(what).in_file(&self.run));
        }
        for name in names {
            remove_checkpoint(&*self.disk, &self.run.join(name))?;
        }
        self.disk.remove_all(&self.run.join(LATEST)).map_err(|e| self.io(LATEST, &e))?;
        self.disk.sync_dir(&self.run).map_err(|e| Error::io(&self.run, &e))?;
        self.rejected.clear();
        Ok(())
    }

    /// Puts a crash's leftovers in order: a checkpoint that had made way for another of its step and was not followed by
    /// it comes back; what was being written goes, and what cannot be removed waits for the next time.
    pub(super) fn settle(&self) -> Result<()> {
        for name in self.names()? {
            let path = self.run.join(&name);
            if let Some(digits) = name.strip_prefix(REPLACED_PREFIX) {
                self.settle_replaced(&path, &self.run.join(format!("{CHECKPOINT_PREFIX}{digits}")))?;
            } else if name.starts_with(TEMPORARY_PREFIX) {
                if let Err(e) = self.disk.remove_all(&path) {
                    log::warn!("{}: leftover not removed: {e}", path.display());
                }
            }
        }
        Ok(())
    }

    fn settle_replaced(&self, replaced: &Path, target: &Path) -> Result<()> {
        let settled = match self.disk.kind(target) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.disk.rename(replaced, target).and_then(|()| self.disk.sync_dir(&self.run))
            }
            // The follower is here to stay before the other goes.
            _ => self.disk.sync_dir(&self.run).and_then(|()| self.disk.remove_all(replaced)),
        };
        settled.map_err(|e| Error::io(replaced, &e))
    }

    /// A trainer that was killed leaves renames that are seen but not yet durable; what recovery reports shall be. A disk
    /// that cannot do this now will say so at the next save.
    fn acknowledge_again(&self) {
        if let Err(e) = self.disk.sync_dir(&self.run) {
            log::warn!("{}: {e}", self.run.display());
        }
    }

    /// Steps of the checkpoints, newest first, and names that look like one and are none.
    pub(super) fn checkpoints(&self) -> Result<(Vec<u64>, Vec<String>)> {
        let names = self.names()?;
        let (ours, unrecognised): (Vec<String>, Vec<String>) =
            names.into_iter().filter(|n| n.starts_with(CHECKPOINT_PREFIX)).partition(|n| step_of(n).is_some());
        let mut steps: Vec<u64> = ours.iter().filter_map(|n| step_of(n)).collect();
        steps.sort_by_key(|step| Reverse(*step));
        Ok((steps, unrecognised))
    }

    fn names(&self) -> Result<Vec<String>> {
        self.disk.names(&self.run).map_err(|e| Error::io(&self.run, &e))
    }

    pub(super) fn io(&self, name: &str, error: &io::Error) -> Error {
        Error::io(&self.run.join(name), error)
    }
}
