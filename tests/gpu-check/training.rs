//! `lichen-train bench` on shapes of released models.

use serde_json::{json, Value};

use crate::processes::{self, program};
use crate::Plan;

/// Geometry, format, whether every weight is trained, samples, tokens of each, rank, and whether the Nano's kernels are
/// measured too.
struct Case {
    geometry: &'static str,
    format: &'static str,
    full: bool,
    batch: usize,
    max_seq: usize,
    rank: usize,
    oldest: bool,
}

/// On-device personalisation, the workstation's QLoRA, and its fine-tuning of every weight.
const CASES: [Case; 4] = [
    Case { geometry: "gemma-3-1b", format: "q8_0", full: false, batch: 1, max_seq: 256, rank: 8, oldest: true },
    Case { geometry: "gemma-3-1b", format: "nf4", full: false, batch: 1, max_seq: 256, rank: 8, oldest: true },
    Case { geometry: "qwen2.5-7b", format: "nf4", full: false, batch: 16, max_seq: 512, rank: 32, oldest: false },
    Case { geometry: "qwen2.5-0.5b", format: "bf16", full: true, batch: 16, max_seq: 512, rank: 0, oldest: false },
];

/// Runs each case with the device's best kernels. (results, whether all ran)
pub fn run(plan: &Plan) -> (Value, bool) {
    let mut results = Vec::new();
    for case in &CASES {
        // A rehearsal takes the smallest case, with few tokens.
        if plan.quick && (case.full || case.format == "nf4") {
            continue;
        }
        for arch in plan.archs.iter().filter(|arch| case.oldest || **arch == plan.archs[0]) {
            let mut command = program(plan, "lichen-train");
            command.args(arguments(plan, case)).env("LICHEN_CUDA_ARCH", arch.to_string());
            let name = format!("train-{}-{}-sm_{arch}", case.geometry, case.format);
            let outcome = processes::run(plan, &name, &mut command);
            let report: Value = serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null);
            results.push(json!({
                "geometry": case.geometry,
                "format": case.format,
                "full": case.full,
                "arch": arch,
                "ok": outcome.ok,
                "end": outcome.end,
                "error": (!outcome.ok).then(|| outcome.output.lines().last().unwrap_or("").to_string()),
                "report": report,
            }));
        }
    }
    let ok = !results.is_empty() && results.iter().all(|r| r["ok"] == true);
    (Value::Array(results), ok)
}

fn arguments(plan: &Plan, case: &Case) -> Vec<String> {
    let (geometry, max_seq, steps) = match plan.quick {
        true => ("gemma-3-270m", 8, 1),
        false => (case.geometry, case.max_seq, 5),
    };
    let what = if case.full { "--full".to_string() } else { format!("--rank {}", case.rank) };
    let text = format!(
        "bench --device cuda --json --geometry {geometry} --format {} {what} --batch {} --max-seq {max_seq} --steps {steps}",
        case.format, case.batch,
    );
    text.split_whitespace().map(str::to_string).collect()
}
