//! `lichen-train` with a GPU: its memory plan, what it refuses, and SIGKILL.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lichen_tests::programs::{self, emulate, is_machine};
use serde_json::Value;

use crate::support::{self, checkpoints, flags, wait_at_most, Run, TempDir, Trained};

const MODEL: &str = crate::networks::MODELS[1];

/// The program, which sees one device: this machine's, or one that is emulated.
fn command<S: AsRef<str>>(arguments: &[S], arch: u32, memory_mib: usize) -> Command {
    let mut command = support::command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if !is_machine() {
        emulate(&mut command);
        command.env("LICHEN_EMULATOR_DEVICES", arch.to_string());
        command.env("LICHEN_EMULATOR_MEMORY_MIB", memory_mib.to_string());
    }
    command
}

fn run(text: &str, arch: u32, memory_mib: usize) -> Run {
    let arguments: Vec<&str> = text.split_whitespace().collect();
    programs::run(&mut command(&arguments, arch, memory_mib))
}

/// Whether there are kernels to test. A build without clang has none: that must be meant, or the test fails.
fn has_kernels() -> bool {
    match lichen_kernels::cuda::NOT_COMPILED {
        None => true,
        Some(why) => {
            assert!(std::env::var_os("LICHEN_REQUIRE_CUDA").is_none(), "{why}");
            println!("NOT TESTED: {why}");
            false
        }
    }
}

/// Whether devices are emulated, with the memory that a test gives them. A GPU of the machine has its own: that is said.
fn is_emulated() -> bool {
    if is_machine() {
        println!("NOT TESTED: this machine's GPU has memory of its own, and the test is about a smaller one");
    }
    !is_machine()
}

/// Gemma 3 1B with an adapter on all matrices trains on a board whose 4 GB CPU and GPU share: an emulated one.
#[test]
fn a_board_of_four_gigabytes_trains_a_billion_weights() {
    if !has_kernels() || !is_emulated() {
        return;
    }
    let text = "plan --geometry gemma-3-1b --rank 8 --max-seq 256 --device cuda --memory-budget 3GiB --json";
    let plan = run(text, 53, 4096).ok().json();
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{plan}"));
    let items = plan["items"].as_array().expect("items");
    let in_place = |place: &str| items.iter().filter(|i| i["place"] == place).map(|i| number(&i["bytes"])).sum::<u64>();
    assert_eq!(plan["kept_layers"], 26, "{plan}");
    assert_eq!(in_place("gpu"), number(&plan["gpu_bytes"]), "{plan}");
    let sum: u64 = ["gpu", "pinned", "host", "mapped"].map(in_place).into_iter().sum();
    assert_eq!(sum, number(&plan["total_bytes"]), "{plan}");
    assert!(in_place("pinned") > 0 && number(&plan["gpu_bytes"]) < 2 << 30, "{plan}");
    // With half of the board layers are recomputed; with less than the weights it is refused.
    let less = run(&text.replace("3GiB", "2048MiB"), 53, 4096).ok().json();
    assert!(number(&less["kept_layers"]) < 26 && less["fits"] == true, "{less}");
    let least = run(&text.replace("3GiB", "1GiB"), 53, 4096);
    assert_eq!((least.code, least.any_json()["fits"].as_bool()), (Some(1), Some(false)));
}

#[test]
fn a_plan_for_a_machine_that_is_not_here() {
    let text = "plan --geometry qwen2.5-7b --format nf4 --rank 32 --batch 16 --max-seq 512 --gpu-memory 80GB --json";
    let plan = run(text, 53, 64).ok().json();
    assert_eq!((&plan["kept_layers"], &plan["fits"]), (&28.into(), &true.into()), "{plan}");
    let small = run(&text.replace("80GB", "4GB"), 53, 64);
    assert_eq!(small.code, Some(1), "{small:?}");
    assert!(small.stderr.contains("the GPU has left") && small.stderr.contains("weights, gpu"), "{small:?}");
    // The GPU check takes this program to another machine, where there is no repository.
    let board = concat!(env!("CARGO_MANIFEST_DIR"), "/../device-configs/jetson-nano-4gb.toml");
    match std::path::Path::new(board).exists() {
        true => {
            let text = format!("plan --geometry gemma-3-270m --gpu-memory 4GiB --device-config {board}");
            let said = run(&text, 53, 64).ok().stdout;
            assert!(said.contains("left of the budget") && said.contains("left of the board"), "{said}");
        }
        false => {
            let is_taken_along = std::env::var_os(lichen_tests::programs::PROGRAMS).is_some();
            assert!(is_taken_along, "{board} is missing");
            println!("NOT TESTED: a board's file, {board} is not on this machine");
        }
    }
}

#[test]
fn what_does_not_fit_a_device_is_refused_with_its_plan() {
    if !has_kernels() || !is_emulated() {
        return;
    }
    let folder = TempDir::new("cuda-small");
    let out = folder.path("run");
    let job = flags(MODEL, &out, 2).join(" ").replace("--device cpu", "--device cuda");
    for text in [job.as_str(), "bench --geometry qwen2.5-0.5b --steps 1 --device cuda"] {
        let ended = run(text, 53, 4);
        assert_eq!((ended.code, out.exists()), (Some(1), false), "{ended:?}");
        let said = ended.error();
        assert!(said.contains("the GPU has left") && said.contains("--device cpu"), "{said}");
    }
}

/// Killed at an instant that the clock chooses, resumed, and equal to a run that was left alone.
#[test]
fn a_killed_run_ends_as_an_undisturbed_one() {
    const N_STEPS: u64 = 6;
    if !has_kernels() {
        return;
    }
    let folder = TempDir::new("cuda-kills");
    let (out, whole) = (folder.path("run"), folder.path("whole"));
    let job = |out: &std::path::Path| -> Vec<String> {
        let job = flags(MODEL, out, N_STEPS).join(" ").replace("--device cpu", "--device cuda");
        let job = job.replace("--save-every 3", "--save-every 1");
        job.split(' ').map(str::to_string).collect()
    };
    let began = Instant::now();
    Run::from(command(&job(&whole), 80, 4096).output().expect("the program starts")).ok();
    let (run_time, want) = (began.elapsed(), Trained::read(&whole, N_STEPS));
    let mut n_kills = 0;
    for attempt in 1..=20 {
        let arguments = [job(&out), vec!["--resume".to_string()]].concat();
        let mut child = command(&arguments, 80, 4096).spawn().expect("the program starts");
        // Never the same share of a run, and after three kills as long as it takes.
        let time = run_time.mul_f64(0.25 + 0.17 * f64::from(attempt));
        wait_at_most(&mut child, if n_kills < 3 { time } else { Duration::from_secs(600) });
        child.kill().expect("our child");
        let ended: Run = child.wait_with_output().expect("our child").into();
        match (ended.code, ended.signal) {
            (Some(0), _) => break,
            (None, Some(libc::SIGKILL)) => n_kills += 1,
            _ => panic!("{ended:?}"),
        }
    }
    println!("{n_kills} kills, checkpoints {:?}", checkpoints(&out));
    Trained::read(&out, N_STEPS).assert_equals(&want, "after kills");
}
