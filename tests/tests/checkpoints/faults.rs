//! The n-th call of a save or of a recovery fails, for every n until it runs through, once or from then on.

use std::collections::BTreeMap;
use std::path::Path;

use lichen_runtime::error::Kind;
use lichen_trainer::checkpoint::{CheckpointFile, Store};

use crate::{checkpoint_names, contents, leftovers, open, recover, recovered, save, saved_run, RUN};
use lichen_tests::sim_disk::{Fault, FaultKind, SimDisk};

const SEED: u64 = 77;
const KINDS: [FaultKind; 4] = [FaultKind::DiskFull, FaultKind::Broken, FaultKind::Short, FaultKind::Interrupted];

/// A checkpoint with all that is in it.
fn tree(disk: &SimDisk, step: u64) -> BTreeMap<String, Vec<u8>> {
    disk.tree(&format!("/run/step-{step:08}"))
}

/// Runs `check` for each kind of fault at each call until the fault no longer comes; returns how many did.
fn each_fault(check: impl Fn(Fault) -> bool) -> usize {
    let mut n_faults = 0;
    for kind in KINDS {
        for is_sticky in [false, true] {
            let n_calls = (0..1000).position(|at| !check(Fault { kind, at, is_sticky })).expect("it ends");
            assert!(n_calls > 20, "{kind:?}: {n_calls} calls");
            n_faults += n_calls;
        }
    }
    n_faults
}

/// Saves `step` with `version` on a run of 100, 200 and 300 under the fault. False when the save took fewer calls.
fn check_save(base: &SimDisk, step: u64, version: u64, fault: Fault) -> bool {
    let case = format!("step {step}, {fault:?}");
    let disk = base.fork();
    let before = [100, 200, 300].map(|s| (s, tree(&disk, s)));
    let mut store = open(&disk);
    let expected = contents(SEED, step, version);
    disk.set_fault(Some(fault));
    let saved = save(&mut store, step, &expected);
    let is_reached = disk.n_calls() > fault.at;
    let n_hits = disk.n_hits();
    disk.set_fault(None);

    match &saved {
        Err(e) => {
            assert!(n_hits > 0, "{case}: failed without a fault: {e}");
            assert!(e.kind() == Kind::Io && e.message().starts_with("/run"), "{case}: {e}");
            assert!(!e.message().contains('\n'), "{case}: {e}");
        }
        Ok(()) => assert_eq!(recovered(&mut open(&disk.fork())).unwrap(), Some((step, expected.clone())), "{case}"),
    }
    // Nothing older has changed. The oldest may go once the new one is acknowledged.
    for (old, files) in before.iter().filter(|(old, _)| *old != step && (saved.is_err() || *old != 100)) {
        assert!(tree(&disk, *old) == *files, "{case}: step {old} has changed");
    }
    // What a restart would find now is one of the two.
    let found = recovered(&mut open(&disk.fork())).unwrap_or_else(|e| panic!("{case}: {e}")).expect("three were saved");
    let is_old = found == (300, contents(SEED, 300, 0));
    assert!(is_old || found == (step, expected), "{case}: {}", found.0);

    // The disk has recovered: the same trainer saves again, and that survives a power cut.
    let next = contents(SEED, 500, 0);
    save(&mut store, 500, &next).unwrap_or_else(|e| panic!("{case}, next save: {e}"));
    assert_eq!(leftovers(&disk), Vec::<String>::new(), "{case}");
    assert_eq!(checkpoint_names(&disk).len(), 3, "{case}");
    let found = recovered(&mut open(&disk.crash_now())).unwrap_or_else(|e| panic!("{case}: {e}"));
    assert!(found == Some((500, next)), "{case}");
    is_reached
}

#[test]
fn a_save_survives_a_fault_at_every_call() {
    let base = saved_run(SEED, &[100, 200, 300]);
    // A new step; one trained again with the same result, and with another.
    for (step, version) in [(400, 0), (300, 0), (300, 1)] {
        let n_faults = each_fault(|fault| check_save(&base, step, version, fault));
        println!("step {step}, version {version}: {n_faults} faults");
    }
}

#[test]
fn a_recovery_survives_a_fault_at_every_call() {
    let base = saved_run(SEED, &[100, 200, 300]);
    let n_faults = each_fault(|fault| {
        let disk = base.fork();
        let before = disk.tree(RUN);
        disk.set_fault(Some(fault));
        let found = Store::open(disk.shared(), Path::new(RUN)).and_then(|mut store| recovered(&mut store));
        let is_reached = disk.n_calls() > fault.at;
        disk.set_fault(None);
        // Never a silent restart, never other contents; a file that could not be read costs a checkpoint at most.
        match found {
            Ok(Some((step, held))) => assert!(held == contents(SEED, step, 0), "{fault:?}: step {step}"),
            Ok(None) => panic!("{fault:?}: the run was taken for a new one"),
            Err(e) => assert!(e.message().starts_with("/run"), "{fault:?}: {e}"),
        }
        assert!(disk.tree(RUN) == before, "{fault:?}: recovery changed the run");
        assert_eq!(recovered(&mut open(&disk)).unwrap(), Some((300, contents(SEED, 300, 0))), "{fault:?}");
        is_reached
    });
    println!("{n_faults} faults");
}

/// A card that keeps other bytes than it was given is found out before the checkpoint counts.
#[test]
fn a_disk_that_changes_bytes_is_found_out() {
    for name in ["adapter_model.safetensors", "state.json", "MANIFEST"] {
        let disk = saved_run(SEED, &[100]);
        let before = tree(&disk, 100);
        disk.damage_writes_of(Some(name));
        let mut store = open(&disk);
        let new = [("adapter_model.safetensors", vec![1; 700]), ("state.json", vec![2; 5000])].to_vec();
        let error = save(&mut store, 200, &new).unwrap_err();
        let expected =
            format!("/run/.tmp-00000200/{name}: the disk gives back other bytes than were written: it may be failing");
        assert_eq!(error.message(), expected);
        assert_eq!((checkpoint_names(&disk), leftovers(&disk)), (vec!["step-00000100".to_string()], vec![]));
        assert!(tree(&disk, 100) == before);
    }
}

#[test]
fn a_full_disk_is_refused_before_the_first_byte() {
    let disk = saved_run(SEED, &[100]);
    let mut store = open(&disk);
    let new = [("a.bin", vec![0; 4000]), ("b.bin", vec![0; 2000])].to_vec();
    for (free, is_refused) in [(8999, true), (0, true), (9000, false)] {
        disk.set_free_bytes(Some(free));
        let n_changes = disk.log_len();
        let saved = save(&mut store, 200, &new);
        assert_eq!(saved.is_err(), is_refused, "{free}: {saved:?}");
        if let Err(e) = saved {
            assert_eq!((e.kind(), disk.log_len()), (Kind::Limit, n_changes));
            assert!(e.message().starts_with("/run: a checkpoint of 6,000 bytes needs 9,000 free, and "), "{e}");
        }
    }
}

/// More or fewer bytes than announced are a checkpoint that nobody could trust.
#[test]
fn a_writer_that_does_not_keep_its_word_is_refused() {
    let disk = saved_run(SEED, &[100]);
    let cases = [(0, "more bytes"), (9, "more bytes"), (11, "1 of 11 announced bytes were not written")];
    for (len, expected) in cases {
        let write = |out: &mut dyn std::io::Write| out.write_all(&[7; 10]);
        let file = CheckpointFile { name: "a.bin", len, write: &write };
        let error = open(&disk).save(200, &[file]).unwrap_err();
        assert!(error.message().contains(expected), "{len}: {error}");
        assert_eq!(recover(&mut open(&disk)).unwrap().expect("saved").checkpoint.step, 100);
        assert_eq!(leftovers(&disk), Vec::<String>::new());
    }
}
