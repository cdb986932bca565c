//! What is written down is what ran, in a rehearsal too.

use std::os::unix::fs::PermissionsExt;

use lichen_tests::formats::corpus::TempDir;
use serde_json::Value;

use crate::{batch, training, Plan};

/// The programs answer with what they were called with.
const ECHO: &str = "#!/bin/sh\nprintf '\"%s\"\\n' \"$*\"\n";

fn plan(dir: &TempDir, quick: bool) -> Plan {
    let package = dir.path().to_path_buf();
    for folder in ["bin", "logs"] {
        std::fs::create_dir_all(package.join(folder)).unwrap();
    }
    for name in ["lichen", "lichen-train"] {
        let program = package.join("bin").join(name);
        std::fs::write(&program, ECHO).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    Plan { steps: Vec::new(), quick, out: package.clone(), package, archs: vec![90, 53], tested_archs: Vec::new() }
}

#[test]
fn a_result_names_the_case_that_ran() {
    for (quick, n_batch, n_training) in [(true, 1, 2), (false, 5, 6)] {
        let dir = TempDir::new();
        let plan = plan(&dir, quick);
        for ((results, ok), n) in [(batch::run(&plan), n_batch), (training::run(&plan), n_training)] {
            let results = results.as_array().unwrap();
            assert!(ok && results.len() == n, "quick {quick}: {results:?}");
            for result in results {
                let args = result["report"].as_str().unwrap();
                let has = |flag: &str, value: &Value| {
                    let value = value.as_str().map_or(value.to_string(), str::to_string);
                    assert!(format!("{args} ").contains(&format!("--{flag} {value} ")), "--{flag} {value}: {args}");
                };
                match result["geometry"].as_str() {
                    Some("the model inside the program") => assert!(!args.contains("--geometry"), "{args}"),
                    _ => ["geometry", "format"].into_iter().for_each(|key| has(key, &result[key])),
                }
                for key in ["batch", "context"].into_iter().filter(|key| result.get(key).is_some()) {
                    has(key, &result[key]);
                }
            }
        }
    }
}
