//! The test binaries, with the device's best kernels and with the Nano's; and again under compute-sanitizer.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{json, Value};

use crate::processes::{self, Outcome};
use crate::Plan;

/// Runs each test binary once for each architecture. (results, whether all passed)
pub fn run(plan: &Plan) -> (Value, bool) {
    let (programs, ops): (Vec<_>, Vec<_>) = binaries(plan).into_iter().partition(|b| is_of_the_program(&file_name(b)));
    let of_ops = plan.tested_archs.iter().flat_map(|arch| ops.iter().map(move |binary| (binary, *arch)));
    // These take every architecture in one run.
    let of_programs =
        plan.tested_archs.iter().take(1).flat_map(|arch| programs.iter().map(move |binary| (binary, *arch)));
    let mut results = Vec::new();
    // The programs' tests come after the others: they look at the device's memory.
    for cases in [of_ops.collect::<Vec<_>>(), of_programs.collect()] {
        let command = |(binary, arch): &(&PathBuf, u32)| {
            let name = file_name(binary);
            let label = if is_of_the_program(&name) { name } else { format!("{name}-sm_{arch}") };
            (label, command(binary, *arch))
        };
        let outcomes = processes::run_all(plan, cases.iter().map(command).collect());
        for ((binary, arch), outcome) in cases.iter().zip(&outcomes) {
            let name = file_name(binary);
            let mut result = result(&name, *arch, outcome);
            if is_of_the_program(&name) {
                result["arch"] = json!(plan.tested_archs);
            }
            results.push(result);
        }
    }
    // A package without tests has shown nothing.
    let ok = !results.is_empty() && results.iter().all(|r| r["ok"] == true);
    (Value::Array(results), ok)
}

/// The tests of the ops under compute-sanitizer's memory and race checks.
pub fn sanitize(plan: &Plan) -> (Value, bool) {
    let sanitizer = "compute-sanitizer";
    if Command::new(sanitizer).arg("--version").output().is_err() {
        println!("gpu-check: no {sanitizer} here");
        return (json!("not on this machine"), true);
    }
    // The programs' own tests take processes apart, and those of the driver ask it for what it must refuse; the ops' tests
    // reach every kernel.
    let of_ops = |b: &PathBuf| !is_of_the_program(&file_name(b)) && file_name(b) != "driver";
    let binaries: Vec<PathBuf> = binaries(plan).into_iter().filter(of_ops).collect();
    let cases: Vec<(&str, &PathBuf)> =
        ["memcheck", "racecheck"].into_iter().flat_map(|tool| binaries.iter().map(move |b| (tool, b))).collect();
    let arch = plan.archs[0];
    let commands = cases.iter().map(|(tool, binary)| {
        let mut command = Command::new(sanitizer);
        command.args(["--tool", tool, "--error-exitcode", "9"]);
        if *tool == "memcheck" {
            // A call that the driver refuses and that is then made without is no error: flags of an active context.
            command.args(["--report-api-errors", "no"]);
        }
        command.arg(binary).arg("--test-threads=1");
        // Each allocation by itself, so that a read past one is seen.
        command.env("LICHEN_CUDA_ARENA", "off").env("LICHEN_CUDA_ARCH", arch.to_string());
        (format!("{tool}-{}", file_name(binary)), command)
    });
    let outcomes = processes::run_all(plan, commands.collect());
    let mut results = Vec::new();
    for ((tool, binary), outcome) in cases.iter().zip(&outcomes) {
        let mut result = result(&file_name(binary), arch, outcome);
        result["tool"] = json!(tool);
        result["summary"] = json!(outcome.output.lines().rev().find(|l| l.contains("SUMMARY")));
        results.push(result);
    }
    let ok = results.iter().all(|r| r["ok"] == true);
    (Value::Array(results), ok)
}

/// Files of tests/, in order.
fn binaries(plan: &Plan) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(plan.package.join("tests")).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_file()).collect();
    found.sort();
    found
}

/// Tests of whole models and of `lichen`, where the others call the ops.
fn is_of_the_program(name: &str) -> bool {
    name.starts_with("cuda_")
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn command(binary: &PathBuf, arch: u32) -> Command {
    let mut command = Command::new(binary);
    if !is_of_the_program(&file_name(binary)) {
        command.env("LICHEN_CUDA_ARCH", arch.to_string());
    }
    command
}

fn result(name: &str, arch: u32, outcome: &Outcome) -> Value {
    // `test result: ok. 12 passed; 0 failed; ..`
    let line = outcome.output.lines().find_map(|l| l.strip_prefix("test result: "));
    let count = |word: &str| {
        let parts = line.into_iter().flat_map(|l| l.split([';', '.']));
        parts.map(str::trim).find_map(|p| p.strip_suffix(word)?.trim().parse::<u64>().ok())
    };
    let failed: Vec<&str> =
        outcome.output.lines().filter_map(|l| l.strip_prefix("test ")?.strip_suffix(" ... FAILED")).collect();
    json!({
        "binary": name,
        "arch": arch,
        // A binary whose tests were all left out has tested nothing.
        "ok": outcome.ok && count("passed").is_some_and(|n| n > 0),
        "end": outcome.end,
        "passed": count("passed"),
        "failed": count("failed"),
        "failures": failed,
        "seconds": round(outcome.seconds),
    })
}

fn round(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}
