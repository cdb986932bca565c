//! Damaged checkpoints: 100% found out or without effect; what is said about them.

use std::path::Path;
use std::sync::Arc;

use lichen_runtime::files::disk::Disk;
use lichen_runtime::Error;
use lichen_trainer::checkpoint::Checkpoint;
use sha2::{Digest, Sha256};

use crate::{contents, open, recover, recovered, save, saved_run, Contents, RUN};
use lichen_tests::sim_disk::SimDisk;

const NEW: &str = "/run/step-00001200";
const OPTIMIZER: &str = "/run/step-00001200/optimizer.safetensors";
const MANIFEST: &str = "/run/step-00001200/MANIFEST";

/// Step 1100 is sound; 1200 has short files, so that every byte can be tried.
fn small_run() -> (SimDisk, Contents, Contents) {
    let disk = saved_run(1, &[1100]);
    let small: Contents = ["adapter_model.safetensors", "optimizer.safetensors", "state.json"]
        .iter()
        .enumerate()
        .map(|(i, name)| (*name, (0..100 * i as u8).collect()))
        .collect();
    save(&mut open(&disk), 1200, &small).unwrap_or_else(|e| panic!("{e}"));
    (disk, contents(1, 1100, 0), small)
}

/// Recovery gives step 1200 as it was saved, or 1100 and a sentence about 1200.
fn check(disk: &SimDisk, older: &Contents, newer: &Contents, is_detected: &mut usize, what: &str) {
    let found = recover(&mut open(disk)).unwrap_or_else(|e| panic!("{what}: {e}")).expect("1100 is sound");
    let held = crate::read_all(&found.checkpoint).unwrap_or_else(|e| panic!("{what}: {e}"));
    match found.checkpoint.step {
        1200 => assert!(held == *newer && found.rejected.is_empty(), "{what}: half used"),
        1100 => {
            assert!(held == *older, "{what}");
            assert_eq!(found.rejected.len(), 1, "{what}");
            assert!(found.rejected[0].starts_with("step 1200 skipped: "), "{what}: {:?}", found.rejected);
            *is_detected += 1;
        }
        other => panic!("{what}: step {other}"),
    }
}

#[test]
fn every_flipped_byte_is_found_out() {
    let (disk, older, newer) = small_run();
    let masks = [1, 2, 4, 8, 16, 32, 64, 128, 255];
    let (mut n_flips, mut n_detected) = (0, 0);
    for (name, bytes) in disk.tree(NEW) {
        let path = format!("{NEW}{name}");
        for at in 0..bytes.len() {
            for mask in masks {
                disk.overwrite(&path, |b| b[at] ^= mask);
                check(&disk, &older, &newer, &mut n_detected, &format!("{path}, byte {at} ^ {mask}"));
                disk.overwrite(&path, |b| b[at] ^= mask);
                n_flips += 1;
            }
        }
    }
    println!("{n_detected} of {n_flips} flips found out");
    // Nothing in a checkpoint is without meaning.
    assert_eq!(n_detected, n_flips);
    assert!(n_flips > 5000, "{n_flips}");
}

#[test]
fn every_other_length_is_found_out() {
    let (disk, older, newer) = small_run();
    let mut n_detected = 0;
    let mut n_tried = 0;
    for (name, bytes) in disk.tree(NEW) {
        let path = format!("{NEW}{name}");
        for len in (0..bytes.len()).chain([bytes.len() + 1, bytes.len() + 5000, 2 << 20]) {
            disk.overwrite(&path, |b| b.resize(len, 0));
            check(&disk, &older, &newer, &mut n_detected, &format!("{path}, {len} bytes"));
            disk.overwrite(&path, |b| b.clone_from(&bytes));
            n_tried += 1;
        }
    }
    assert_eq!(n_detected, n_tried);
}

/// A file that changes between the check and its use is not used.
#[test]
fn what_changes_after_the_check_is_not_read() {
    let (disk, _, newer) = small_run();
    let shared: Arc<dyn Disk> = disk.shared();
    let checkpoint = Checkpoint::open(&shared, Path::new(RUN), 1200).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(checkpoint.read("optimizer.safetensors").unwrap(), newer[1].1);
    disk.overwrite(OPTIMIZER, |b| b[50] ^= 1);
    let error = checkpoint.read("optimizer.safetensors").unwrap_err();
    assert_eq!(error.message(), "/run/step-00001200: optimizer.safetensors differs from its manifest");
    let error = checkpoint.read("../../job.toml").unwrap_err();
    assert_eq!(error.message(), "/run/step-00001200: holds no ../../job.toml");
}

#[test]
fn two_damaged_of_three_still_resume() {
    let disk = saved_run(1, &[1000, 1100, 1200]);
    disk.overwrite("/run/step-00001100/state.json", |b| b.push(0));
    disk.overwrite(MANIFEST, |b| b.fill(0));
    let mut store = open(&disk);
    let found = recover(&mut store).unwrap_or_else(|e| panic!("{e}")).expect("step 1000 is sound");
    let len = contents(1, 1100, 0)[2].1.len();
    let expected = [
        "step 1200 skipped: MANIFEST differs from its own sha256".to_string(),
        format!("step 1100 skipped: state.json is {} bytes long; its manifest says {len}", len + 1),
    ];
    assert_eq!(found.rejected, expected);
    assert_eq!((found.checkpoint.step, found.checkpoint.previous), (1000, None));
    // Trained again, the same steps take the places of the damaged ones.
    for step in [1100, 1200] {
        save(&mut store, step, &contents(1, step, 0)).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(recovered(&mut store).unwrap(), Some((step, contents(1, step, 0))));
    }
    assert!(recover(&mut open(&disk)).unwrap().expect("saved").rejected.is_empty());
}

/// A manifest with these lines and the hash that belongs to them.
fn manifest(lines: &[&str]) -> Vec<u8> {
    let above: String = lines.iter().map(|l| format!("{l}\n")).collect();
    let hash: String = Sha256::digest(above.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    format!("{above}{{\"sha256\":\"{hash}\"}}\n").into_bytes()
}

#[test]
fn manifests_of_others_are_refused_with_a_sentence() {
    const HEAD: &str = r#"{"format":1,"step":1200,"previous":1100}"#;
    let file = |name: &str| format!(r#"{{"name":"{name}","bytes":0,"sha256":"{}"}}"#, "0".repeat(64));
    let (plain, up, itself, hidden) = (file("a"), file("../x"), file("MANIFEST"), file(".a"));
    let cases: [(&[&str], &str); 10] = [
        (&[], "MANIFEST, line 1: is missing"),
        (&["[]"], "MANIFEST, line 1: invalid"),
        (&[r#"{"format":2,"shards":[]}"#], "MANIFEST, line 1: format is 2; this program reads 1"),
        (&[r#"{"format":1,"step":1100,"previous":null}"#], "step is 1100; the folder's name says 1200"),
        (&[r#"{"format":1,"step":1200,"previous":null,"x":1}"#], "unknown field `x`"),
        (&[HEAD, &up], "MANIFEST, line 2: name \"../x\" is not allowed here"),
        (&[HEAD, &itself], "name \"MANIFEST\" is not allowed here"),
        (&[HEAD, &hidden], "name \".a\" is not allowed here"),
        (&[HEAD, &plain, &plain], "MANIFEST, line 3: name \"a\" is not allowed here"),
        (&[HEAD, &plain], "a is missing"),
    ];
    for (lines, expected) in cases {
        let (disk, older, _) = small_run();
        disk.overwrite(MANIFEST, |b| *b = manifest(lines));
        let found = recover(&mut open(&disk)).unwrap_or_else(|e| panic!("{lines:?}: {e}")).expect("1100 is sound");
        assert!(found.rejected[0].contains(expected), "{lines:?}: {:?}", found.rejected);
        assert_eq!(crate::read_all(&found.checkpoint).unwrap(), older);
    }
}

#[test]
fn no_valid_checkpoint_is_an_error_and_none_at_all_is_not() {
    assert!(recover(&mut open(&SimDisk::new())).unwrap().is_none());

    let disk = saved_run(1, &[1100, 1200]);
    disk.overwrite("/run/step-00001100/MANIFEST", |b| b.clear());
    disk.overwrite(OPTIMIZER, |b| b[..].reverse());
    disk.shared().create_dir(Path::new("/run/step-900")).unwrap();
    let error = recover(&mut open(&disk)).unwrap_err();
    let expected = "/run: step 1200 skipped: optimizer.safetensors differs from its manifest; \
                    step 1100 skipped: MANIFEST differs from its own sha256; \
                    step-900 skipped: no checkpoint has such a name; \
                    no valid checkpoint of 3 (start over with restart)";
    assert_eq!(error.message(), expected);
    // Nothing was removed that a person may want to look at; --restart does.
    assert_eq!(crate::checkpoint_names(&disk).len(), 3);
    let mut store = open(&disk);
    store.clear().unwrap_or_else(|e| panic!("{e}"));
    assert!(recover(&mut store).unwrap().is_none());
    assert_eq!(crate::run_names(&disk), Vec::<String>::new());
}

/// The caller's own checks count: another base, a value that is not finite.
#[test]
fn what_the_caller_turns_down_is_skipped() {
    let disk = saved_run(1, &[1, 2, 3]);
    let refuse = |g: &Checkpoint| match g.step {
        3 => Err(Error::input("made for another base")),
        _ => Ok(()),
    };
    let found = open(&disk).recover(&refuse).unwrap().expect("2 is accepted");
    assert_eq!(found.checkpoint.step, 2);
    assert_eq!(found.rejected, ["step 3 skipped: made for another base"]);
    let error = open(&disk).recover(&|_| Err(Error::input("no"))).unwrap_err();
    assert!(error.message().ends_with("step 1 skipped: no; no valid checkpoint of 3 (start over with restart)"));
}
