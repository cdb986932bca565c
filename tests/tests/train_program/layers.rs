//! Training some layers alone, through the program.

use serde_json::{json, Value};

use crate::support::{flags, run, text, TempDir, MODELS};

/// Seven layers.
const MODEL: &str = MODELS[0];

fn with(arguments: Vec<String>, more: &[&str]) -> Vec<String> {
    arguments.into_iter().chain(more.iter().map(|a| a.to_string())).collect()
}

#[test]
fn a_run_on_some_layers_lists_them_and_others_do_not_go_on_from_it() {
    let folder = TempDir::new("layers");
    let (whole, halves) = (folder.path("whole"), folder.path("halves"));
    run(&with(flags(MODEL, &whole, 12), &["--layers", "3,5-6"])).ok();
    let config: Value = serde_json::from_str(&text(&whole.join("step-00000012/adapter_config.json"))).unwrap();
    assert_eq!((&config["layers_to_transform"], &config["layers_pattern"]), (&json!([3, 5, 6]), &json!("layers")));
    assert_eq!(config["target_modules"].as_array().unwrap().len(), 7);

    run(&with(flags(MODEL, &halves, 12), &["--layers", "3,5-6", "--max-steps", "6"])).ok();
    let ended = run(&with(flags(MODEL, &halves, 12), &["--layers", "4", "--resume"]));
    let said =
        "the run was started with --layers 3,5-6, and now it is 4: give it the same, or start over with --restart";
    assert_eq!(ended.code, Some(1));
    assert!(ended.error().ends_with(said), "{ended:?}");

    // Another run starts from it, on the same layers alone.
    let from = whole.join("current").display().to_string();
    let next = folder.path("next");
    let ended = run(&with(flags(MODEL, &next, 12), &["--init-adapter", &from]));
    assert!(
        ended.error().contains("the adapter holds 21 pairs; this job trains 49 (--targets, --layers)"),
        "{ended:?}"
    );
    run(&with(flags(MODEL, &next, 12), &["--init-adapter", &from, "--layers", "5,3,6"])).ok();
}

#[test]
fn a_plan_of_some_layers_is_smaller() {
    let plan = |layers: &str| {
        let arguments = ["plan", "--geometry", "gemma-3-1b", "--layers", layers, "--device", "cpu", "--json"];
        run(&arguments.map(str::to_string)).any_json()
    };
    let (all, last) = (plan("all"), plan("18-25"));
    let bytes = |plan: &Value| plan["total_bytes"].as_u64().unwrap_or_else(|| panic!("{plan}"));
    assert!(bytes(&last) < bytes(&all));
    assert_eq!(last["trainable_parameters"].as_u64().unwrap() * 26, all["trainable_parameters"].as_u64().unwrap() * 8);
    let folder = TempDir::new("layers-plan");
    for (layers, says) in [
        ("7", "--layers names layer 7; 0 to 6 in this model"),
        ("3-9", "--layers names layer 9; 0 to 6 in this model"),
        ("9-3", "--layers"),
    ] {
        let ended = run(&with(flags(MODEL, &folder.path("x"), 2), &["--layers", layers]));
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.error().contains(says), "{ended:?}");
    }
}
