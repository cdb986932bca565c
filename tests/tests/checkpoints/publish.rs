//! `current` and `previous`: where they point after which call, and what is refused. Power cuts are in `power_cut.rs`.

use std::path::Path;
use std::sync::Arc;

use lichen_runtime::files::disk::Disk;
use lichen_trainer::checkpoint::{publish, published, rollback};

use crate::{open, saved_run, RUN};
use lichen_tests::sim_disk::{Fault, FaultKind, SimDisk};

fn links(disk: &SimDisk) -> (Option<String>, Option<String>) {
    let shared = disk.shared();
    let read = |name: &str| shared.read_link(&Path::new(RUN).join(name)).ok();
    (read("current"), read("previous"))
}

fn published_run() -> (SimDisk, Arc<dyn Disk>) {
    let disk = saved_run(5, &[1, 2, 3]);
    let shared = disk.shared();
    for name in ["merged", "step-7"] {
        shared.create_dir(&Path::new(RUN).join(name)).unwrap();
    }
    (disk, shared)
}

fn some(a: &str, b: &str) -> (Option<String>, Option<String>) {
    let name = |n: &str| (!n.is_empty()).then(|| n.to_string());
    (name(a), name(b))
}

#[test]
fn links_move_and_move_back() {
    let (disk, shared) = published_run();
    let run = Path::new(RUN);
    let go = |target: &str| publish(&shared, run, target).unwrap_or_else(|e| panic!("{target}: {e}"));
    let refused =
        |expected: &str| assert_eq!(rollback(&shared, run).unwrap_err().message(), format!("/run: {expected}"));

    assert_eq!(published(&*shared, run).unwrap(), None);
    refused("nothing is published here");
    go("step-00000001");
    assert_eq!(links(&disk), some("step-00000001", ""));
    refused("step-00000001 is the first that was published: none to go back to");
    go("step-00000002");
    assert_eq!(links(&disk), some("step-00000002", "step-00000001"));
    // Published twice, the one before stays known.
    go("step-00000002");
    assert_eq!(links(&disk), some("step-00000002", "step-00000001"));
    go("merged");
    assert_eq!(links(&disk), some("merged", "step-00000002"));
    assert_eq!(published(&*shared, run).unwrap().as_deref(), Some("merged"));
    let moved = rollback(&shared, run).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(moved, ("merged".to_string(), "step-00000002".to_string()));
    assert_eq!(links(&disk), some("step-00000002", "step-00000002"));
    refused("step-00000002 is what was published before: publish another by name");
    go("step-00000003");
    assert_eq!(links(&disk), some("step-00000003", "step-00000002"));
}

#[test]
fn what_cannot_serve_is_not_published() {
    let (disk, shared) = published_run();
    publish(&shared, Path::new(RUN), "step-00000003").unwrap_or_else(|e| panic!("{e}"));
    disk.overwrite("/run/step-00000002/state.json", |b| b.push(1));
    let cases = [
        ("step-00000002", "step-00000002 is not published: state.json is"),
        ("step-00000009", "\"step-00000009\" is not there"),
        ("step-7", "\"step-7\" is not named as a checkpoint is"),
        ("latest", "\"latest\" is not a folder"),
        ("current", "\"current\" is not the name of a folder in this run"),
        ("../run", "\"../run\" is not the name of a folder in this run"),
        (".tmp-00000004", "\".tmp-00000004\" is not the name of a folder in this run"),
        ("", "\"\" is not the name of a folder in this run"),
        ("a\u{1b}[2J", "is not the name of a folder in this run"),
    ];
    for (target, expected) in cases {
        let error = publish(&shared, Path::new(RUN), target).unwrap_err();
        assert!(error.message().contains(expected), "{target}: {error}");
        assert_eq!(links(&disk), some("step-00000003", ""), "{target}");
    }
}

/// The checkpoint to go back to was damaged meanwhile: `current` stays.
#[test]
fn a_rollback_checks_where_it_goes() {
    let (disk, shared) = published_run();
    for target in ["step-00000001", "step-00000002"] {
        publish(&shared, Path::new(RUN), target).unwrap_or_else(|e| panic!("{e}"));
    }
    disk.overwrite("/run/step-00000001/MANIFEST", |b| b[3] ^= 1);
    let error = rollback(&shared, Path::new(RUN)).unwrap_err();
    assert_eq!(error.message(), "/run: step-00000001 is not published: MANIFEST differs from its own sha256");
    assert_eq!(links(&disk), some("step-00000002", "step-00000001"));
}

/// --restart does not take an adapter out of service.
#[test]
fn clearing_refuses_what_is_published() {
    let (disk, shared) = published_run();
    publish(&shared, Path::new(RUN), "step-00000002").unwrap_or_else(|e| panic!("{e}"));
    let before = disk.tree(RUN);
    let error = open(&disk).clear().unwrap_err();
    let expected = "/run: step-00000002 is published, and restart would remove it: choose another out";
    assert_eq!(error.message(), expected);
    assert!(disk.tree(RUN) == before);
}

/// With a fault at any call, `current` is where it was or where it shall be, and publishing again works.
#[test]
fn publishing_survives_a_fault_at_every_call() {
    for kind in [FaultKind::DiskFull, FaultKind::Broken] {
        for at in 0.. {
            let (disk, shared) = published_run();
            publish(&shared, Path::new(RUN), "step-00000001").unwrap_or_else(|e| panic!("{e}"));
            disk.set_fault(Some(Fault { kind, at, is_sticky: true }));
            let moved = publish(&shared, Path::new(RUN), "step-00000002");
            let is_reached = disk.n_calls() > at;
            disk.set_fault(None);
            let (current, _) = links(&disk);
            let is_new = current.as_deref() == Some("step-00000002");
            assert!(is_new || current.as_deref() == Some("step-00000001"), "{kind:?} at {at}: {current:?}");
            assert!(is_new || moved.is_err(), "{kind:?} at {at}");
            publish(&shared, Path::new(RUN), "step-00000003").unwrap_or_else(|e| panic!("{kind:?} at {at}: {e}"));
            assert_eq!(links(&disk).0.as_deref(), Some("step-00000003"));
            if !is_reached {
                assert!(at > 10, "{at} calls");
                break;
            }
        }
    }
}
