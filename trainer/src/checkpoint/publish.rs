//! Which checkpoint is in service: the link `current`, and `previous`, to which it can be moved back.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

use lichen_runtime::files::disk::{Disk, DiskLock, EntryKind};
use lichen_runtime::{Error, Result};

use super::{checkpoint_name, is_plain_name, step_of, Checkpoint, CHECKPOINT_PREFIX, LINKS_LOCK};

/// Links in the run folder to what is in service, and to what was before.
pub const CURRENT: &str = "current";
pub const PREVIOUS: &str = "previous";

/// Removing a checkpoint takes well under this.
const N_TRIES: usize = 50;
const WAIT_BETWEEN: Duration = Duration::from_millis(100);

/// Moves `current` to the folder `target` of the run, and `previous` to where `current` was. A reader of `current` sees
/// the old folder or the new one. A checkpoint is checked whole first.
///
/// # Errors
/// The target is not a folder of the run or not a sound checkpoint; nothing has moved then.
pub fn publish(disk: &Arc<dyn Disk>, run: &Path, target: &str) -> Result<()> {
    let _lock = wait_for_links(&**disk, run)?;
    check_target(disk, run, target)?;
    let before = read_link(&**disk, run, CURRENT)?;
    if let Some(before) = before.filter(|b| b != target) {
        point(&**disk, run, PREVIOUS, &before)?;
    }
    point(&**disk, run, CURRENT, target)
}

/// Moves `current` to where `previous` points, and returns where it was and where it is. `previous` stays.
///
/// # Errors
/// There is nothing to go back to, or it is no longer sound; nothing has moved then.
pub fn rollback(disk: &Arc<dyn Disk>, run: &Path) -> Result<(String, String)> {
    let _lock = wait_for_links(&**disk, run)?;
    let (current, previous) = (read_link(&**disk, run, CURRENT)?, read_link(&**disk, run, PREVIOUS)?);
    let refuse = |what: String| Err(Error::input(what).in_file(run));
    match (current, previous) {
        (None, _) => refuse("nothing is published here".to_string()),
        (Some(current), None) => refuse(format!("{current} is the first that was published: none to go back to")),
        (Some(current), Some(previous)) if current == previous => {
            refuse(format!("{current} is what was published before: publish another by name"))
        }
        (Some(current), Some(previous)) => {
            check_target(disk, run, &previous)?;
            point(&**disk, run, CURRENT, &previous)?;
            Ok((current, previous))
        }
    }
}

/// What `current` points to.
///
/// # Errors
/// `current` cannot be read, or is no link.
pub fn published(disk: &dyn Disk, run: &Path) -> Result<Option<String>> {
    read_link(disk, run, CURRENT)
}

/// What must not be removed.
pub fn published_names(disk: &dyn Disk, run: &Path) -> Result<Vec<String>> {
    let links = [read_link(disk, run, CURRENT)?, read_link(disk, run, PREVIOUS)?];
    Ok(links.into_iter().flatten().collect())
}

/// The lock under which links move and checkpoints go; `None` when somebody holds it.
pub fn lock_links(disk: &dyn Disk, run: &Path) -> Result<Option<DiskLock>> {
    let path = run.join(LINKS_LOCK);
    match disk.lock(&path) {
        Ok(lock) => Ok(Some(lock)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(e) => Err(Error::io(&path, &e)),
    }
}

fn wait_for_links(disk: &dyn Disk, run: &Path) -> Result<DiskLock> {
    for _ in 0..N_TRIES {
        if let Some(lock) = lock_links(disk, run)? {
            return Ok(lock);
        }
        sleep(WAIT_BETWEEN);
    }
    Err(Error::input("somebody else publishes here or removes checkpoints: try again").in_file(run))
}

fn check_target(disk: &Arc<dyn Disk>, run: &Path, target: &str) -> Result<()> {
    let refuse = |what: &str| Err(Error::input(format!("\"{target}\" {what}")).in_file(run));
    if !is_plain_name(target) || target == CURRENT || target == PREVIOUS {
        return refuse("is not the name of a folder in this run");
    }
    match disk.kind(&run.join(target)) {
        Ok(EntryKind::Folder) => {}
        Ok(_) => return refuse("is not a folder"),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return refuse("is not there"),
        Err(e) => return Err(Error::io(&run.join(target), &e)),
    }
    match step_of(target) {
        Some(step) => match Checkpoint::open(disk, run, step) {
            Ok(_) => Ok(()),
            Err(e) => {
                Err(Error::input(format!("{} is not published: {}", checkpoint_name(step), e.message())).in_file(run))
            }
        },
        None if target.starts_with(CHECKPOINT_PREFIX) => refuse("is not named as a checkpoint is"),
        None => Ok(()),
    }
}

fn point(disk: &dyn Disk, run: &Path, name: &str, target: &str) -> Result<()> {
    let temporary = run.join(format!(".link-{name}"));
    disk.replace_link(&run.join(name), &temporary, target).map_err(|e| Error::io(&run.join(name), &e))
}

fn read_link(disk: &dyn Disk, run: &Path, name: &str) -> Result<Option<String>> {
    match disk.read_link(&run.join(name)) {
        Ok(target) => Ok(Some(target)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io(&run.join(name), &e)),
    }
}
