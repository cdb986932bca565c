//! Weights and data that are not finite: such a step changes nothing, is counted and named, and five in a row end the run. What
//! is on the disk is finite.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lichen_runtime::files::adapter_file::{PeftAdapter, PeftTensor};
use lichen_runtime::files::formats::safetensors::SafeTensors;
use lichen_runtime::model::adapter::TARGETS;
use lichen_runtime::setting::as_flag;
use lichen_runtime::ModelSource;
use lichen_tests::models::fixture;
use lichen_tests::sim_disk::SimDisk;
use lichen_trainer::data::Dataset;
use lichen_trainer::job::{Ending, Job, MemorySettings, Verdict};
use lichen_trainer::layers::Layers;
use lichen_trainer::lora::Lora;
use lichen_trainer::schedule::ScheduleShape;

use crate::library::{self, finish, job, open, run, RUN};
use crate::support::{checkpoints, copy_run, flags, run as run_program, text, tree, TempDir};

/// The token whose embedding is broken in [`broken_row`]; no row of the fixtures has it.
const BROKEN: u32 = 41;
const MODEL: &str = "tiny-qwen2-untied";
/// Rows of the fixture that have more than one prediction.
const GOOD: [usize; 7] = [0, 2, 3, 4, 5, 6, 7];
const ADVICE: &str = "lower --learning-rate, or look at the data and the model";

/// A copy of a model in which some values of a tensor are others.
fn patched(folder: &TempDir, model: &str, tensor: &str, values: std::ops::Range<usize>, value: f32) -> PathBuf {
    let to = folder.path("model");
    copy_run(&fixture(model), &to);
    let path = to.join("model.safetensors");
    let mut bytes = fs::read(&path).expect("a model");
    let file = SafeTensors::parse(Arc::new(bytes.clone())).unwrap_or_else(|e| panic!("{e}"));
    let start = file.tensor(tensor).expect("such a tensor").range.start;
    for i in values {
        bytes[start + 4 * i..start + 4 * i + 4].copy_from_slice(&value.to_le_bytes());
    }
    fs::write(&path, bytes).expect("written");
    to
}

/// A model that computes with every token but [`BROKEN`].
fn broken_row(folder: &TempDir, value: f32) -> PathBuf {
    let dim = 64;
    let row = dim * BROKEN as usize..dim * (BROKEN as usize + 1);
    patched(folder, MODEL, "model.embed_tokens.weight", row, value)
}

/// Rows of the fixture, in this order; those that are `bad` begin with [`BROKEN`].
fn write_rows(folder: &TempDir, rows: &[(usize, bool)]) -> PathBuf {
    let fixture = text(&fixture("training/tiny-qwen2-tied/rows.jsonl"));
    let lines: Vec<&str> = fixture.lines().collect();
    let line = |(row, bad): &(usize, bool)| match bad {
        true => lines[*row].replacen("\"input_ids\":[2,", &format!("\"input_ids\":[{BROKEN},"), 1) + "\n",
        false => lines[*row].to_string() + "\n",
    };
    let path = folder.path("rows.jsonl");
    fs::write(&path, rows.iter().map(line).collect::<String>()).expect("written");
    path
}

/// One row a step, in the file's order.
fn row_by_row(model: PathBuf, data: PathBuf) -> Job {
    let job = job(MODEL, 1);
    Job {
        memory: MemorySettings { model: Some(model), ..job.memory },
        data: vec![data],
        gradient_accumulation_steps: 1,
        epochs: 1,
        max_steps: None,
        save_every: Some(2),
        schedule: ScheduleShape::Constant,
        no_shuffle: true,
        eval_split: 0.0,
        ..job
    }
}

fn assert_finite(name: &str, bytes: &[u8]) {
    let file = SafeTensors::parse(Arc::new(bytes.to_vec())).unwrap_or_else(|e| panic!("{name}: {e}"));
    for tensor in file.tensors() {
        let is_finite = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes")).is_finite();
        assert!(file.tensor_slice(tensor).chunks_exact(4).all(is_finite), "{name}: {} is not finite", tensor.name);
    }
}

fn assert_all_finite(disk: &SimDisk) {
    for (name, bytes) in disk.tree(RUN).iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        assert_finite(name, bytes);
    }
}

#[test]
fn a_model_with_a_bad_weight_is_named_and_given_up() {
    let folder = TempDir::new("nan-weight");
    let model = patched(&folder, "tiny-gemma3", "model.layers.3.mlp.up_proj.weight", 77..78, f32::NAN);
    let out = folder.path("run");
    let mut arguments = flags("tiny-gemma3", &out, 40);
    *arguments.iter_mut().skip_while(|a| *a != "--model").nth(1).expect("a path") = model.display().to_string();
    let ended = run_program(&arguments);
    let what = "the gradient of layer 0 AttnQ lora_A is not finite";
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.error(), format!("step 5: {what}, and 5 steps in a row were skipped: {ADVICE}"));
    let rows = text(&out.join("metrics.jsonl"));
    let said = format!("\"skipped\":\"{what}\"");
    let is_right = |line: &str| line.contains(&said) && line.contains("\"loss\":null");
    assert!(rows.lines().count() == 5 && rows.lines().all(is_right), "{rows}");
    assert_eq!(checkpoints(&out), [3]);
    for (name, bytes) in tree(&out.join("step-00000003")).iter().filter(|(n, _)| n.ends_with(".safetensors")) {
        assert_finite(name, bytes);
    }
    // Going on comes to the same end.
    let again = run_program(&[arguments, vec!["--resume".to_string()]].concat());
    assert_eq!((again.code, again.error()), (ended.code, ended.error()));
}

#[test]
fn rows_that_overflow_are_skipped() {
    for (n, value) in [f32::INFINITY, f32::NAN, f32::NEG_INFINITY].into_iter().enumerate() {
        let folder = TempDir::new(&format!("bad-rows-{n}"));
        let model = broken_row(&folder, value);
        // Seven good rows, and then nothing but bad ones.
        let rows: Vec<(usize, bool)> = (0..14).map(|i| (GOOD[i % 7], i >= 7)).collect();
        let mut opened = open(row_by_row(model, write_rows(&folder, &rows)));
        let disk = SimDisk::new();
        let done = run(&mut opened, &disk, None);
        let error = done.outcome.expect_err("five bad steps");
        let said = "step 12: the gradient of layer 0 AttnQ lora_A is not finite, and 5 steps in a row were skipped: ";
        assert_eq!(error.spelled(&as_flag), said.to_string() + ADVICE, "{value}");
        let skipped: Vec<u64> = done.rows.iter().filter(|r| r.skipped.is_some()).map(|r| r.step).collect();
        assert_eq!(skipped, [8, 9, 10, 11, 12], "{value}");
        assert_all_finite(&disk);
        // Skipped steps are saved as what they were: nothing.
        let good = Job { max_steps: Some(7), ..opened.job.clone() };
        let before = finish(&mut open(good), &SimDisk::new()).files;
        for step in [8, 10] {
            let saved = library::trained(&disk, step).files;
            for name in ["adapter_model.safetensors", "optimizer.safetensors"] {
                assert!(tensors(&saved[name]) == tensors(&before[name]), "{value}, step {step}: {name}");
            }
        }
    }
}

/// Names and bytes, without the metadata, which names the step.
fn tensors(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let file = SafeTensors::parse(Arc::new(bytes.to_vec())).unwrap_or_else(|e| panic!("{e}"));
    file.tensors().iter().map(|t| (t.name.clone(), file.tensor_slice(t).to_vec())).collect()
}

/// Few bad rows are borne: the run ends, says how many, and is interrupted as any other.
#[test]
fn some_bad_rows_are_borne() {
    let folder = TempDir::new("some-bad-rows");
    let model = broken_row(&folder, f32::NAN);
    let rows: Vec<(usize, bool)> = (0..12).map(|i| (GOOD[i % 7], i % 3 == 1)).collect();
    let mut opened = open(row_by_row(model, write_rows(&folder, &rows)));
    let disk = SimDisk::new();
    let outcome = run(&mut opened, &disk, None).outcome.unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((outcome.step, outcome.skipped), (12, 4));
    let want = library::trained(&disk, 12);
    for stop_at in 1..12 {
        let disk = SimDisk::new();
        run(&mut opened, &disk, Some(stop_at)).outcome.unwrap_or_else(|e| panic!("{e}"));
        finish(&mut opened, &disk).assert_equals(&want, &format!("stopped after {stop_at}"));
    }
    // Every second row is too much: the sixth is more than one in a hundred of five hundred.
    let rows: Vec<(usize, bool)> = (0..16).map(|i| (GOOD[i % 7], i % 2 == 0)).collect();
    write_rows(&folder, &rows);
    let error = run(&mut open(opened.job.clone()), &SimDisk::new(), None).outcome.expect_err("six bad steps");
    assert!(error.message().contains(", and 6 of the last 500 steps were skipped: "), "{error}");
}

/// The eval rows alone are bad: the run is no better for it, and can be resumed.
#[test]
fn held_out_rows_that_overflow_publish_nothing() {
    let folder = TempDir::new("bad-eval-rows");
    let model = broken_row(&folder, f32::NAN);
    let good: Vec<(usize, bool)> = (0..8).map(|i| (i, false)).collect();
    let mut job = row_by_row(model, write_rows(&folder, &good));
    (job.eval_split, job.eval_every, job.epochs) = (0.2, Some(2), 2);
    let data = Dataset::open(&job.data[0], None, 320, &job.data_options()).unwrap_or_else(|e| panic!("{e}"));
    let eval_rows: Vec<usize> =
        (0..data.n_eval()).map(|i| data.eval(i).unwrap_or_else(|e| panic!("{e}")).line - 1).collect();
    assert!(!eval_rows.is_empty());
    write_rows(&folder, &(0..8).map(|i| (i, eval_rows.contains(&i))).collect::<Vec<_>>());
    let mut opened = open(job);
    let disk = SimDisk::new();
    let outcome = run(&mut opened, &disk, None).outcome.unwrap_or_else(|e| panic!("{e}"));
    let Ending::Finished(Verdict::Worse(why)) = &outcome.ending else { panic!("{outcome:?}") };
    assert_eq!(why, "the eval loss is not finite");
    assert!(outcome.skipped == 0 && !disk.tree(RUN).contains_key("/current"), "{outcome:?}");
    let want = library::trained(&disk, outcome.step);
    for stop_at in [1, 2, 5] {
        let disk = SimDisk::new();
        run(&mut opened, &disk, Some(stop_at)).outcome.unwrap_or_else(|e| panic!("{e}"));
        finish(&mut opened, &disk).assert_equals(&want, &format!("stopped after {stop_at}"));
    }
}

/// A gradient whose square is no number would stay in the moments for good, and no checkpoint could be read again.
#[test]
fn gradients_too_long_for_moments_are_skipped() {
    let folder = TempDir::new("long-gradients");
    let init = folder.path("init");
    write_long_adapter(&init, 1e21);
    let mut job = Job { gradient_accumulation_steps: 1, init_adapter: Some(init), ..job("tiny-qwen2-tied", 12) };
    job.memory.dropout = 0.0;
    for max_grad_norm in [0.0, 1.0] {
        job.max_grad_norm = max_grad_norm;
        let disk = SimDisk::new();
        let done = run(&mut open(job.clone()), &disk, None);
        let said = "step 5: the gradient is too long for a number, and 5 steps in a row were skipped: ";
        assert_eq!(done.outcome.expect_err("five bad steps").spelled(&as_flag), said.to_string() + ADVICE);
        assert_all_finite(&disk);
        let kept: Vec<_> = disk.tree(RUN).into_keys().filter(|k| k.ends_with("MANIFEST")).collect();
        assert_eq!(kept, ["/step-00000003/MANIFEST"], "max_grad_norm {max_grad_norm}");
    }
}

/// Decay that is no decay makes weights a hundred times larger at every step, until they are no numbers: those are not saved.
#[test]
fn weights_that_overflow_are_not_saved() {
    let mut job = Job { learning_rate: Some(10.0), save_every: Some(1), ..job("tiny-qwen2-tied", 60) };
    (job.weight_decay, job.max_grad_norm) = (10.0, 0.0);
    let disk = SimDisk::new();
    let done = run(&mut open(job), &disk, None);
    let error = done.outcome.expect_err("it cannot end well");
    println!("{} rows: {error}", done.rows.len());
    assert!(!error.message().contains('\n'), "{error}");
    assert_all_finite(&disk);
    assert!(disk.tree(RUN).keys().any(|k| k.ends_with("MANIFEST")));
}

/// An adapter of the fixture's shape whose A is huge and whose B is zero: it changes no output, and its gradient is huge.
fn write_long_adapter(dir: &Path, value: f32) {
    let source = ModelSource::open(&fixture("tiny-qwen2-tied")).unwrap_or_else(|e| panic!("{e}"));
    let config = source.config();
    let lora = Lora::new(config, [true; 7], &Layers::default(), 4, 8.0);
    let mut values = vec![0.0; lora.n_parameters()];
    lora.initialise(&mut values, 1);
    values.iter_mut().for_each(|v| *v *= value);
    let pair = |(layer, target, a, b)| PeftTensor { part: TARGETS[target], layer, a, b };
    let tensors: Vec<PeftTensor<'_>> = lora.pairs(&values).map(pair).collect();
    let peft =
        PeftAdapter { config, rank: 4, alpha: 8.0, dropout: 0.0, base_name: "tiny", tensors: &tensors, metadata: &[] };
    fs::create_dir_all(dir).expect("a folder");
    peft.write_into(dir).unwrap_or_else(|e| panic!("{e}"));
}
