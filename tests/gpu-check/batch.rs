//! `lichen bench --batch`: a teacher that answers many prompts at once.

use serde_json::{json, Value};

use crate::processes::{self, program};
use crate::Plan;

/// Sequences of one model, and how long they are.
struct Case {
    /// Geometry and format of random weights; `None` for the model inside the program.
    weights: Option<(&'static str, &'static str)>,
    /// Sequences at once.
    n: usize,
    context: usize,
    prompt_tokens: usize,
    new_tokens: usize,
}

const fn teacher(n: usize, context: usize) -> Case {
    let new_tokens = 32;
    Case { weights: Some(("qwen2.5-72b", "nf4")), n, context, prompt_tokens: context - new_tokens, new_tokens }
}

/// The short one is a teacher's shape that fits any minute.
const CASES: [Case; 5] = [teacher(1, 1024), teacher(16, 1024), teacher(64, 256), teacher(32, 1024), teacher(64, 1024)];
const REHEARSAL: [Case; 1] = [Case { weights: None, n: 3, context: 64, prompt_tokens: 5, new_tokens: 2 }];

/// Runs each case with the device's best kernels. (results, whether all ran)
pub fn run(plan: &Plan) -> (Value, bool) {
    let mut results = Vec::new();
    for case in if plan.quick { &REHEARSAL[..] } else { &CASES } {
        let mut command = program(plan, "lichen");
        command.args(arguments(case)).env("LICHEN_CUDA_ARCH", plan.archs[0].to_string());
        let model = case.weights.map_or("demo".to_string(), |(geometry, format)| format!("{geometry}-{format}"));
        let outcome = processes::run(plan, &format!("batch-{model}-{}-{}", case.n, case.context), &mut command);
        results.push(json!({
            "geometry": case.weights.map_or("the model inside the program", |(geometry, _)| geometry),
            "format": case.weights.map_or("q8_0", |(_, format)| format),
            "batch": case.n,
            "context": case.context,
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

fn arguments(case: &Case) -> Vec<String> {
    let weights = case.weights.map_or(String::new(), |(name, format)| format!("--geometry {name} --format {format}"));
    let text = format!(
        "bench --device cuda --json {weights} --batch {} --context {} --prompt-tokens {} --new-tokens {} --repeat 1",
        case.n, case.context, case.prompt_tokens, case.new_tokens
    );
    text.split_whitespace().map(str::to_string).collect()
}
