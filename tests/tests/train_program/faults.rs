//! The disk fails while a job runs: at the n-th call, once or from then on; and the power goes. A run never panics and never
//! ends with anything but its result or one sentence, and on a sound disk it goes on to the same bytes.

use std::collections::BTreeSet;

use lichen_tests::formats::random::{n_inputs, seed, Random};
use lichen_tests::sim_disk::{Fault, FaultKind, SimDisk};
use lichen_trainer::job::{Job, MemorySettings, PreparedJob};

use crate::library::{finish, job, open, run, trained, RUN};
use crate::support::Trained;

const KINDS: [FaultKind; 4] = [FaultKind::DiskFull, FaultKind::Broken, FaultKind::Short, FaultKind::Interrupted];
const N_STEPS: u64 = 6;
const SUMMARY: &str = "/summary.json";

/// A job that takes no time: one matrix of each layer, a checkpoint after each second step.
fn small_job() -> PreparedJob {
    let job = job("tiny-qwen2-tied", N_STEPS);
    let targets = [true, false, false, false, false, false, false];
    open(Job {
        memory: MemorySettings { rank: 1, targets, ..job.memory },
        save_every: Some(2),
        gradient_accumulation_steps: 1,
        eval_every: None,
        save_total_limit: 2,
        ..job
    })
}

/// Rows that a failing disk did not take are lost; the others are right, and in order.
fn assert_some_rows_of(got: &[String], want: &[String], case: &str) {
    let mut left = want.iter();
    for row in got {
        assert!(left.any(|w| w == row), "{case}: {row} is not among the rows, or out of order");
    }
}

/// One run under a fault, and one after it. Returns how the first ended, for the count.
fn check(opened: &mut PreparedJob, base: &SimDisk, fault: Fault, want: &Trained) -> &'static str {
    let (case, disk) = (format!("{fault:?}"), base.fork());
    disk.set_fault(Some(fault));
    let done = run(opened, &disk, None);
    let n_hits = disk.n_hits();
    disk.set_fault(None);
    let how = match &done.outcome {
        Ok(outcome) => {
            trained(&disk, outcome.step).assert_files_equal(want, &case);
            if done.notes.is_empty() {
                "nothing was noticed"
            } else {
                "warned and finished"
            }
        }
        Err(e) => {
            assert!(n_hits > 0, "{case}: failed without a fault: {e}");
            assert!(e.message().starts_with("/run") && !e.message().contains('\n'), "{case}: {e}");
            "ended with a sentence"
        }
    };
    let distinct: BTreeSet<&String> = done.notes.iter().collect();
    assert_eq!(distinct.len(), done.notes.len(), "{case}: said twice: {:?}", done.notes);
    let got = finish(opened, &disk);
    got.assert_files_equal(want, &case);
    assert_some_rows_of(&got.rows, &want.rows, &case);
    how
}

#[test]
fn a_run_survives_a_fault_at_any_call() {
    let mut random = Random::new(seed(3401));
    let mut opened = small_job();
    let fresh = SimDisk::new();
    fresh.set_fault(None);
    let want = finish(&mut opened, &fresh);
    let n_calls = fresh.n_calls();
    // Beside a run from the start, one that is resumed.
    let half = SimDisk::new();
    run(&mut opened, &half, Some(3)).outcome.unwrap_or_else(|e| panic!("{e}"));
    let all = KINDS.len() * 2 * 2 * n_calls;
    let n_faults = n_inputs(120).clamp(1, all);
    let mut counts = std::collections::BTreeMap::new();
    for n in 0..n_faults {
        // Every call when there is time for it, else drawn ones.
        let number = if n_faults == all { n } else { random.below(all) };
        let (kind, is_sticky) = (KINDS[number % 4], number / 4 % 2 == 1);
        let fault = Fault { kind, at: number / 16, is_sticky };
        let base = if number / 8 % 2 == 1 { half.fork() } else { SimDisk::new() };
        *counts.entry(check(&mut opened, &base, fault, &want)).or_insert(0) += 1;
    }
    println!("{n_faults} of {all} faults of a run with {n_calls} calls: {counts:?}");
    assert!(counts.len() == 3 || n_faults < 100, "{counts:?}");
}

/// What a report shows beside the rows comes last; a disk that refuses it costs that alone.
#[test]
fn a_summary_that_cannot_be_written_is_no_end() {
    let mut opened = small_job();
    let disk = SimDisk::new();
    disk.set_fault(None);
    let want = finish(&mut opened, &disk);
    let (n_calls, whole) = (disk.n_calls(), disk.tree(RUN)[SUMMARY].clone());
    serde_json::from_slice::<serde_json::Value>(&whole).expect("a whole file");
    let mut n_lost = 0;
    for (n_before, is_sticky) in (1..=6).flat_map(|n| [(n, false), (n, true)]) {
        let fault = Fault { kind: FaultKind::DiskFull, at: n_calls - n_before, is_sticky };
        let disk = SimDisk::new();
        disk.set_fault(Some(fault));
        let done = run(&mut opened, &disk, None);
        let outcome = done.outcome.unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        trained(&disk, outcome.step).assert_equals(&want, &format!("{fault:?}"));
        let held = disk.tree(RUN);
        assert!(held.get(SUMMARY).is_none_or(|bytes| bytes.len() == whole.len()), "{fault:?}: half a summary");
        assert!(held.keys().all(|name| !name.starts_with("/.tmp")), "{fault:?}: {:?}", held.keys());
        n_lost += usize::from(!held.contains_key(SUMMARY));
    }
    // The file's creation, its bytes, their flush and the rename, once and from then on.
    assert!(n_lost >= 8, "{n_lost}");
}

#[test]
fn a_run_survives_a_power_cut_at_any_time() {
    let mut random = Random::new(seed(3402));
    let mut opened = small_job();
    let disk = SimDisk::new();
    // One that was stopped and went on, so that there are two checkpoints of a step to cut between.
    run(&mut opened, &disk, Some(3)).outcome.unwrap_or_else(|e| panic!("{e}"));
    let want = finish(&mut opened, &disk);
    let (n_cuts, mut n_resumed, mut n_rejected) = (n_inputs(120).max(1), 0, 0);
    for _ in 0..n_cuts {
        let prefix = random.below(disk.log_len() + 1);
        let states: Vec<_> = disk.survivals(prefix, &mut random).into_iter().collect();
        let survivals = random.pick(&states);
        let case = format!("after {prefix} changes, {survivals:?}");
        let image = disk.crash(prefix, survivals);
        let done = run(&mut opened, &image, None);
        let outcome = done.outcome.unwrap_or_else(|e| panic!("{case}: {e}"));
        n_resumed += usize::from(outcome.resumed.is_some());
        n_rejected += done.notes.iter().filter(|n| n.contains(" skipped: ")).count();
        // Rows too: they are flushed before the checkpoint that stands for them.
        trained(&image, outcome.step).assert_equals(&want, &case);
    }
    println!("{n_cuts} power cuts: {n_resumed} resumed, {n_rejected} checkpoints turned down");
    assert!(n_resumed * 2 > n_cuts, "{n_resumed} of {n_cuts}");
}
