//! `lichen bench --batch`: a teacher that answers many prompts at once.

use serde_json::{json, Value};

use crate::processes::{self, program};
use crate::Plan;

/// Geometry, format, sequences at once, and tokens of the context, of which the last 32 are decoded. The short one is a
/// teacher's shape that fits any minute.
const CASES: [(&str, &str, usize, usize); 5] = [
    ("qwen2.5-72b", "nf4", 1, 1024),
    ("qwen2.5-72b", "nf4", 16, 1024),
    ("qwen2.5-72b", "nf4", 64, 256),
    ("qwen2.5-72b", "nf4", 32, 1024),
    ("qwen2.5-72b", "nf4", 64, 1024),
];
const NEW_TOKENS: usize = 32;

/// Runs each case with the device's best kernels. (results, whether all ran)
pub fn run(plan: &Plan) -> (Value, bool) {
    let mut results = Vec::new();
    for (geometry, format, n, context) in CASES.into_iter().take(if plan.quick { 1 } else { CASES.len() }) {
        let text = match plan.quick {
            true => {
                "bench --device cuda --json --batch 3 --prompt-tokens 5 --new-tokens 2 --repeat 1 --context 64".into()
            }
            false => format!(
                "bench --device cuda --json --geometry {geometry} --format {format} --batch {n} --context {context} \
                 --prompt-tokens {} --new-tokens {NEW_TOKENS} --repeat 1",
                context - NEW_TOKENS
            ),
        };
        let mut command = program(plan, "lichen");
        command.args(text.split_whitespace()).env("LICHEN_CUDA_ARCH", plan.archs[0].to_string());
        let outcome = processes::run(plan, &format!("batch-{geometry}-{format}-{n}-{context}"), &mut command);
        results.push(json!({
            "geometry": if plan.quick { "the model inside the program" } else { geometry },
            "format": format,
            "batch": n,
            "context": context,
            "arch": plan.archs[0],
            "ok": outcome.ok,
            "end": outcome.end,
            "error": (!outcome.ok).then(|| outcome.output.lines().last().unwrap_or("").to_string()),
            "report": serde_json::from_str::<Value>(&outcome.stdout).unwrap_or(Value::Null),
        }));
    }
    let ok = !results.is_empty() && results.iter().all(|r| r["ok"] == true);
    (Value::Array(results), ok)
}
