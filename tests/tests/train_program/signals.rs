//! SIGTERM and SIGINT at random instants: the step ends, what there is is saved, and the run goes on bit for bit. And readers
//! that leave.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use lichen_tests::formats::random::{n_inputs, seed, Random};
use lichen_tests::programs::{lichen_train, send};

use crate::support::{checkpoints, command, flags, run, wait_at_most, Run, TempDir, Trained, MODELS};

const N_STEPS: u64 = 40;
/// From the signal to the end: a step of these models takes well under a second on the slowest machine.
const END_MAX: Duration = Duration::from_secs(21);

fn resumed(model: &str, out: &Path) -> Vec<String> {
    [flags(model, out, N_STEPS), vec!["--resume".to_string()]].concat()
}

/// Starts the program and waits for its first line: from then on it has heard of signals.
fn spawn(arguments: &[String]) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    stderr.read_line(&mut String::new()).expect("a line");
    (child, stderr)
}

/// Waits for its end, for a while.
fn end(mut child: Child, mut stderr: BufReader<std::process::ChildStderr>) -> Run {
    assert!(wait_at_most(&mut child, END_MAX), "it does not end");
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("UTF-8");
    Run { stderr: text, ..Run::from(child.wait_with_output().expect("our child")) }
}

fn reference(folder: &TempDir, model: &str) -> (Trained, Duration) {
    // Built before the clock runs.
    lichen_train();
    let (whole, began) = (folder.path("whole"), Instant::now());
    run(&flags(model, &whole, N_STEPS)).ok();
    (Trained::read(&whole, N_STEPS), began.elapsed())
}

#[test]
fn the_first_signal_saves() {
    let mut random = Random::new(seed(3501));
    let n_signals = n_inputs(5).max(1);
    for model in MODELS {
        let folder = TempDir::new(&format!("signals-{model}"));
        let (want, run_time) = reference(&folder, model);
        let (mut n_stopped, mut n_runs, mut slowest) = (0, 0, Duration::ZERO);
        while n_stopped < n_signals {
            let out = folder.path(&format!("run-{n_runs}"));
            n_runs += 1;
            loop {
                let (mut child, stderr) = spawn(&resumed(model, &out));
                let is_done = wait_at_most(&mut child, run_time.mul_f64(0.5 * random.below(1000) as f64 / 1000.0));
                let signal = *random.pick(&[libc::SIGTERM, libc::SIGINT]);
                if !is_done {
                    send(&child, signal);
                }
                let sent = Instant::now();
                let ended = end(child, stderr).ok();
                slowest = slowest.max(sent.elapsed());
                if !ended.stdout.starts_with("stopped and saved: ") {
                    break;
                }
                n_stopped += 1;
                assert!(!is_done && ended.stderr.contains("stopping after this step"), "{ended:?}");
                let newest = checkpoints(&out).pop().expect("it was saved");
                let said = format!("stopped and saved: {}/step-{newest:08}: {newest} of 40 steps", out.display());
                assert!(ended.stdout.starts_with(&said), "{said}: {ended:?}");
            }
            Trained::read(&out, N_STEPS).assert_equals(&want, &format!("{model}, run {n_runs}"));
        }
        println!("{model}: {n_stopped} stops in {n_runs} runs, the slowest took {slowest:?}");
    }
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let mut random = Random::new(seed(3502));
    let model = MODELS[1];
    let folder = TempDir::new("second-signal");
    let (want, run_time) = reference(&folder, model);
    let out = folder.path("run");
    let (n_tries, mut n_ended) = (n_inputs(8).max(1), 0);
    for n in 0..n_tries {
        let (mut child, stderr) = spawn(&resumed(model, &out));
        let is_done = wait_at_most(&mut child, run_time.mul_f64(0.3 * random.below(1000) as f64 / 1000.0));
        // In either order: both count.
        let (first, second) =
            if n.is_multiple_of(2) { (libc::SIGTERM, libc::SIGINT) } else { (libc::SIGINT, libc::SIGTERM) };
        if !is_done {
            send(&child, first);
            send(&child, second);
        }
        let sent = Instant::now();
        let ended = end(child, stderr);
        match ended.code {
            Some(130) => {
                n_ended += 1;
                assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
            }
            // It was saving already, or done.
            Some(0) => {}
            _ => panic!("{ended:?}"),
        }
        if checkpoints(&out).last() == Some(&N_STEPS) {
            std::fs::remove_dir_all(&out).expect("ours");
        }
    }
    println!("{n_ended} of {n_tries} ended with 130");
    assert!(2 * n_ended >= n_tries, "{n_ended} of {n_tries}");
    run(&resumed(model, &out)).ok();
    Trained::read(&out, N_STEPS).assert_equals(&want, "after second signals");
}

/// Nobody reads: neither SIGPIPE nor a full or closed descriptor costs the run.
#[test]
fn readers_that_leave_cost_nothing() {
    let model = MODELS[1];
    let folder = TempDir::new("readers");
    let (want, _) = reference(&folder, model);
    let check = |name: &str, run: Run, code: i32| {
        assert_eq!((run.code, run.signal), (Some(code), None), "{name}: {run:?}");
        Trained::read(&folder.path(name), N_STEPS).assert_equals(&want, name);
        run
    };
    let mut child = command(&resumed(model, &folder.path("pipes")));
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop((child.stdout.take(), child.stderr.take()));
    check("pipes", child.wait_with_output().expect("our child").into(), 0);

    let arguments = resumed(model, &folder.path("closed"));
    let shell = r#"exec "$0" "$@" >&- 2>&-"#;
    let mut closed = std::process::Command::new("sh");
    let closed = closed.args(["-c", shell]).arg(lichen_train()).args(&arguments).output().expect("it starts");
    check("closed", closed.into(), 0);

    let full = || std::fs::File::options().write(true).open("/dev/full").expect("a full device");
    let mut command = command(&resumed(model, &folder.path("full")));
    let ended: Run = command.stdout(full()).output().expect("it starts").into();
    let ended = check("full", ended, 1);
    let last = ended.stderr.lines().last();
    assert_eq!(last, Some("error: standard output: No space left on device (os error 28)"), "{ended:?}");
}
