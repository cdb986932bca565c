//! Which checkpoints go, and in which order their files do.

use std::io;
use std::path::Path;

use lichen_runtime::files::disk::{Disk, EntryKind};
use lichen_runtime::{Error, Result};

use super::publish::{lock_links, published_names};
use super::{checkpoint_name, Store, MANIFEST};

impl Store {
    /// Removes what is too old, the oldest first, after `saved` was acknowledged. The newest good ones stay, and so do the
    /// pinned one and what is published; those that recovery turned down stay only while there are not enough good ones.
    pub(super) fn prune(&self, saved: u64) -> Result<()> {
        // Somebody publishes just now, and may be about to point to the oldest.
        let Some(_lock) = lock_links(&*self.disk, &self.run)? else { return Ok(()) };
        let published = published_names(&*self.disk, &self.run)?;
        let (steps, _) = self.checkpoints()?;
        let (bad, good): (Vec<u64>, Vec<u64>) = steps.iter().partition(|s| self.rejected.contains(s));
        let n_bad_kept = self.n_kept.saturating_sub(good.len());
        let kept: Vec<u64> = good.into_iter().take(self.n_kept).chain(bad.into_iter().take(n_bad_kept)).collect();
        for step in steps.into_iter().rev() {
            let name = checkpoint_name(step);
            let stays = step == saved || self.pinned == Some(step) || kept.contains(&step) || published.contains(&name);
            if !stays {
                remove_checkpoint(&*self.disk, &self.run.join(name))?;
            }
        }
        Ok(())
    }
}

/// Without its commit record first: whatever a crash leaves of it is never taken for a checkpoint.
pub fn remove_checkpoint(disk: &dyn Disk, path: &Path) -> Result<()> {
    let removed = match disk.kind(path) {
        // A link to a folder elsewhere: what it points to is not ours.
        Ok(EntryKind::Folder) => uncommit(disk, path).and_then(|()| disk.remove_all(path)),
        Ok(_) => disk.remove_file(path),
        Err(e) => Err(e),
    };
    removed.map_err(|e| Error::io(path, &e))
}

fn uncommit(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    match disk.remove_file(&path.join(MANIFEST)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => disk.sync_dir(path),
    }
}
