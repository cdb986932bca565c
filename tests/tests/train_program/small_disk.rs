//! No room for checkpoints: the run goes on with the one it has, says so once, and gives up after three.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use lichen_tests::programs::lichen_train;

use crate::support::{checkpoints, command, flags, run, tree, Run, TempDir, Trained, MODELS};

const N_STEPS: u64 = 24;

/// All files of all checkpoints.
fn snapshot(run: &Path) -> BTreeMap<u64, BTreeMap<String, Vec<u8>>> {
    checkpoints(run).into_iter().map(|step| (step, tree(&run.join(format!("step-{step:08}"))))).collect()
}

fn resumed(out: &Path) -> Vec<String> {
    [flags(MODELS[0], out, N_STEPS), vec!["--resume".to_string()]].concat()
}

/// Notes about saves, and the sentence at the end.
fn check_refusal(ended: &Run, cause: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let notes: Vec<&str> = ended.stderr.lines().filter(|l| l.contains("is not saved")).collect();
    assert_eq!(notes.len(), 1, "{ended:?}");
    assert!(notes[0].contains("training goes on: ") && notes[0].contains(cause), "{ended:?}");
    let said = ended.error();
    assert!(said.contains(cause) && said.ends_with("; 3 checkpoints in a row could not be saved"), "{said}");
}

#[test]
fn files_that_may_not_grow() {
    let folder = TempDir::new("file-size");
    let (out, whole) = (folder.path("run"), folder.path("whole"));
    run(&flags(MODELS[0], &whole, N_STEPS)).ok();
    // The optimiser's file has 258,000 bytes, the adapter's half of that.
    for limit in [200_000, 50_000, 400] {
        let _ = std::fs::remove_dir_all(&out);
        // Killed once it has two checkpoints.
        let mut child = crate::support::spawn(&resumed(&out));
        while checkpoints(&out).len() < 2 && child.try_wait().expect("our child").is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().expect("our child");
        child.wait().expect("our child");
        let before = snapshot(&out);
        let ended = limited(&resumed(&out), limit);
        check_refusal(&ended, "File too large (os error 27)");
        for (step, files) in &before {
            assert!(snapshot(&out).get(step) == Some(files), "{limit}: step {step} has changed");
        }
        let leftovers = std::fs::read_dir(&out).expect("a run").map(|e| e.expect("read").file_name());
        let leftovers: Vec<_> = leftovers.filter(|n| n.to_string_lossy().starts_with(".tmp")).collect();
        assert!(leftovers.is_empty(), "{limit}: {leftovers:?}");
        // Three saves were tried beyond the last checkpoint: the rows are there where they fit.
        run(&resumed(&out)).ok();
        Trained::read(&out, N_STEPS).assert_files_equal(&Trained::read(&whole, N_STEPS), &format!("limit {limit}"));
    }
}

/// Runs the program in a process whose files may not grow over so many bytes.
fn limited(arguments: &[String], n_bytes: u64) -> Run {
    let mut command = command(arguments);
    let limit = libc::rlimit { rlim_cur: n_bytes, rlim_max: n_bytes };
    // SAFETY:
    // - Between fork and exec: two calls that are safe there, with numbers and one structure that the closure owns.
    let command = unsafe {
        command.pre_exec(move || {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    };
    command.output().expect("it starts").into()
}

/// A file system of 1 MiB takes two checkpoints of 400 kB and not a third. In a mount namespace of its own, where the system
/// lets us; the result is copied out of it.
#[test]
fn a_file_system_that_is_full() {
    let folder = TempDir::new("full");
    let (mount, copy) = (folder.path("mount"), folder.path("copy"));
    std::fs::create_dir(&mount).expect("a folder");
    let script = r#"mount -t tmpfs -o size=1152k none "$MOUNT" || exit 99
        "$@"; code=$?; cp -a "$MOUNT/." "$COPY"; exit $code"#;
    let mut command = Command::new("unshare");
    command.args(["-Urm", "sh", "-c", script, "sh"]).arg(lichen_train()).args(resumed(&mount.join("run")));
    let ended: Run = match command.env("MOUNT", &mount).env("COPY", &copy).output() {
        Ok(output) => output.into(),
        Err(e) => return println!("no unshare here: {e}; the limits on files stand for it"),
    };
    if ended.code == Some(99) || ended.stderr.starts_with("unshare: ") {
        return println!("no mounts here: {}; the limits on files stand for it", ended.stderr.trim());
    }
    check_refusal(&ended, "a checkpoint of 43");
    assert!(ended.error().contains(" free, and ") && ended.error().contains(" are: free "), "{ended:?}");
    let run_folder = copy.join("run");
    assert_eq!(checkpoints(&run_folder), [3, 6]);
    run(&resumed(&run_folder)).ok();
    let whole = folder.path("whole");
    run(&flags(MODELS[0], &whole, N_STEPS)).ok();
    Trained::read(&run_folder, N_STEPS).assert_equals(&Trained::read(&whole, N_STEPS), "after a full disk");
}
