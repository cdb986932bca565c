//! The folder of a run: new, and gone again when nothing was trained into it.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use lichen_runtime::files::disk::refuse_existing;
use lichen_runtime::{Error, Result};

/// Temporary folders of one process id that may be left from before.
const N_NAMES: usize = 100;

/// A folder that this program made. Dropped before [`RunFolder::keep`], it is removed.
pub struct RunFolder {
    path: PathBuf,
    is_temporary: bool,
    is_kept: bool,
}

impl RunFolder {
    /// Makes `out`, which must not exist, or a folder for this user alone among the system's temporary files.
    pub fn create(out: Option<&Path>) -> Result<RunFolder> {
        let path = match out {
            Some(out) => named(out)?,
            None => temporary(&std::env::temp_dir())?,
        };
        Ok(RunFolder { path, is_temporary: out.is_none(), is_kept: false })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn is_temporary(&self) -> bool {
        self.is_temporary
    }

    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(e) = fs::remove_dir_all(&self.path) {
            log::warn!("{}: not removed: {e}", self.path.display());
        }
    }
}

fn named(out: &Path) -> Result<PathBuf> {
    refuse_existing(out)?;
    if let Some(parent) = out.parent() {
        fs::create_dir_all(parent).map_err(|e| Error::io(parent, &e))?;
    }
    fs::create_dir(out).map_err(|e| Error::io(out, &e))?;
    Ok(out.to_path_buf())
}

fn temporary(parent: &Path) -> Result<PathBuf> {
    let id = std::process::id();
    for i in 0..N_NAMES {
        let path = parent.join(if i == 0 { format!("lichen-demo-{id}") } else { format!("lichen-demo-{id}-{i}") });
        // A folder that somebody else made, or a link, is never used.
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(Error::io(&path, &e)),
        }
    }
    Err(Error::input(format!("holds {N_NAMES} folders lichen-demo-{id}: use --out")).in_file(parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_go_unless_they_are_kept() {
        let parent = temporary(&std::env::temp_dir()).unwrap();
        let out = parent.join("runs/robot");
        drop(RunFolder::create(Some(&out)).unwrap());
        assert!(!out.exists() && out.parent().unwrap().is_dir());
        let mut folder = RunFolder::create(Some(&out)).unwrap();
        folder.keep();
        drop(folder);
        assert!(out.is_dir());
        let error = RunFolder::create(Some(&out)).err().expect("it exists");
        assert!(error.message().ends_with("robot: already exists: choose another name or remove it first"), "{error}");
        let (first, second) = (temporary(&parent).unwrap(), temporary(&parent).unwrap());
        assert_ne!(first, second);
        fs::remove_dir_all(&parent).unwrap();
    }
}
