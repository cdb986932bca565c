//! Whole jobs through the library, on a disk in memory: what they end with does not depend on where they were stopped.

use lichen_runtime::engine::DeviceChoice;
use lichen_tests::sim_disk::SimDisk;
use lichen_trainer::job::{Job, Method};

use crate::library::{self, finish, job, open, run};
use crate::opened;
use crate::support::TempDir;

const MODEL: &str = crate::networks::MODELS[1];
const N_STEPS: u64 = 6;

/// Devices as a job names them: on the emulator the oldest family's and the newest's.
fn choices() -> Vec<DeviceChoice> {
    match opened().first() {
        None => Vec::new(),
        Some(cuda) if cuda.info().is_emulated() => [0, 2].map(DeviceChoice::Cuda).to_vec(),
        Some(_) => vec![DeviceChoice::Cuda(0)],
    }
}

fn job_on(device: DeviceChoice) -> Job {
    let mut job = job(MODEL, N_STEPS);
    job.memory.device = device;
    job
}

#[test]
fn a_stopped_job_ends_as_an_undisturbed_one() {
    for device in choices() {
        let mut opened = open(job_on(device));
        let want = finish(&mut opened, &SimDisk::new());
        assert!(!want.files.is_empty() && want.rows.len() == N_STEPS as usize);
        for stop_at in [1, 4] {
            let disk = SimDisk::new();
            let stopped = run(&mut opened, &disk, Some(stop_at)).outcome.unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(stopped.step, stop_at);
            // PreparedJob anew, as by another process.
            let mut again = open(job_on(device));
            finish(&mut again, &disk).assert_equals(&want, &format!("{device:?}, stopped after {stop_at}"));
        }
    }
}

/// Questions are answered on the device, by the adapter as it stands there, and by the weights that training has changed.
#[test]
fn regression_prompts_are_asked_on_the_device() {
    let folder = TempDir::new("cuda-regression-prompts");
    let path = folder.path("regression_prompts.jsonl");
    std::fs::write(&path, "{\"prompt\": \"What?\", \"expect\": \"zebra\"}\n").expect("written");
    for device in choices() {
        for method in [Method::Lora, Method::Full] {
            let mut job = Job { regression_prompts: Some(path.clone()), max_steps: Some(1), ..job_on(device) };
            job.memory.method = method;
            let mut opened = open(job);
            let outcome = run(&mut opened, &SimDisk::new(), None).outcome.unwrap_or_else(|e| panic!("{e}"));
            let after = outcome.after.unwrap_or_else(|| panic!("{device:?}: not measured"));
            assert_eq!(after.answers.len(), 1, "{device:?}");
            assert!(after.eval_loss.is_some_and(f64::is_finite), "{device:?}");
        }
    }
}

/// A run goes over to another device: that is said, and no reason to refuse it.
#[test]
fn a_job_goes_on_on_another_device() {
    let Some(device) = choices().first().copied() else { return };
    for (from, to, words) in [
        (device, DeviceChoice::Cpu, ["was computed on cuda (", "goes on on cpu ("]),
        (DeviceChoice::Cpu, device, ["was computed on cpu (", "goes on on cuda ("]),
    ] {
        let disk = SimDisk::new();
        run(&mut open(job_on(from)), &disk, Some(3)).outcome.unwrap_or_else(|e| panic!("{e}"));
        let done = run(&mut open(job_on(to)), &disk, None);
        let outcome = done.outcome.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((outcome.resumed, outcome.step), (Some(3), N_STEPS));
        let said = |note: &&String| words.iter().all(|word| note.contains(word));
        assert_eq!(done.notes.iter().filter(said).count(), 1, "{from:?} to {to:?}: {:?}", done.notes);
        let trained = library::trained(&disk, N_STEPS);
        let state = String::from_utf8_lossy(&trained.files["state.json"]).into_owned();
        let now = if to == DeviceChoice::Cpu { "\"device\": \"cpu (" } else { "\"device\": \"cuda (" };
        assert!(state.contains(now), "{state}");
    }
    // Not said where nothing has changed.
    let disk = SimDisk::new();
    run(&mut open(job_on(device)), &disk, Some(3)).outcome.unwrap_or_else(|e| panic!("{e}"));
    let done = run(&mut open(job_on(device)), &disk, Some(4));
    assert!(done.notes.iter().all(|note| !note.contains("was computed on")), "{:?}", done.notes);
}
