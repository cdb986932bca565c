//! `lichen bench` on shapes of released models, beside the rooflines.

use lichen_kernels::cuda::DeviceInfo;
use serde_json::{json, Value};

use crate::processes::{self, program};
use crate::{roofline, Plan};

/// Geometry, format: random weights of a released model's shape.
const CASES: [(&str, &str); 4] =
    [("gemma-3-1b", "q8_0"), ("gemma-3-1b", "nf4"), ("qwen2.5-7b", "nf4"), ("qwen2.5-72b", "nf4")];

/// Runs each case with each architecture's kernels. (results, whether all ran)
pub fn run(plan: &Plan, kernels: Option<&Value>, device: &DeviceInfo) -> (Value, bool) {
    let mut results = Vec::new();
    for (geometry, format) in cases() {
        for arch in &plan.archs {
            let Some(args) = arguments(plan, &geometry, &format) else { continue };
            let mut command = program(plan, "lichen");
            command.args(&args).env("LICHEN_CUDA_ARCH", arch.to_string());
            let name =
                format!("bench-{}-sm_{arch}", if plan.quick { "demo".into() } else { format!("{geometry}-{format}") });
            let outcome = processes::run(plan, &name, &mut command);
            let report: Value = serde_json::from_str(&outcome.stdout).unwrap_or(Value::Null);
            let error = (!outcome.ok).then(|| outcome.output.lines().last().unwrap_or("").to_string());
            results.push(json!({
                "geometry": if plan.quick { "the model inside the program" } else { &geometry },
                "format": format,
                "arch": arch,
                "ok": outcome.ok,
                "end": outcome.end,
                "error": error,
                "roofline": beside_roofline(&report, kernels, *arch, device),
                "report": report,
            }));
        }
    }
    let ok = !results.is_empty() && results.iter().all(|r| r["ok"] == true);
    (Value::Array(results), ok)
}

fn cases() -> Vec<(String, String)> {
    let chosen = std::env::var("LICHEN_GPU_CHECK_MODELS").unwrap_or_default();
    let chosen: Vec<(String, String)> = chosen
        .split(',')
        .filter_map(|case| case.trim().split_once(':'))
        .map(|(geometry, format)| (geometry.to_string(), format.to_string()))
        .collect();
    if chosen.is_empty() {
        return CASES.map(|(geometry, format)| (geometry.to_string(), format.to_string())).to_vec();
    }
    chosen
}

/// What `lichen` is called with. A rehearsal takes the model inside the program, once.
fn arguments(plan: &Plan, geometry: &str, format: &str) -> Option<Vec<String>> {
    let text = match plan.quick {
        true if (geometry, format) != CASES[0] => return None,
        true => "bench --device cuda --json --prompt-tokens 12 --new-tokens 2 --repeat 1 --context 64".to_string(),
        false => format!(
            "bench --device cuda --json --geometry {geometry} --format {format} --prompt-tokens 512 --new-tokens 128 \
             --repeat 5 --context 2048"
        ),
    };
    Some(text.split_whitespace().map(str::to_string).collect())
}

/// Decode against what the memory gives: the pure read kernel's rate here, and the data sheet's.
fn beside_roofline(report: &Value, kernels: Option<&Value>, arch: u32, device: &DeviceInfo) -> Value {
    let figure = |key: &str| report[key].as_f64();
    let (Some(decode), Some(bytes)) = (figure("decode_tokens_per_s"), figure("decode_bytes_per_token")) else {
        return Value::Null;
    };
    let read = kernels.and_then(|k| k[format!("sm_{arch}")]["read_gb_per_s"].as_f64());
    let published = roofline::published(&device.name).map(|p| p.memory_gb_per_s);
    let side = |gb_per_s: Option<f64>| {
        gb_per_s.map(|rate| {
            let bound = rate * 1e9 / bytes;
            json!({"gb_per_s": rate, "tokens_per_s": bound, "reached": decode / bound})
        })
    };
    json!({"read_kernel": side(read), "published": side(published)})
}
