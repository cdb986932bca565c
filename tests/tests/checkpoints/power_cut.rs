//! Power cuts at every point. The oracle: recovery succeeds, gives a step that is not older than the last acknowledged one
//! with exactly what was saved for it, and the run goes on from there.

use std::collections::BTreeSet;
use std::io::Write;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

use lichen_runtime::files::disk::{Disk, EntryKind};
use lichen_tests::formats::random::{n_inputs, seed, Random};
use lichen_trainer::checkpoint::{publish, published, rollback, Checkpoint, Store};

use crate::{contents, leftovers, open, recovered, save, RUN};
use lichen_tests::sim_disk::{Fault, FaultKind, Lie, SimDisk, Survival};

/// A save of a scenario, with its place in the log of changes.
#[derive(Debug)]
struct Saved {
    step: u64,
    version: u64,
    began: usize,
    acknowledged: usize,
}

struct Scenario {
    seed: u64,
    disk: SimDisk,
    saves: Vec<Saved>,
}

impl Scenario {
    fn new(seed: u64, lie: Lie) -> Scenario {
        let disk = SimDisk::new();
        disk.set_lie(lie);
        Scenario { seed, disk, saves: Vec::new() }
    }

    fn save(&mut self, store: &mut Store, step: u64, version: u64) {
        let began = self.disk.log_len();
        save(store, step, &contents(self.seed, step, version)).unwrap_or_else(|e| panic!("step {step}: {e}"));
        self.saves.push(Saved { step, version, began, acknowledged: self.disk.log_len() });
    }

    /// Which steps and versions recovery may give after the first `prefix` changes, and whether it may give none.
    fn allowed(&self, prefix: usize) -> (BTreeSet<(u64, u64)>, bool) {
        let acknowledged = self.saves.iter().filter(|s| s.acknowledged <= prefix);
        let newest = acknowledged.clone().map(|s| s.step).max();
        let may_be = |s: &&Saved| {
            let is_superseded = acknowledged.clone().any(|o| o.step == s.step && o.version > s.version);
            s.began < prefix && Some(s.step) >= newest && !is_superseded
        };
        (self.saves.iter().filter(may_be).map(|s| (s.step, s.version)).collect(), newest.is_none())
    }

    /// Tries every legal state after each of these prefixes; returns how many, or what the first bad one broke.
    fn enumerate(&self, prefixes: RangeInclusive<usize>, random: &mut Random) -> Result<usize, String> {
        let mut n_states = 0;
        for prefix in prefixes {
            for survivals in self.disk.survivals(prefix, random) {
                let image = self.disk.crash(prefix, &survivals);
                let state = format!("seed {}, after {prefix} changes, {survivals:?}", self.seed);
                self.check(&image, prefix).map_err(|what| format!("{state}: {what}"))?;
                n_states += 1;
            }
        }
        Ok(n_states)
    }

    fn enumerate_all(&self, random: &mut Random) -> Result<usize, String> {
        self.enumerate(0..=self.disk.log_len(), random)
    }

    fn check(&self, image: &SimDisk, prefix: usize) -> Result<(), String> {
        let mut store = Store::open(image.shared(), Path::new(RUN)).map_err(|e| format!("open: {e}"))?;
        let (allowed, may_be_none) = self.allowed(prefix);
        let next = match recovered(&mut store).map_err(|e| format!("recover: {e}"))? {
            None if may_be_none => 1,
            None => return Err("nothing is left".to_string()),
            Some((step, found)) => {
                let is_right = allowed.iter().any(|(s, v)| *s == step && contents(self.seed, *s, *v) == found);
                if !is_right {
                    return Err(format!("step {step} came back; allowed are {allowed:?}"));
                }
                step + 1
            }
        };
        check_links(image)?;
        let left = leftovers(image);
        if !left.is_empty() {
            return Err(format!("left behind: {left:?}"));
        }
        // The run goes on, and its next checkpoint survives the next power cut.
        let expected = contents(self.seed, next, 9);
        save(&mut store, next, &expected).map_err(|e| format!("next save: {e}"))?;
        drop(store);
        let mut again = Store::open(image.crash_now().shared(), Path::new(RUN)).map_err(|e| format!("reopen: {e}"))?;
        match recovered(&mut again).map_err(|e| format!("recover the next save: {e}"))? {
            Some(found) if found == (next, expected) => Ok(()),
            other => Err(format!("the next save, step {next}, came back as {:?}", other.map(|(step, _)| step))),
        }
    }
}

/// What is published is there and sound, whenever.
fn check_links(image: &SimDisk) -> Result<(), String> {
    let disk: Arc<dyn Disk> = image.shared();
    let Some(name) = published(&*disk, Path::new(RUN)).map_err(|e| e.to_string())? else { return Ok(()) };
    let step = name.trim_start_matches("step-").parse().map_err(|e| format!("{name}: {e}"))?;
    match disk.kind(&Path::new(RUN).join(&name)) {
        Ok(EntryKind::Folder) => {}
        other => return Err(format!("current points to {name}, which is {other:?}")),
    }
    Checkpoint::open(&disk, Path::new(RUN), step).map(|_| ()).map_err(|e| format!("current is {name}: {e}"))
}

/// Saves with pruning; every fourth scenario trains a step again, with the same and with another result.
fn plain(seed: u64, n: usize, lie: Lie) -> Scenario {
    let mut scenario = Scenario::new(seed, lie);
    let mut store = open(&scenario.disk);
    store.keep(2 + n % 2);
    for step in [7, 8, 100, 1000] {
        scenario.save(&mut store, step, 0);
    }
    if n.is_multiple_of(4) {
        scenario.save(&mut store, 1000, 0);
        scenario.save(&mut store, 1000, 1);
    }
    scenario
}

fn publishing(seed: u64) -> Scenario {
    let mut scenario = Scenario::new(seed, Lie::None);
    let mut store = open(&scenario.disk);
    store.keep(1);
    let disk = scenario.disk.shared();
    let run = Path::new(RUN);
    for step in [10, 20, 30, 40] {
        scenario.save(&mut store, step, 0);
        // The first stays published while others come and go.
        if step != 20 {
            publish(&disk, run, &format!("step-{step:08}")).unwrap_or_else(|e| panic!("{e}"));
        }
    }
    rollback(&disk, run).unwrap_or_else(|e| panic!("{e}"));
    scenario.save(&mut store, 50, 0);
    scenario
}

/// A run whose trainer was killed, and another that went on.
struct Killed {
    scenario: Scenario,
    /// Places in the log of changes.
    killed_at: usize,
    resumed_at: usize,
    /// False when the save took fewer calls.
    was_killed: bool,
}

/// The trainer is killed at call `at` of a save, and another goes on with what the system still holds.
fn killed(seed: u64, (step, version): (u64, u64), at: usize) -> Killed {
    let mut scenario = Scenario::new(seed, Lie::None);
    let mut store = open(&scenario.disk);
    for step in [1, 2, 3] {
        scenario.save(&mut store, step, 0);
    }
    let began = scenario.disk.log_len();
    // To a disk, a dead process and one whose every call fails are the same.
    scenario.disk.set_fault(Some(Fault { kind: FaultKind::Broken, at, is_sticky: true }));
    let _ = save(&mut store, step, &contents(seed, step, version));
    drop(store);
    let was_killed = scenario.disk.n_hits() > 0;
    scenario.disk.set_fault(None);
    let killed_at = scenario.disk.log_len();
    scenario.saves.push(Saved { step, version, began, acknowledged: usize::MAX });
    let mut store = open(&scenario.disk);
    let (found, held) = recovered(&mut store).unwrap_or_else(|e| panic!("{e}")).expect("three were saved");
    let resumed_at = scenario.disk.log_len();
    if found == step && held == contents(seed, step, version) {
        // What was resumed from must not vanish.
        scenario.saves.last_mut().expect("pushed").acknowledged = resumed_at;
    }
    scenario.save(&mut store, found + 1, 7);
    Killed { scenario, killed_at, resumed_at, was_killed }
}

#[test]
fn a_run_survives_power_cuts_at_every_point() {
    let seed = seed(2201);
    let mut random = Random::new(seed);
    let n_scenarios = n_inputs(2).max(1);
    let n_states: usize = (0..n_scenarios)
        .map(|n| plain(random.number(), n, Lie::None).enumerate_all(&mut random).unwrap_or_else(|e| panic!("{e}")))
        .sum();
    println!("{n_states} crash states of {n_scenarios} runs");
    assert!(n_states >= 500 * n_scenarios, "{n_states}");
}

#[test]
fn what_is_published_survives_power_cuts_at_every_point() {
    let seed = seed(2202);
    let mut random = Random::new(seed);
    let n_states: usize = (0..n_inputs(1).max(1))
        .map(|_| publishing(random.number()).enumerate_all(&mut random).unwrap_or_else(|e| panic!("{e}")))
        .sum();
    println!("{n_states} crash states");
    assert!(n_states >= 500, "{n_states}");
}

#[test]
fn a_killed_trainer_and_then_a_power_cut() {
    let seed = seed(2203);
    let mut random = Random::new(seed);
    // A step that is new, and one that is trained again with another result.
    for save_of in [(4, 0), (3, 1)] {
        let (mut n_states, mut n_points) = (0, 0);
        loop {
            let killed = killed(seed, save_of, n_points);
            // The save that follows is as any other, and is tried as well when asked for more.
            let end = if n_inputs(1) > 1 { killed.scenario.disk.log_len() } else { killed.resumed_at };
            let checked = killed.scenario.enumerate(killed.killed_at..=end, &mut random);
            n_states += checked.unwrap_or_else(|e| panic!("{save_of:?}, killed at call {n_points}: {e}"));
            n_points += 1;
            if !killed.was_killed {
                break;
            }
        }
        println!("{n_states} crash states after a kill at each of {n_points} calls of saving {save_of:?}");
        assert!(n_points > 40 && n_states > 1000, "{n_points} {n_states}");
    }
}

/// The oracle is worth something: it finds out a disk that acknowledges flushes it did not do.
#[test]
fn a_lying_disk_is_found_out() {
    let mut random = Random::new(seed(2204));
    for lie in [Lie::Files, Lie::Folders] {
        let scenario = plain(random.number(), 0, lie);
        let found = scenario.enumerate_all(&mut random);
        assert!(found.is_err(), "{lie:?}: {} states and none lost anything", found.unwrap_or(0));
    }
}

/// And a lying card costs an older checkpoint, not the run, as long as one was written in truth.
#[test]
fn a_lie_costs_one_checkpoint() {
    let mut scenario = Scenario::new(seed(2205), Lie::None);
    let mut store = open(&scenario.disk);
    scenario.save(&mut store, 5, 0);
    scenario.disk.set_lie(Lie::Files);
    scenario.save(&mut store, 6, 0);
    let mut store = open(&scenario.disk.crash_now());
    let (step, found) = recovered(&mut store).unwrap_or_else(|e| panic!("{e}")).expect("step 5 was saved");
    assert_eq!((step, found), (5, contents(scenario.seed, 5, 0)));
}

/// Clearing: after a crash on the way the newest checkpoint is what is resumed, or none.
#[test]
fn a_crash_while_clearing_resumes_nothing_older() {
    let seed = seed(2206);
    let mut random = Random::new(seed);
    let disk = crate::saved_run(seed, &[1, 2, 3]);
    let from = disk.log_len();
    open(&disk).clear().unwrap_or_else(|e| panic!("{e}"));
    let mut outcomes = BTreeSet::new();
    for prefix in from..=disk.log_len() {
        for survivals in disk.survivals(prefix, &mut random) {
            let found = recovered(&mut open(&disk.crash(prefix, &survivals)));
            // Half of a removed checkpoint may stand alone: that is said, not taken.
            outcomes.insert(match &found {
                Ok(Some((step, held))) if *step == 3 && *held == contents(seed, 3, 0) => "newest",
                Ok(None) => "none",
                Err(e) if e.message().contains("MANIFEST is missing") => "refused",
                other => panic!("after {prefix} changes, {survivals:?}: {other:?}"),
            });
        }
    }
    assert_eq!(outcomes, BTreeSet::from(["newest", "none", "refused"]));
    let everything_lost = vec![Survival::Lost; disk.survivals(from, &mut random).first().map_or(0, Vec::len)];
    let (step, _) = recovered(&mut open(&disk.crash(from, &everything_lost))).unwrap().expect("not yet cleared");
    assert_eq!(step, 3);
    assert_eq!(recovered(&mut open(&disk.crash_now())).unwrap(), None);
}

/// The disk of these tests keeps its word.
#[test]
fn only_what_is_flushed_survives_for_sure() {
    // (flush the file, flush the folder, what is left when nothing else survives)
    let cases = [(false, false, None), (true, false, None), (false, true, Some("")), (true, true, Some("abc"))];
    for (flush_file, flush_folder, expected) in cases {
        for lie in [Lie::None, Lie::Files, Lie::Folders] {
            let disk = SimDisk::new();
            disk.set_lie(lie);
            let mut file = disk.create(Path::new("/a"), 3).expect("created");
            file.write_all(b"abc").expect("written");
            if flush_file {
                file.sync().expect("flushed");
            }
            if flush_folder {
                disk.sync_dir(Path::new("/")).expect("flushed");
            }
            let expected = match lie {
                Lie::None => expected,
                Lie::Files => expected.map(|_| ""),
                Lie::Folders => None,
            };
            let found = disk.crash_now().tree("/").remove("/a");
            let case = (flush_file, flush_folder, lie);
            assert_eq!(found, expected.map(|e| e.as_bytes().to_vec()), "{case:?}");
        }
    }
}
