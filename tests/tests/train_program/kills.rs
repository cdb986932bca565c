//! The program is killed at uniformly random instants, again and again, until it is done.

use std::path::Path;
use std::time::{Duration, Instant};

use lichen_tests::formats::random::{n_inputs, seed, Random};
use lichen_tests::programs::lichen_train;

use crate::support::{checkpoints, flags, run, spawn, wait_at_most, Run, TempDir, Trained, MODELS};

const N_STEPS: u64 = 40;

#[derive(Debug, Default)]
struct Tally {
    runs: usize,
    kills: usize,
    resumes: usize,
    /// Checkpoints that a start turned down.
    rejected: usize,
}

#[test]
fn a_killed_run_ends_as_an_undisturbed_one() {
    let mut random = Random::new(seed(3301));
    let n_kills = n_inputs(10).max(1);
    // Built before the clock runs.
    lichen_train();
    for model in MODELS {
        let folder = TempDir::new(&format!("kills-{model}"));
        let (out, whole) = (folder.path("run"), folder.path("whole"));
        let began = Instant::now();
        run(&flags(model, &whole, N_STEPS)).ok();
        let run_time = began.elapsed();
        let want = Trained::read(&whole, N_STEPS);
        let mut tally = Tally::default();
        while tally.kills < n_kills {
            // A second round is resumed with other numbers of threads than it was begun with.
            let threads = if tally.runs.is_multiple_of(2) { &["2"][..] } else { &["1", "2", "4"] };
            let _ = std::fs::remove_dir_all(&out);
            kill_until_done(model, &out, threads, run_time, &mut tally, &mut random);
            let got = Trained::read(&out, N_STEPS);
            let case = format!("{model}, {tally:?}");
            match threads.len() {
                1 => got.assert_equals(&want, &case),
                _ => got.without_device().assert_equals(&want.clone().without_device(), &case),
            }
        }
        println!("{model}: {tally:?} in {:.1} s", began.elapsed().as_secs_f64());
    }
}

/// Starts the run and kills it within two fifths of the time that a whole one takes, until one comes to its end.
fn kill_until_done(
    model: &str,
    out: &Path,
    threads: &[&str],
    run_time: Duration,
    tally: &mut Tally,
    random: &mut Random,
) {
    tally.runs += 1;
    let mut arguments = flags(model, out, N_STEPS);
    arguments.push("--resume".to_string());
    for _ in 0..1000 {
        tally.resumes += usize::from(!checkpoints(out).is_empty());
        *arguments.iter_mut().skip_while(|a| *a != "--threads").nth(1).expect("a number") =
            random.pick(threads).to_string();
        let mut child = spawn(&arguments);
        wait_at_most(&mut child, run_time.mul_f64(0.4 * random.below(1000) as f64 / 1000.0));
        // SIGKILL; a process that has ended is not there any more.
        child.kill().expect("our child");
        let ended: Run = child.wait_with_output().expect("our child").into();
        tally.rejected += ended.stderr.lines().filter(|l| l.starts_with("step ") && l.contains(" skipped: ")).count();
        match (ended.code, ended.signal) {
            (Some(0), _) => return,
            (None, Some(libc::SIGKILL)) => tally.kills += 1,
            _ => panic!("{tally:?}: {ended:?}"),
        }
    }
    panic!("{model}: no end after 1000 kills: {tally:?}");
}
