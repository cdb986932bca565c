//! `lichen-train bench` on shapes of released models.

use serde_json::{json, Value};

use crate::processes::{self, program};
use crate::Plan;

/// Geometry, format, whether every weight is trained, samples, tokens of each, rank, steps, and whether the Nano's kernels
/// are measured too.
struct Case {
    geometry: &'static str,
    format: &'static str,
    full: bool,
    batch: usize,
    max_seq: usize,
    rank: usize,
    steps: usize,
    oldest: bool,
}

const fn adapter(
    geometry: &'static str,
    format: &'static str,
    [batch, max_seq, rank]: [usize; 3],
    oldest: bool,
) -> Case {
    Case { geometry, format, full: false, batch, max_seq, rank, steps: 5, oldest }
}

/// On-device personalisation, the workstation's QLoRA, and its fine-tuning of every weight.
const CASES: [Case; 4] = [
    adapter("gemma-3-1b", "q8_0", [1, 256, 8], true),
    adapter("gemma-3-1b", "nf4", [1, 256, 8], true),
    adapter("qwen2.5-7b", "nf4", [16, 512, 32], false),
    Case { full: true, ..adapter("qwen2.5-0.5b", "bf16", [16, 512, 0], false) },
];
/// The smallest model, with few tokens.
const REHEARSAL: [Case; 1] = [Case { steps: 1, ..adapter("gemma-3-270m", "q8_0", [1, 8, 8], true) }];

/// Runs each case with the device's best kernels. (results, whether all ran)
pub fn run(plan: &Plan) -> (Value, bool) {
    let mut results = Vec::new();
    for case in if plan.quick { &REHEARSAL[..] } else { &CASES } {
        for arch in plan.archs.iter().filter(|arch| case.oldest || **arch == plan.archs[0]) {
            let mut command = program(plan, "lichen-train");
            command.args(arguments(case)).env("LICHEN_CUDA_ARCH", arch.to_string());
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

fn arguments(case: &Case) -> Vec<String> {
    let what = if case.full { "--full".to_string() } else { format!("--rank {}", case.rank) };
    let text = format!(
        "bench --device cuda --json --geometry {} --format {} {what} --batch {} --max-seq {} --steps {}",
        case.geometry, case.format, case.batch, case.max_seq, case.steps
    );
    text.split_whitespace().map(str::to_string).collect()
}
