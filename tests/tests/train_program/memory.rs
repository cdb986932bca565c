//! The memory plan against what the process took, as it says itself; and what happens when it passes the budget.

use serde_json::Value;

use crate::support::{flags, run, TempDir, MODELS};

const MIB: f64 = (1u64 << 20) as f64;

fn check(case: &str, json: &Value) {
    let number = |key: &str| json[key].as_f64().unwrap_or_else(|| panic!("{case}: no {key} in {json}"));
    let (peak, planned) = (number("peak_rss_bytes"), number("planned_bytes"));
    let (off, allowed) = ((planned - peak) / MIB, (0.03 * planned / MIB).max(32.0));
    println!("{case}: {:.1} MiB taken, {:.1} MiB planned", peak / MIB, planned / MIB);
    assert!(off.abs() <= allowed, "{case}: off by {off:.1} MiB");
}

/// Rows that fill `--max-seq`, since the memory plan is for those.
fn rows(folder: &TempDir) -> String {
    let path = folder.path("rows.jsonl");
    // Of a row of ids the first are kept; a long text would be cut into pieces, the last of them short.
    let ids: Vec<u32> = (0..300).map(|i| 100 + i % 200).collect();
    let row = format!("{}\n", serde_json::json!({"input_ids": ids}));
    std::fs::write(&path, row.repeat(6)).expect("written");
    path.to_str().expect("UTF-8").to_string()
}

#[test]
fn a_job_takes_what_was_planned() {
    let folder = TempDir::new("memory");
    let data = rows(&folder);
    for (name, more) in [
        ("demo", "--max-seq 128"),
        ("demo-batch", "--max-seq 128 --batch 2 --dropout 0.1"),
        ("demo-recompute", "--max-seq 256 --batch 2 --checkpoint-activations on --rank 32"),
        ("demo-many", "--max-seq 256 --batch 6 --threads 4"),
    ] {
        let out = folder.file(name);
        let text = format!(
            "lora --data {data} --out {out} --accumulate 1 --max-steps 2 --eval-split 0 --json --device cpu --threads 2 {more}"
        );
        let json = run(&text.split(' ').collect::<Vec<_>>()).ok().json();
        check(name, &json);
    }
}

#[test]
fn a_released_shape_takes_what_was_planned() {
    let text =
        "bench --geometry gemma-3-270m --format q8_0 --rank 8 --max-seq 64 --steps 1 --device cpu --threads 2 --json";
    check("gemma-3-270m", &run(&text.split(' ').collect::<Vec<_>>()).ok().json());
}

/// Nothing runs over its budget: up to what the plan says it is refused with its largest lines.
#[test]
fn what_does_not_fit_is_refused_with_the_plan() {
    let folder = TempDir::new("budget");
    let out = folder.path("run");
    let job = flags(MODELS[0], &out, 2);
    let as_key = |pair: &[String]| format!("{} = \"{}\"\n", pair[0].trim_start_matches("--"), pair[1]);
    std::fs::write(folder.path("job.toml"), job[1..].chunks_exact(2).map(as_key).collect::<String>()).expect("written");
    let as_plan =
        |budget: u64| run(&["plan", &folder.file("job.toml"), "--json", "--memory-budget", &budget.to_string()]);
    let whole = as_plan(1 << 40).ok().json();
    let small = as_plan(1 << 20);
    assert_eq!(small.code, Some(1), "{small:?}");
    let least = small.any_json()["total_bytes"].as_u64().expect("a number");
    assert!(least < whole["total_bytes"].as_u64().expect("a number"), "layers are recomputed where it is tight");
    for (budget, is_enough) in [(1, false), (least - 1, false), (least, true)] {
        let more = ["--memory-budget".to_string(), budget.to_string()];
        let ended = run(&[job.clone(), more.to_vec()].concat());
        if is_enough {
            ended.ok();
            continue;
        }
        assert_eq!((ended.code, out.exists()), (Some(1), false), "{ended:?}");
        let said = ended.error();
        assert!(
            said.starts_with("needs ") && said.contains("and the budget is ") && said.contains("--max-seq"),
            "{said}"
        );
    }
}
