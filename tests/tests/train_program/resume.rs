//! Checkpoints that are damaged cost their steps and no more; what belongs to another job is refused by name, and nothing on
//! the disk changes for it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lichen_host_tools::quantize::{self, Options, Target, SHARD_BYTES_MAX};
use lichen_runtime::engine::AdapterPath;
use lichen_runtime::files::disk::{Disk, RealDisk};
use lichen_tests::models::fixture;
use sha2::{Digest, Sha256};

use crate::support::{checkpoints, copy_run, flags, run, text, tree, TempDir, Trained, MODELS};

const MODEL: &str = MODELS[1];
const N_STEPS: u64 = 12;

/// A finished run with its checkpoints 6, 9 and 12, and copies of it.
struct Finished {
    folder: TempDir,
    want: Trained,
}

impl Finished {
    fn new(name: &str) -> Finished {
        let folder = TempDir::new(name);
        let out = folder.path("finished");
        run(&flags(MODEL, &out, N_STEPS)).ok();
        assert_eq!(checkpoints(&out), [6, 9, 12]);
        Finished { want: Trained::read(&out, N_STEPS), folder }
    }

    fn copy(&self, name: &str) -> PathBuf {
        let to = self.folder.path(name);
        copy_run(&self.folder.path("finished"), &to);
        to
    }
}

fn with(arguments: Vec<String>, more: &[&str]) -> Vec<String> {
    arguments.into_iter().chain(more.iter().map(|a| a.to_string())).collect()
}

/// Replaces a piece of a checkpoint's file, and makes its manifest agree.
fn rewrite(folder: &Path, name: &str, from: &str, to: &str) {
    let path = folder.join(name);
    let bytes = text(&path);
    assert!(bytes.contains(from), "{name} has no {from}");
    fs::write(&path, bytes.replacen(from, to, 1)).expect("written");
    let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut above = String::new();
    for line in text(&folder.join("MANIFEST")).lines().filter(|l| !l.starts_with("{\"sha256\"")) {
        if line.contains(&format!("\"name\":\"{name}\"")) {
            let bytes = fs::read(&path).expect("just written");
            above += &format!("{{\"name\":\"{name}\",\"bytes\":{},\"sha256\":\"{}\"}}\n", bytes.len(), hex(&bytes));
        } else {
            above += &format!("{line}\n");
        }
    }
    let last = format!("{{\"sha256\":\"{}\"}}\n", hex(above.as_bytes()));
    fs::write(folder.join("MANIFEST"), above + &last).expect("written");
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).expect("written");
}

/// What is done to the checkpoint of a step, and what is said of it.
type Damage = (&'static str, fn(&Path), &'static str);

const DAMAGES: [Damage; 7] = [
    ("no-manifest", |g| fs::remove_file(g.join("MANIFEST")).expect("there"), "MANIFEST is missing"),
    ("manifest", |g| flip(&g.join("MANIFEST")), "MANIFEST differs from its own sha256"),
    ("hash", |g| flip(&g.join("optimizer.safetensors")), "optimizer.safetensors differs from its manifest"),
    ("adapter", |g| flip(&g.join("adapter_model.safetensors")), "adapter_model.safetensors differs from its manifest"),
    ("gone", |g| fs::remove_file(g.join("state.json")).expect("there"), "state.json is missing"),
    (
        "future-manifest",
        |g| {
            fs::write(g.join("MANIFEST"), text(&g.join("MANIFEST")).replacen("\"format\":1", "\"format\":2", 1))
                .unwrap();
            rewrite(g, "README.md", "", "");
        },
        "MANIFEST, line 1: format is 2; this program reads 1",
    ),
    (
        "future-state",
        |g| rewrite(g, "state.json", "\"format\": 2", "\"format\": 3"),
        "state.json has format 3; 1 and 2 are supported",
    ),
];

#[test]
fn damage_costs_the_steps_since_the_checkpoint_before() {
    let finished = Finished::new("damage");
    for (name, damage, said) in DAMAGES {
        let out = finished.copy(name);
        damage(&out.join("step-00000012"));
        let ended = run(&with(flags(MODEL, &out, N_STEPS), &["--resume"])).ok();
        let line = format!("step 12 skipped: {said}");
        assert!(ended.stderr.lines().any(|l| l == line), "{name}: {line}: {ended:?}");
        Trained::read(&out, N_STEPS).assert_equals(&finished.want, name);
    }
    // Two of three.
    let out = finished.copy("two");
    (DAMAGES[0].1)(&out.join("step-00000012"));
    (DAMAGES[2].1)(&out.join("step-00000009"));
    let ended = run(&with(flags(MODEL, &out, N_STEPS), &["--resume", "--json"])).ok();
    assert_eq!(ended.json()["resumed_from"], 6, "{ended:?}");
    assert_eq!(ended.stderr.lines().filter(|l| l.contains(" skipped: ")).count(), 2, "{ended:?}");
    Trained::read(&out, N_STEPS).assert_equals(&finished.want, "two of three");
}

#[test]
fn no_valid_checkpoint_is_an_error_and_changes_nothing() {
    let finished = Finished::new("all-bad");
    let out = finished.copy("run");
    for (step, damage) in [(6, 2), (9, 0), (12, 3)] {
        (DAMAGES[damage].1)(&out.join(format!("step-{step:08}")));
    }
    let before = whole(&out);
    for more in [&["--resume"][..], &[]] {
        let ended = run(&with(flags(MODEL, &out, N_STEPS), more));
        let said = format!(
            "{}: step 12 skipped: {}; step 9 skipped: {}; step 6 skipped: {}; no valid checkpoint of 3 (start over with \
             --restart)",
            out.display(),
            DAMAGES[3].2,
            DAMAGES[0].2,
            DAMAGES[2].2
        );
        assert_eq!((ended.code, ended.error()), (Some(1), said.as_str()));
        assert!(whole(&out) == before, "{more:?}");
    }
}

/// All files of a run, with their folders.
fn whole(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let inside = checkpoints(run).into_iter().map(|step| format!("step-{step:08}"));
    let inside =
        inside.flat_map(|g| tree(&run.join(&g)).into_iter().map(move |(n, bytes)| (format!("{g}/{n}"), bytes)));
    tree(run).into_iter().chain(inside.collect::<Vec<_>>()).collect()
}

/// The first twelve digits of what a state says of a file.
fn hash_in_state(out: &Path, key: &str) -> String {
    let state: serde_json::Value = serde_json::from_str(&text(&out.join("step-00000012/state.json"))).expect("JSON");
    state[key].as_str().expect("a hash")[..12].to_string()
}

#[test]
fn another_job_is_refused_by_name() {
    let finished = Finished::new("other-job");
    let out = finished.copy("run");
    let (other_model, other_data) = (fixture("tiny-qwen2-untied"), finished.folder.path("other.jsonl"));
    let data = text(&fixture(&format!("training/{MODEL}/rows.jsonl")));
    fs::write(&other_data, format!("{data}{{\"input_ids\":[2,9,8]}}\n")).expect("written");
    // What a run on the other model and the other data calls them.
    let other = finished.folder.path("other");
    let others = ["--model", other_model.to_str().expect("UTF-8"), "--data", other_data.to_str().expect("UTF-8")];
    run(&with(flags(MODEL, &other, N_STEPS), &others)).ok();
    let both = |key| (hash_in_state(&out, key), hash_in_state(&other, key));
    let ((base, other_base), (data, other_data)) = (both("base_sha256"), both("data_sha256"));
    let flag = |flag: &str, was: &str, now: &str| {
        format!(
            "the run was started with {flag} {was}, and now it is {now}: give it the same, or start over with --restart"
        )
    };
    let cases: [(&[&str], String); 10] = [
        (&others[..2], format!(
            "the run was started with base model {base}, and --model is {other_base}, another one (64 of 64 sampled rows of \
             its weights differ by more than their formats explain, 109.5% in the median): give it the same model, go on with \
             the other with --allow-other-base, or start over with --restart")),
        (&others[2..], format!(
            "the run was started with data {data}, and --data is {other_data} now: restore it, or go on with the new with \
             --allow-changed-data")),
        (&["--rank", "8"], flag("--rank", "4", "8")),
        (&["--targets", "q,v"], flag("--targets", "all", "q,v")),
        (&["--alpha", "16"], flag("--alpha", "8.0", "16.0")),
        (&["--learning-rate", "1e-3"], flag("--learning-rate", "0.002", "0.001")),
        (&["--seed", "1"], flag("--seed", "0", "1")),
        (&["--max-steps", "13"], flag("--max-steps", "12", "13")),
        (&["--accumulate", "2"], flag("--gradient-accumulation-steps", "4", "2")),
        (&["--dropout", "0"], flag("--dropout", "0.1", "0.0")),
    ];
    let before = whole(&out);
    for (more, said) in cases {
        let ended = run(&with(with(flags(MODEL, &out, N_STEPS), more), &["--resume"]));
        assert_eq!((ended.code, ended.error()), (Some(1), format!("{}: {said}", out.display()).as_str()));
        assert!(whole(&out) == before, "{more:?}");
    }
    // What decides when and by whom, but not what: these go on.
    for more in [
        &["--threads", "1"][..],
        &["--save-every", "1"],
        &["--save-total-limit", "2"],
        &["--checkpoint-activations", "on"],
    ] {
        run(&with(with(flags(MODEL, &out, N_STEPS), more), &["--resume"])).ok();
    }
    let more = with(others[2..].iter().map(|a| a.to_string()).collect(), &["--resume", "--allow-changed-data"]);
    run(&[flags(MODEL, &out, N_STEPS), more].concat()).ok();
}

/// The same base as Q8_0 is the same model: a run goes on with it, and says so. A fine-tune of it is another one.
#[test]
fn another_format_of_the_base_is_no_other_base() {
    let folder = TempDir::new("other-format");
    let (out, base) = (folder.path("run"), fixture(MODEL));
    run(&flags(MODEL, &out, 6)).ok();
    let adapter = AdapterPath { path: fixture(&format!("{MODEL}-lora")), scale: 1.0 };
    let options = |out: &Path| Options {
        model: base.clone(),
        target: Target::Q8_0,
        out: out.to_path_buf(),
        name: None,
        shard_bytes_max: SHARD_BYTES_MAX,
        split_bytes_max: None,
    };
    let (quantised, tuned) = (folder.path("q8_0.gguf"), folder.path("tuned.gguf"));
    quantize::run(&options(&quantised), &mut ()).unwrap_or_else(|e| panic!("{e}"));
    quantize::run_merged(&options(&tuned), &adapter, false, &mut ()).unwrap_or_else(|e| panic!("{e}"));
    let resume = |model: &Path, more: &[&str]| {
        let model = model.to_str().expect("UTF-8");
        run(&with(with(flags(MODEL, &out, 6), &["--resume", "--model", model]), more))
    };
    let refused = resume(&tuned, &[]);
    assert_eq!(refused.code, Some(1));
    for words in ["another one (", " of 64 sampled rows", "go on with the other with --allow-other-base"] {
        assert!(refused.error().contains(words), "{words}: {refused:?}");
    }
    let ended = resume(&quantised, &[]).ok();
    assert!(ended.stderr.contains("is the same in another format"), "{ended:?}");
    let ended = resume(&tuned, &["--allow-other-base"]).ok();
    assert!(ended.stderr.contains("goes on with another"), "{ended:?}");
}

#[test]
fn a_run_that_is_there_is_not_taken_for_a_new_one() {
    let finished = Finished::new("there");
    let (want, out) = (&finished.want, finished.copy("run"));
    let before = whole(&out);
    let refused = |more: &[&str], said: &str| {
        let ended = run(&with(flags(MODEL, &out, N_STEPS), more));
        assert_eq!((ended.code, ended.error()), (Some(1), format!("{}: {said}", out.display()).as_str()));
        assert!(whole(&out) == before, "{more:?}");
    };
    refused(&[], "holds a run at step 12: --resume goes on with it, --restart begins again");
    refused(&["--restart"], "step-00000012 is published, and --restart would remove it: choose another --out");
    let lock = RealDisk.lock(&out.join("lock")).expect("nobody else's");
    refused(&["--resume"], "another trainer is at work in this folder: wait for it, or choose another --out");
    drop(lock);
    // One that is done is done again: nothing is trained, and it ends as it did.
    let again = run(&with(flags(MODEL, &out, N_STEPS), &["--resume", "--json"])).ok();
    assert_eq!((&again.json()["resumed_from"], &again.json()["published"]), (&12.into(), &true.into()), "{again:?}");
    Trained::read(&out, N_STEPS).assert_equals(want, "again");

    fs::remove_file(out.join("current")).expect("a link");
    fs::remove_file(out.join("step-00000012").join("state.json")).expect("a file");
    let restarted = run(&with(flags(MODEL, &out, N_STEPS), &["--restart", "--json"])).ok();
    assert_eq!(restarted.json()["resumed_from"], serde_json::Value::Null);
    Trained::read(&out, N_STEPS).assert_equals(want, "restarted");
    // Nothing there: both begin.
    for (name, flag) in [("new-resumed", "--resume"), ("new-restarted", "--restart")] {
        let out = finished.folder.path(name);
        run(&with(flags(MODEL, &out, N_STEPS), &[flag])).ok();
        Trained::read(&out, N_STEPS).assert_equals(want, flag);
    }
}

/// Settings as format 1 had them: keyed by flags, with targets as switches and f32 with the digits of an f64.
const FORMAT_1: &str = r#"{
    "--max-seq": 40,
    "--over-long": "Cut",
    "--train-on-prompt": false,
    "--eval-split": 0.2,
    "--no-shuffle": false,
    "--seed": 0,
    "--batch": 1,
    "--accumulate": 4,
    "--epochs": 100,
    "--max-steps": 12,
    "--schedule": "cosine",
    "--learning-rate": 0.002,
    "--final-rate": 0.0,
    "--warmup": 0.03,
    "--adam-beta1": 0.9,
    "--adam-beta2": 0.999,
    "--adam-eps": 1e-8,
    "--weight-decay": 0.0,
    "--clip": 1.0,
    "--eval-every": 5,
    "--rank": 4,
    "--alpha": 8.0,
    "--targets": [true, true, true, true, true, true, true],
    "--dropout": 0.10000000149011612,
    "--init-adapter": null
  }"#;

#[test]
fn a_checkpoint_of_format_1_goes_on() {
    let finished = Finished::new("format-1");
    let out = finished.copy("run");
    fs::remove_file(out.join("current")).expect("a link");
    for step in [9, 12] {
        fs::remove_dir_all(out.join(format!("step-{step:08}"))).expect("a checkpoint");
    }
    let checkpoint = out.join("step-00000006");
    let state = text(&checkpoint.join("state.json"));
    let settings = state.split_once("\"settings\": ").and_then(|(_, rest)| rest.split_once('}')).expect("settings").0;
    rewrite(&checkpoint, "state.json", &format!("{settings}}}"), FORMAT_1);
    rewrite(&checkpoint, "state.json", "\"format\": 2", "\"format\": 1");
    // Another job is refused by what its setting is called now, and changes nothing.
    let before = whole(&out);
    let ended = run(&with(flags(MODEL, &out, N_STEPS), &["--resume", "--max-grad-norm", "0"]));
    let said = "the run was started with --max-grad-norm 1.0, and now it is 0.0: give it the same";
    assert!(ended.error().contains(said) && whole(&out) == before, "{ended:?}");
    let ended = run(&with(flags(MODEL, &out, N_STEPS), &["--resume", "--json"])).ok();
    assert_eq!(ended.json()["resumed_from"], 6, "{ended:?}");
    Trained::read(&out, N_STEPS).assert_equals(&finished.want, "from format 1");
}

/// Full training says what has changed by the name of the flag that changes it.
#[test]
fn full_training_names_the_flag_of_its_weights() {
    let folder = TempDir::new("full-weights");
    let out = folder.path("run");
    let job = |weights: &str, more: &[&str]| {
        let path = |p: PathBuf| p.to_str().expect("UTF-8").to_string();
        let (model, data) = (path(fixture(MODEL)), path(fixture(&format!("training/{MODEL}/rows.jsonl"))));
        let text =
            format!("full --model {model} --data {data} --max-seq 40 --max-steps 1 --weights {weights} --device cpu");
        let arguments = text.split(' ').map(str::to_string).chain(["--out".to_string(), path(out.clone())]);
        run(&with(arguments.collect(), more))
    };
    job("f32", &[]).ok();
    let ended = job("bf16", &["--resume"]);
    let said =
        "the run was started with --weights f32, and now it is bf16: give it the same, or start over with --restart";
    assert_eq!((ended.code, ended.error()), (Some(1), format!("{}: {said}", out.display()).as_str()));
}
