//! Checkpoints: what is left of them after power cuts at every point, faults of every call and flipped bits, and that it is
//! resumed from.

/// Every byte of a checkpoint flipped, files cut, manifests of others; the sentences about them.
mod damage;
/// The n-th call fails.
mod faults;
/// metrics.jsonl: torn ends, and the cut at resuming.
mod journal;
/// Power cuts at every point of a run, of a resumed run, of publishing.
mod power_cut;
/// Which checkpoints stay.
mod prune;
/// The links `current` and `previous`.
mod publish;
/// The file system of the machine.
mod real;

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use lichen_runtime::files::disk::Disk;
use lichen_runtime::Result;
use lichen_tests::formats::random::Random;
use lichen_tests::sim_disk::SimDisk;
use lichen_trainer::checkpoint::{Checkpoint, CheckpointFile, Recovered, Store};

const RUN: &str = "/run";

/// Names and contents of a checkpoint's files.
type Contents = Vec<(&'static str, Vec<u8>)>;

/// What is saved for a step: sizes around nothing, sectors and pages. `version` tells two trainings of a step apart.
fn contents(seed: u64, step: u64, version: u64) -> Contents {
    const SIZES: [usize; 8] = [0, 1, 511, 512, 513, 4096, 4097, 9000];
    let mut random = Random::new(seed ^ (step << 20) ^ (version << 8));
    let names = ["adapter_model.safetensors", "optimizer.safetensors", "state.json"];
    let mut file = |name| {
        let n = *random.pick(&SIZES);
        (name, (0..n).map(|_| random.number() as u8).collect())
    };
    names.map(&mut file).to_vec()
}

fn save(store: &mut Store, step: u64, contents: &Contents) -> Result<()> {
    type Writes<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;
    let writes: Vec<Writes<'_>> = contents
        .iter()
        .map(|(_, bytes)| -> Writes<'_> {
            Box::new(move |out: &mut dyn Write| bytes.chunks(1000).try_for_each(|piece| out.write_all(piece)))
        })
        .collect();
    let files: Vec<CheckpointFile<'_>> = contents
        .iter()
        .zip(&writes)
        .map(|((name, bytes), write)| CheckpointFile { name, len: bytes.len() as u64, write: &**write })
        .collect();
    store.save(step, &files)
}

fn open(disk: &SimDisk) -> Store {
    Store::open(disk.shared(), Path::new(RUN)).unwrap_or_else(|e| panic!("{e}"))
}

fn recover(store: &mut Store) -> Result<Option<Recovered>> {
    store.recover(&|_| Ok(()))
}

/// Step and contents of what recovery gives; `None` for a run without a checkpoint.
fn recovered(store: &mut Store) -> Result<Option<(u64, Contents)>> {
    let Some(found) = recover(store)? else { return Ok(None) };
    Ok(Some((found.checkpoint.step, read_all(&found.checkpoint)?)))
}

fn read_all(checkpoint: &Checkpoint) -> Result<Contents> {
    let names = contents(0, 0, 0).into_iter().map(|(name, _)| name);
    assert_eq!(checkpoint.files().len(), 3);
    names.map(|name| Ok((name, checkpoint.read(name)?))).collect()
}

/// A run with these steps saved.
fn saved_run(seed: u64, steps: &[u64]) -> SimDisk {
    let disk = SimDisk::new();
    let mut store = open(&disk);
    for step in steps {
        save(&mut store, *step, &contents(seed, *step, 0)).unwrap_or_else(|e| panic!("step {step}: {e}"));
    }
    disk
}

/// What the run folder holds.
fn run_names(disk: &SimDisk) -> Vec<String> {
    let disk: Arc<dyn Disk> = disk.shared();
    disk.names(Path::new(RUN)).unwrap_or_else(|e| panic!("{e}"))
}

fn checkpoint_names(disk: &SimDisk) -> Vec<String> {
    run_names(disk).into_iter().filter(|n| n.starts_with("step-")).collect()
}

/// Half-written things: none may be left after a store was opened or a save returned. A half-moved link is the next
/// publisher's, who holds the lock for it.
fn leftovers(disk: &SimDisk) -> Vec<String> {
    run_names(disk).into_iter().filter(|n| n.starts_with('.') && !n.starts_with(".link")).collect()
}
