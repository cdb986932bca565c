//! Which checkpoints stay: the newest, the pinned one, what is published; damaged ones go first.

use std::path::Path;

use lichen_trainer::checkpoint::publish;

use crate::{checkpoint_names, contents, open, recover, run_names, save, saved_run, RUN};
use lichen_tests::sim_disk::SimDisk;

fn steps(disk: &SimDisk) -> Vec<u64> {
    checkpoint_names(disk).iter().map(|n| n["step-".len()..].parse().unwrap()).collect()
}

struct Case {
    keep: usize,
    pinned: Option<u64>,
    published: &'static [u64],
    saved: &'static [u64],
    left: &'static [u64],
}

#[test]
fn the_newest_stay() {
    const SIX: &[u64] = &[1, 2, 3, 4, 5, 6];
    let case = |keep, pinned, published, saved, left| Case { keep, pinned, published, saved, left };
    let cases = [
        case(3, None, &[], &[1, 2], &[1, 2]),
        case(3, None, &[], SIX, &[4, 5, 6]),
        case(1, None, &[], SIX, &[6]),
        case(9, None, &[], SIX, SIX),
        case(3, Some(2), &[], SIX, &[2, 4, 5, 6]),
        case(3, Some(5), &[], SIX, &[4, 5, 6]),
        case(2, Some(9), &[], SIX, &[5, 6]),
        case(1, None, &[1], SIX, &[1, 6]),
        // Published after one another: the last two are current and previous.
        case(1, Some(1), &[2, 3, 4], SIX, &[1, 3, 4, 6]),
        // By step, not by time or name: 99,999,999 and 100,000,000 sort the other way round as names.
        case(2, None, &[], &[99_999_998, 99_999_999, 100_000_000, 123_456_789_012], &[100_000_000, 123_456_789_012]),
    ];
    for (i, case) in cases.iter().enumerate() {
        let disk = SimDisk::new();
        let mut store = open(&disk);
        store.keep(case.keep);
        store.pin(case.pinned);
        for step in case.saved {
            save(&mut store, *step, &contents(3, *step, 0)).unwrap_or_else(|e| panic!("case {i}: {e}"));
            if case.published.contains(step) {
                publish(&disk.shared(), Path::new(RUN), &format!("step-{step:08}")).unwrap_or_else(|e| panic!("{e}"));
            }
        }
        let mut found = steps(&disk);
        found.sort();
        assert_eq!(found, case.left, "case {i}");
        let newest = case.saved.last().unwrap();
        assert_eq!(recover(&mut open(&disk)).unwrap().expect("saved").checkpoint.step, *newest, "case {i}");
        let latest = disk.tree(RUN).remove("/latest").expect("a hint");
        assert_eq!(latest, format!("step-{newest:08}\n").into_bytes(), "case {i}");
    }
}

/// Two damaged checkpoints do not push out the one that was resumed from.
#[test]
fn damaged_checkpoints_go_first() {
    let disk = saved_run(3, &[1000, 1100, 1200]);
    for step in [1100, 1200] {
        disk.overwrite(&format!("/run/step-0000{step}/MANIFEST"), |b| b.truncate(9));
    }
    let mut store = open(&disk);
    assert_eq!(recover(&mut store).unwrap().expect("1000 is sound").checkpoint.step, 1000);
    for (step, left) in [(1050, vec![1000, 1050, 1200]), (1060, vec![1000, 1050, 1060]), (1070, vec![1050, 1060, 1070])]
    {
        save(&mut store, step, &contents(3, step, 0)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(steps(&disk), left);
    }
}

/// What others keep in the run folder is not ours to remove.
#[test]
fn unrecognised_names_stay() {
    let disk = SimDisk::new();
    let mut store = open(&disk);
    let shared = disk.shared();
    for name in ["notes", "step-1", "step-0000000x"] {
        shared.create_dir(&Path::new(RUN).join(name)).unwrap();
    }
    store.keep(1);
    for step in [1, 2] {
        save(&mut store, step, &contents(3, step, 0)).unwrap_or_else(|e| panic!("{e}"));
    }
    assert_eq!(run_names(&disk), ["latest", "notes", "step-00000002", "step-0000000x", "step-1"]);
}
