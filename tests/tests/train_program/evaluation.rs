//! What is worse than the start is kept and not published; what is published moves back.

use std::fs;
use std::path::{Path, PathBuf};

use lichen_tests::models::fixture;

use crate::support::{checkpoints, flags, run, text, tree, TempDir, Trained, MODELS};

const MODEL: &str = MODELS[0];

fn with(arguments: Vec<String>, more: &[&str]) -> Vec<String> {
    arguments.into_iter().chain(more.iter().map(|a| a.to_string())).collect()
}

/// The same arguments for other data.
fn with_data(mut arguments: Vec<String>, data: &Path) -> Vec<String> {
    let at = arguments.iter().position(|a| a == "--data").expect("data");
    arguments[at + 1] = data.to_str().expect("UTF-8").to_string();
    arguments
}

fn link(run: &Path, name: &str) -> Option<String> {
    fs::read_link(run.join(name)).ok().map(|to| to.to_str().expect("UTF-8").to_string())
}

#[test]
fn what_is_worse_is_kept_and_not_published() {
    let folder = TempDir::new("worse");
    let out = folder.path("run");
    let wild = with(flags(MODEL, &out, 12), &["--learning-rate", "1", "--max-grad-norm", "0"]);
    let ended = run(&wild).ok();
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let end = format!(": {}/step-00000012", out.display());
    assert_eq!(lines.len(), 2, "{ended:?}");
    assert!(lines[0].starts_with("12 of 12 steps in ") && lines[0].contains("; eval loss 7."), "{ended:?}");
    let said = "kept but not published: the eval loss rose from 7.";
    assert!(lines[1].starts_with(said) && lines[1].ends_with(&end), "{ended:?}");
    assert_eq!((link(&out, "current"), checkpoints(&out)), (None, vec![6, 9, 12]));
    let record: serde_json::Value = serde_json::from_str(&text(&out.join("step-00000012/adapter.json"))).expect("JSON");
    assert_eq!(record["passed"], false, "{record}");
    let reason = record["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("the eval loss rose from 7."), "{record}");
    assert!(record["after"]["eval_loss"].as_f64() > record["before"]["eval_loss"].as_f64(), "{record}");
    // The same in JSON, from the same checkpoint; and there is nothing to go back to.
    let json = run(&with(wild, &["--resume", "--json"])).ok().json();
    assert_eq!((&json["published"], &json["reason"]), (&false.into(), &reason.into()), "{json}");
    let back = run(&["rollback", out.to_str().expect("UTF-8")]);
    let said = format!("{}: nothing is published here", out.display());
    assert_eq!((back.code, back.error()), (Some(1), said.as_str()));
}

/// Rows of the fixture and some more of them.
fn grown(folder: &TempDir, name: &str, n: usize) -> PathBuf {
    let rows = text(&fixture(&format!("training/{MODEL}/rows.jsonl")));
    let path = folder.path(name);
    fs::write(&path, rows.lines().cycle().take(n).map(|l| l.to_string() + "\n").collect::<String>()).expect("written");
    path
}

/// A run that goes on with more data is compared on that data, with what the start was worth on it.
#[test]
fn what_is_published_moves_on_and_back() {
    let folder = TempDir::new("back");
    let out = folder.path("run");
    let job = |data: &Path, more: &[&str]| {
        let arguments = with(with_data(flags(MODEL, &out, 1_000_000), data), &["--epochs", "4"]);
        run(&with(arguments, more))
    };
    let (small, more, most) = (grown(&folder, "8", 8), grown(&folder, "16", 16), grown(&folder, "24", 24));
    job(&small, &[]).ok();
    assert_eq!((link(&out, "current"), link(&out, "previous")), (Some("step-00000006".to_string()), None));
    let first = tree(&out.join("current"));
    let on = job(&more, &["--resume", "--allow-changed-data", "--json"]).ok().json();
    assert_eq!((&on["resumed_from"], &on["step"], &on["published"]), (&6.into(), &13.into(), &true.into()), "{on}");
    let names = ["current", "previous"].map(|name| link(&out, name).expect("a link"));
    assert_eq!(names, ["step-00000013", "step-00000006"]);
    // The first is long out of the newest three, and stays.
    assert!(tree(&out.join("previous")) == first, "what is published has changed");

    let back = run(&["rollback", out.to_str().expect("UTF-8")]).ok();
    assert_eq!(back.stdout, format!("{}/current: step-00000006, it was step-00000013\n", out.display()));
    assert_eq!(link(&out, "current").as_deref(), Some("step-00000006"));
    assert!(tree(&out.join("current")) == first);
    let again = run(&["rollback", out.to_str().expect("UTF-8")]);
    assert_eq!(
        (again.code, again.error()),
        (
            Some(1),
            format!("{}: step-00000006 is what was published before: publish another by name", out.display()).as_str()
        )
    );
    // What cannot go back stays where it is.
    job(&most, &["--resume", "--allow-changed-data"]).ok();
    let before = link(&out, "current");
    assert_eq!((before.as_deref(), link(&out, "previous").as_deref()), (Some("step-00000019"), Some("step-00000006")));
    fs::write(out.join("step-00000006/state.json"), "{}").expect("written");
    let refused = run(&["rollback", out.to_str().expect("UTF-8"), "--json"]);
    let said = "step-00000006 is not published: state.json is 2 bytes long; its manifest says ";
    assert!(refused.code == Some(1) && refused.error().contains(said), "{refused:?}");
    assert_eq!(link(&out, "current"), before);
}

/// A regression prompt that the start answers and the end does not.
#[test]
fn a_regression_prompt_that_is_lost_is_not_published() {
    let folder = TempDir::new("regression-prompts");
    let (data, regression_prompts, out) =
        (folder.path("rows.jsonl"), folder.path("regression_prompts.jsonl"), folder.path("run"));
    let row = "{\"instruction\":\"What is the capital of India?\",\"input\":\"\",\"output\":\"no no no no\"}\n";
    fs::write(&data, row.repeat(16)).expect("written");
    let regression_prompt = "{\"prompt\":\"What is the capital of India?\",\"expect\":\"new delhi\"}\n";
    fs::write(&regression_prompts, regression_prompt).expect("written");
    let out_text = out.to_str().expect("UTF-8").to_string();
    let job = |out: &str, regression_prompt: bool, more: &[&str]| {
        let text = format!(
            "lora --data {} --out {out} --max-seq 32 --accumulate 2 --eval-split 0.1 --learning-rate 1e-2 --threads 2",
            data.display()
        );
        let mut arguments: Vec<String> = text.split(' ').map(str::to_string).collect();
        if regression_prompt {
            arguments
                .extend(["--regression-prompts".to_string(), regression_prompts.to_str().expect("UTF-8").to_string()]);
        }
        run(&with(arguments, more))
    };
    let json = job(&out_text, true, &["--json"]).ok().json();
    let why = "0 of 1 regression prompts are answered as expected, 1 were before";
    assert_eq!((&json["published"], &json["reason"]), (&false.into(), &why.into()), "{json}");
    assert!(json["after"]["eval_loss"].as_f64() < json["before"]["eval_loss"].as_f64(), "{json}");
    assert_eq!(link(&out, "current"), None);
    // Asked nothing, it is published; asked again, it is compared with what the start answers.
    let other = folder.path("other");
    let json = job(other.to_str().expect("UTF-8"), false, &["--json"]).ok().json();
    assert_eq!(json["published"], true, "{json}");
    let step = json["step"].as_u64().expect("a number");
    let json = job(other.to_str().expect("UTF-8"), true, &["--json", "--resume"]).ok().json();
    assert_eq!((&json["published"], &json["reason"]), (&false.into(), &why.into()), "{json}");
    Trained::read(&other, step).assert_equals(&Trained::read(&out, step), "asked later");
    // With more to learn of the same it goes on, and what was published stays in service.
    let published = link(&other, "current").expect("a link");
    fs::write(&data, row.repeat(24)).expect("written");
    let more = ["--json", "--resume", "--allow-changed-data"];
    let json = job(other.to_str().expect("UTF-8"), true, &more).ok().json();
    assert_eq!((&json["published"], &json["reason"]), (&false.into(), &why.into()), "{json}");
    assert!(json["step"].as_u64() > Some(step), "{json}");
    assert_eq!((link(&other, "current"), link(&other, "previous")), (Some(published), None));
}
