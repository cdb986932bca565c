//! `lichen-gpu-check`: what `make gpu-check` runs on a machine with a real driver. All parity tests, the model benchmarks,
//! the kernel benchmarks and, where it is installed, compute-sanitizer; one JSON comes out of it.
//!
//! It needs no cargo: run.sh beside it says where the test binaries, the programs and the fixtures lie.

mod attention;
mod batch;
mod kernels;
mod models;
mod processes;
#[cfg(test)]
mod rehearsal;
mod roofline;
mod tests;
mod training;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use lichen_kernels::cuda::{embedded_archs, Cuda, CudaOptions, DeviceInfo, NOT_COMPILED};
use serde_json::{json, Map, Value};

const USAGE: &str = "Usage: run.sh [tests] [kernels] [models] [batch] [training] [sanitizer]
              [--quick]

Without names, all six. --quick takes the smallest sizes: a rehearsal, not a result.

Environment: OUT=FOLDER for the JSON and the logs; LICHEN_GPU_CHECK_LIMIT_S, the seconds one program may run
[default: 1200]; LICHEN_GPU_CHECK_MODELS=gemma-3-1b:q8_0,... for other models; LICHEN_GPU_CHECK_PRODUCTS='72b gate nf4',
say, for a part of the kernels; LICHEN_CUDA_ARCH has no effect: the tests run the kernels of every architecture up to the
device's, measurements its best and the Nano's.";

/// What to run, and how.
pub struct Plan {
    pub steps: Vec<String>,
    pub quick: bool,
    /// Where the JSON and the logs go.
    pub out: PathBuf,
    /// Folder of run.sh: tests/ with the test binaries, bin/ with the programs.
    pub package: PathBuf,
    /// Architectures whose kernels are measured: the device's best, and the oldest.
    pub archs: Vec<u32>,
    /// Architectures whose kernels are tested: all that the device runs.
    pub tested_archs: Vec<u32>,
}

impl Plan {
    fn has(&self, step: &str) -> bool {
        self.steps.is_empty() || self.steps.iter().any(|s| s == step)
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // One process for each set of kernels: a device that is lost is lost for its process alone.
        ["measure-kernels", arch, quick] => measure_kernels(arch, quick == "quick"),
        ["--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => plan(args).and_then(check),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(sentence) => {
            eprintln!("gpu-check: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn plan(args: Vec<String>) -> Result<Plan, String> {
    let (flags, steps): (Vec<String>, Vec<String>) = args.into_iter().partition(|a| a.starts_with('-'));
    let known = ["tests", "kernels", "models", "batch", "training", "sanitizer"];
    if flags.iter().any(|f| f != "--quick") || steps.iter().any(|s| !known.contains(&s.as_str())) {
        return Err(USAGE.to_string());
    }
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let package = program.parent().and_then(|bin| bin.parent()).ok_or("no folder above the program's")?.to_path_buf();
    let out = std::env::var_os("OUT").map_or_else(|| package.join("results"), PathBuf::from);
    Ok(Plan { steps, quick: !flags.is_empty(), out, package, archs: Vec::new(), tested_archs: Vec::new() })
}

/// The whole check; false when a test failed.
fn check(mut plan: Plan) -> Result<bool, String> {
    let device = device()?;
    plan.tested_archs = embedded_archs().into_iter().filter(|arch| *arch <= device.capability).rev().collect();
    plan.archs = best_and_oldest(&device, &plan.tested_archs)?;
    let plan = &plan;
    std::fs::create_dir_all(plan.out.join("logs")).map_err(|e| format!("{}: {e}", plan.out.display()))?;
    println!("gpu-check: {}, tests of sm_{:?}, measurements of sm_{:?}", device.name, plan.tested_archs, plan.archs);
    let mut report = head(plan, &device);
    let mut passed = true;
    if plan.has("tests") {
        let (results, ok) = tests::run(plan);
        report.insert("tests".into(), results);
        passed &= ok;
    }
    if plan.has("kernels") {
        let (results, ok) = kernels::run(plan);
        report.insert("kernels".into(), results);
        passed &= ok;
    }
    if plan.has("models") {
        let (results, ok) = models::run(plan, report.get("kernels"), &device);
        report.insert("models".into(), results);
        passed &= ok;
    }
    if plan.has("batch") {
        let (results, ok) = batch::run(plan);
        report.insert("batch".into(), results);
        passed &= ok;
    }
    if plan.has("training") {
        let (results, ok) = training::run(plan);
        report.insert("training".into(), results);
        passed &= ok;
    }
    if plan.has("sanitizer") {
        let (results, ok) = tests::sanitize(plan);
        report.insert("sanitizer".into(), results);
        passed &= ok;
    }
    report.insert("passed".into(), json!(passed));
    let path = plan.out.join(format!("{}-{}.json", slug(&device.name), date()));
    let text = serde_json::to_string_pretty(&report).expect("JSON") + "\n";
    std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    println!("gpu-check: {}, written to {}", if passed { "passed" } else { "FAILED" }, path.display());
    Ok(passed)
}

/// The device that is checked: the first one.
fn device() -> Result<DeviceInfo, String> {
    if let Some(why) = NOT_COMPILED {
        return Err(why.to_string());
    }
    let devices = Cuda::list().map_err(|e| e.to_string())?;
    devices.into_iter().next().ok_or_else(|| "the driver knows no device".to_string())
}

/// The device's best kernels and the Nano's: the same PTX that a Nano gets. `archs` come newest first.
fn best_and_oldest(device: &DeviceInfo, archs: &[u32]) -> Result<Vec<u32>, String> {
    let (Some(best), Some(oldest)) = (archs.first(), archs.last()) else {
        return Err(format!("{} is older than every kernel in this program", device.name));
    };
    Ok(if best == oldest { vec![*best] } else { vec![*best, *oldest] })
}

fn head(plan: &Plan, device: &DeviceInfo) -> Map<String, Value> {
    let value = json!({
        "date": date(),
        "version": env!("CARGO_PKG_VERSION"),
        "commit": std::env::var("LICHEN_COMMIT").ok(),
        "driver": if device.is_emulated() { "emulator" } else { "machine" },
        "quick": plan.quick,
        "device": {
            "name": device.name,
            "capability": device.capability,
            "total_bytes": device.total_bytes,
            "driver_version": device.driver_version,
            "multiprocessors": device.n_sms,
            "integrated": device.is_integrated,
        },
        "published": roofline::published(&device.name).map(|r| r.json()),
    });
    value.as_object().expect("an object").clone()
}

fn measure_kernels(arch: &str, quick: bool) -> Result<bool, String> {
    let arch = arch.parse().map_err(|_| format!("{arch} is no architecture"))?;
    let cuda = Cuda::open(&CudaOptions { arch: Some(arch), ..CudaOptions::default() }).map_err(|e| e.to_string())?;
    let results = kernels::measure(cuda, quick).map_err(|e| e.to_string())?;
    println!("{results}");
    Ok(true)
}

/// `NVIDIA H200` is `nvidia-h200`.
fn slug(name: &str) -> String {
    let words: Vec<String> =
        name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect();
    words.join("-")
}

/// Today in UTC, `2026-11-23`.
fn date() -> String {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() / 86_400) as i64;
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March, eras have 400 of them.
    let z = days + 719_468;
    let (era, day_of_era) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}
