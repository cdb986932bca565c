//! Checkpoints of a run, which survive a crash at any point.
//!
//! ```text
//! run/ lock  metrics.jsonl  latest                 # latest is a hint for people; nothing here reads it
//!      step-00001200/ MANIFEST and the files that it lists
//!      step-00001100/ ...
//!      current -> step-00001100    previous -> ..   # what is published
//! ```
//!
//! A checkpoint is written as `.tmp-00001200`, each file hashed on its way, flushed and read back; MANIFEST, which holds
//! the hashes and its own, comes last and is the commit record. The rename to `step-00001200` and the flush of the run
//! folder acknowledge it. Recovery trusts hashes alone and takes the newest checkpoint that passes.

mod journal;
mod manifest;
mod on_disk;
mod prune;
mod publish;
mod save;
mod store;

pub use journal::{cut_after_step, Cut};
pub use manifest::FileEntry;
pub use on_disk::Checkpoint;
pub use publish::{publish, published, rollback, CURRENT, PREVIOUS};
pub use save::CheckpointFile;
pub use store::{Recovered, Store, CHECKPOINTS_KEPT};

/// The commit record of a checkpoint.
const MANIFEST: &str = "MANIFEST";
/// The name of the newest checkpoint, for people.
const LATEST: &str = "latest";
/// Held by the trainer for as long as it runs.
const LOCK: &str = "lock";
/// Held for the moment in which links move or checkpoints are removed.
const LINKS_LOCK: &str = ".links-lock";
const CHECKPOINT_PREFIX: &str = "step-";
/// What is being written; swept at any time.
pub(crate) const TEMPORARY_PREFIX: &str = ".tmp-";
/// A checkpoint that makes way for another of the same step.
const REPLACED_PREFIX: &str = ".replaced-";

fn checkpoint_name(step: u64) -> String {
    format!("{CHECKPOINT_PREFIX}{step:08}")
}

/// The step of a name that [`checkpoint_name`] gives.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix(CHECKPOINT_PREFIX)?.parse().ok()?;
    (checkpoint_name(step) == name).then_some(step)
}

/// Names that stay inside their folder and need no escape: `[A-Za-z0-9._-]+`, no dot in front.
fn is_plain_name(name: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_plain)
}
