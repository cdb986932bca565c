//! The file system of the machine: the same calls, its lock, its refusals.

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use lichen_runtime::files::disk::{Disk, EntryKind, RealDisk};
use lichen_tests::models::temp_dir;
use lichen_trainer::checkpoint::{publish, rollback, Store};

use crate::{contents, recovered, save};

fn disk() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

#[test]
fn a_run_on_a_real_disk() {
    let dir = temp_dir("checkpoints-run");
    // Two folders that are not there yet.
    let run = dir.join("a").join("run");
    let mut store = Store::open(disk(), &run).unwrap_or_else(|e| panic!("{e}"));
    store.keep(2);
    assert_eq!(recovered(&mut store).unwrap(), None);
    for step in [10, 20, 30] {
        save(&mut store, step, &contents(8, step, 0)).unwrap_or_else(|e| panic!("{e}"));
        publish(&disk(), &run, &format!("step-{step:08}")).unwrap_or_else(|e| panic!("{e}"));
    }
    // The same step with another result, from a writer in the background.
    let writer = std::thread::spawn(move || {
        save(&mut store, 30, &contents(8, 30, 1)).unwrap_or_else(|e| panic!("{e}"));
        store
    });
    let store = writer.join().expect("it saves");
    std::fs::create_dir(run.join(".tmp-00000040")).unwrap();
    std::fs::write(run.join(".tmp-00000040").join("half"), "x").unwrap();
    drop(store);

    let mut store = Store::open(disk(), &run).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(recovered(&mut store).unwrap(), Some((30, contents(8, 30, 1))));
    let names = disk().names(&run).unwrap();
    let expected = [".links-lock", "current", "latest", "lock", "previous", "step-00000020", "step-00000030"];
    assert_eq!(names, expected);
    let moved = rollback(&disk(), &run).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(moved, ("step-00000030".to_string(), "step-00000020".to_string()));
    let through_link = std::fs::read(run.join("current").join("state.json")).unwrap();
    assert_eq!(through_link, contents(8, 20, 0)[2].1);
    for link in ["current", "previous"] {
        std::fs::remove_file(run.join(link)).unwrap();
    }
    store.clear().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(disk().names(&run).unwrap(), [".links-lock", "lock"]);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_second_trainer_is_refused() {
    let dir = temp_dir("checkpoints-lock");
    let first = Store::open(disk(), &dir).unwrap_or_else(|e| panic!("{e}"));
    let Err(error) = Store::open(disk(), &dir) else { panic!("two trainers in one folder") };
    let expected =
        format!("{}: another trainer is at work in this folder: wait for it, or choose another out", dir.display());
    assert_eq!(error.message(), expected);
    drop(first);
    assert!(Store::open(disk(), &dir).is_ok(), "the lock outlived its holder");
    std::fs::remove_dir_all(dir).unwrap();
}

/// Links are not followed where things are removed; pipes and devices are not opened as files.
#[test]
fn names_that_are_no_files() {
    let dir = temp_dir("checkpoints-kinds");
    let (disk, outside) = (disk(), dir.join("outside"));
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "x").unwrap();
    let run = dir.join("run");
    disk.create_dirs(&run).unwrap();
    disk.link("../outside", &run.join(".tmp-00000009")).unwrap();
    assert_eq!(disk.kind(&run.join(".tmp-00000009")).unwrap(), EntryKind::Link);
    drop(Store::open(disk.clone(), &run).unwrap_or_else(|e| panic!("{e}")));
    assert_eq!(disk.names(&run).unwrap(), ["lock"]);
    assert_eq!(disk.names(&outside).unwrap(), ["precious"]);

    let pipe = dir.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(disk.kind(&pipe).unwrap(), EntryKind::Other);
    for path in [pipe.as_path(), dir.as_path(), Path::new("/dev/null")] {
        let refused = disk.open(path).err().map(|e| e.kind());
        assert_eq!(refused, Some(ErrorKind::InvalidInput), "{}", path.display());
        assert!(disk.len(path).is_err());
    }
    let kinds = [
        disk.create(&outside.join("precious"), 1).err().map(|e| e.kind()),
        disk.create_dir(&outside).err().map(|e| e.kind()),
        disk.open(&outside.join("no")).err().map(|e| e.kind()),
    ];
    assert_eq!(kinds, [Some(ErrorKind::AlreadyExists), Some(ErrorKind::AlreadyExists), Some(ErrorKind::NotFound)]);
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_full_device_says_so() {
    let mut full = RealDisk.append(Path::new("/dev/full")).unwrap();
    assert_eq!(full.write_all(b"x").unwrap_err().raw_os_error(), Some(libc::ENOSPC));
}

/// In a process of its own, whose files may not grow over 20,000 bytes: the save fails, the run goes on.
#[test]
fn a_limit_on_file_sizes_costs_one_save() {
    const IS_CHILD: &str = "LICHEN_TEST_FILE_SIZE_LIMIT";
    if let Ok(run) = std::env::var(IS_CHILD) {
        return save_under_a_limit(Path::new(&run));
    }
    let dir = temp_dir("checkpoints-limit");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "real::a_limit_on_file_sizes_costs_one_save", "--nocapture"]);
    let out = child.env(IS_CHILD, dir.join("run")).output().unwrap();
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{text}");
    // Seen from outside: the checkpoint before the failure, and the one after it.
    let mut store = Store::open(disk(), &dir.join("run")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(recovered(&mut store).unwrap(), Some((3, contents(8, 3, 0))));
    assert_eq!(
        disk().names(&dir.join("run")).unwrap(),
        [".links-lock", "latest", "lock", "step-00000001", "step-00000003"]
    );
    std::fs::remove_dir_all(dir).unwrap();
}

fn save_under_a_limit(run: &Path) {
    let limit = libc::rlimit { rlim_cur: 20_000, rlim_max: 20_000 };
    // SAFETY:
    // - Both calls take numbers and one structure that outlives them; this process runs this one test.
    let status = unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        libc::setrlimit(libc::RLIMIT_FSIZE, &limit)
    };
    assert_eq!(status, 0);
    let mut store = Store::open(disk(), run).unwrap_or_else(|e| panic!("{e}"));
    save(&mut store, 1, &contents(8, 1, 0)).unwrap_or_else(|e| panic!("{e}"));
    let error = save(&mut store, 2, &[("large.bin", vec![7; 30_000])].to_vec()).unwrap_err();
    assert!(error.message().contains("large.bin: File too large"), "{error}");
    save(&mut store, 3, &contents(8, 3, 0)).unwrap_or_else(|e| panic!("{e}"));
}
