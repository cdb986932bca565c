//! The base that an adapter was made for: known again in every format, and told from a fine-tune.

use std::path::{Path, PathBuf};

use lichen_host_tools::quantize::{run, run_merged, Options, Target, SHARD_BYTES_MAX};
use lichen_runtime::engine::AdapterPath;
use lichen_runtime::files::adapter_file::{BaseRecord, PeftAdapter};
use lichen_runtime::files::model_source::{ModelIdentity, SameModel};
use lichen_runtime::loader::open_tokenizer;
use lichen_runtime::ModelSource;
use lichen_tests::models::{fixture, temp_dir};
use lichen_tests::programs::{self, lichen_host};

use crate::{config_of, open, peft_tensors, PAIRS};

const TARGETS: [Target; 6] = [Target::F32, Target::Bf16, Target::F16, Target::Q8_0, Target::Q4_0, Target::Nf4];

fn identity(path: &Path) -> ModelIdentity {
    let source = ModelSource::open(path).unwrap_or_else(|e| panic!("{e}"));
    ModelIdentity::of(&source, None).unwrap_or_else(|e| panic!("{e}"))
}

fn options(model: &Path, target: Target, out: PathBuf) -> Options {
    Options { model: model.into(), target, out, name: None, shard_bytes_max: SHARD_BYTES_MAX, split_bytes_max: None }
}

/// A model in every format; `scale` of its adapter merged first, where it is not zero.
fn in_every_format(base: &str, lora: &str, scale: f32, dir: &Path) -> Vec<(Target, ModelIdentity)> {
    let convert = |target: Target| {
        let options = options(&fixture(base), target, dir.join(format!("{base}-{scale}-{}.gguf", target.name())));
        match scale == 0.0 {
            true => run(&options, &mut ()),
            false => run_merged(&options, &AdapterPath { path: fixture(lora), scale }, false, &mut ()),
        }
        .unwrap_or_else(|e| panic!("{e}"));
        (target, identity(&options.out))
    };
    TARGETS.into_iter().map(convert).collect()
}

/// Pairs of formats, one of the base and one of the fine-tune, in which it is told from the base.
fn n_told(base: &[(Target, ModelIdentity)], tuned: &[(Target, ModelIdentity)]) -> usize {
    let mut n = 0;
    for (a, of_a) in base {
        let told = tuned.iter().map(|(b, of_b)| (b.name(), of_a.compare(of_b)));
        let told: Vec<&str> =
            told.filter(|(_, same)| matches!(same, SameModel::Other(_))).map(|(name, _)| name).collect();
        println!("  {} told from {}", a.name(), told.join(" "));
        n += told.len();
    }
    n
}

/// The table of the module `model_source/identity`: every pair of formats is one model, and a fine-tune is another one but
/// where both are in 4 bits, whose rounding hides it.
#[test]
fn a_model_is_known_again_in_every_format() {
    let dir = temp_dir("adapters-base");
    for (base, lora) in PAIRS {
        let same = in_every_format(base, lora, 0.0, &dir);
        for (a, of_a) in &same {
            for (b, of_b) in &same {
                assert_eq!(of_a.compare(of_b), SameModel::Yes, "{base}: {} and {}", a.name(), b.name());
            }
            assert_eq!(ModelIdentity::parse(&of_a.to_text()).as_ref(), Ok(of_a));
        }
        // Of 36 pairs, at least so many.
        for (scale, at_least) in [(0.3, 34), (0.03, 29)] {
            let tuned = in_every_format(base, lora, scale, &dir);
            println!("{base} + {scale} x its adapter: {:?}", same[0].1.compare(&tuned[0].1));
            let n = n_told(&same, &tuned);
            assert!(n >= at_least, "{base} x {scale}: {n}");
        }
    }
}

#[test]
fn damaged_records_are_refused() {
    let text = identity(&fixture("tiny-gemma3")).to_text();
    assert!(text.len() < 20_000, "{}", text.len());
    let cut = |n: usize| text[..n].to_string();
    for damaged in [
        String::new(),
        "{}".into(),
        cut(text.len() / 2),
        text.replacen("\"version\":1", "\"version\":2", 1),
        text.replacen("\"rows\":\"", "\"rows\":\"0", 1),
        text.replacen("\"rows\":\"", "\"rows\":\"zz", 1),
        text.replacen("\"rows\":\"", "\"rows\":\"007c", 1),
        text.replacen("\"lengths\":[64", "\"lengths\":[63", 1),
        text.replacen("\"lengths\":[64", "\"lengths\":[-1", 1),
        text.replacen("\"errors\":[", "\"errors\":[1e300,", 1),
    ] {
        let error = ModelIdentity::parse(&damaged).expect_err("damaged").message().to_string();
        assert!(error.starts_with("the record of the base model is "), "{error}");
    }
}

/// The fixture's adapter with a record of `base`, as the trainer writes it.
fn recorded(base: &Path, to: &Path) -> PathBuf {
    let source = ModelSource::open(base).unwrap_or_else(|e| panic!("{e}"));
    let tokenizer = open_tokenizer(&source).unwrap_or_else(|e| panic!("{e}"));
    let record = BaseRecord::of(&source, tokenizer.as_ref()).unwrap_or_else(|e| panic!("{e}"));
    let file = open(&fixture("tiny-gemma3-lora"), source.config());
    std::fs::create_dir(to).unwrap();
    let adapter = PeftAdapter {
        config: source.config(),
        rank: 4,
        alpha: 8.0,
        dropout: 0.0,
        base_name: "tiny",
        tensors: &peft_tensors(&file.targets),
        metadata: &record.entries(),
    };
    adapter.write_into(to).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(open(to, source.config()).base, record);
    to.to_path_buf()
}

#[test]
fn another_base_is_said_and_refused_where_it_would_be_built_upon() {
    let dir = temp_dir("adapters-other-base");
    let (own, lora) = (fixture("tiny-gemma3"), fixture("tiny-gemma3-lora"));
    let (quantised, tuned) = (dir.join("q4_0.gguf"), dir.join("tuned.gguf"));
    run(&options(&own, Target::Q4_0, quantised.clone()), &mut ()).unwrap();
    let adapter = AdapterPath { path: lora, scale: 0.5 };
    run_merged(&options(&own, Target::F32, tuned.clone()), &adapter, false, &mut ()).unwrap();
    let adapter = recorded(&own, &dir.join("adapter")).display().to_string();
    let path = |path: &Path| path.display().to_string();

    let logits = |model: &Path| {
        let out = path(&dir.join("logits"));
        let flags = ["logits", "--model", &path(model), "--adapter", &adapter, "--tokens", "2,4,7", "--out", &out];
        let done = programs::run(&mut programs::command(programs::lichen(), &flags));
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stderr
    };
    let (says_other, says_format) = ("made for another model", "made for this model in another format");
    assert!(!logits(&own).contains("was made for"), "the same bytes");
    let said = logits(&quantised);
    assert!(said.contains(says_format) && !said.contains(says_other), "{said}");
    let said = logits(&tuned);
    assert!(said.contains("warning: ") && said.contains(says_other) && said.contains(" of 64 sampled rows"), "{said}");

    // Merging and training build upon the base.
    let merge = |model: &Path, more: &[&str], out: &str| {
        let (model, out) = (path(model), path(&dir.join(out)));
        let flags = ["adapter", "merge", "--model", &model, "--adapter", &adapter, "--format", "q8_0", "--out", &out];
        programs::run(&mut programs::command(lichen_host(), &[&flags[..], more].concat()))
    };
    let said = merge(&quantised, &[], "a.gguf");
    assert!(said.code == Some(0) && said.stdout.contains(says_format), "{said:?}");
    let said = merge(&tuned, &[], "b.gguf");
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains(says_other) && said.stderr.contains("--allow-other-base merges it"), "{said:?}");
    let said = merge(&tuned, &["--allow-other-base"], "c.gguf");
    assert!(said.code == Some(0) && said.stdout.contains(says_other), "{said:?}");
    let rows = path(&fixture("training/tiny-gemma3/rows.jsonl"));
    let train = |model: &Path, more: &[&str], out: &str| {
        let (model, out) = (path(model), path(&dir.join(out)));
        let flags = ["lora", "--model", &model, "--data", &rows, "--out", &out, "--init-adapter", &adapter];
        let size = ["--rank", "4", "--alpha", "8", "--max-seq", "40", "--max-steps", "1", "--eval-split", "0"];
        programs::run(&mut programs::command(programs::lichen_train(), &[&flags[..], &size, more].concat()))
    };
    let said = train(&quantised, &[], "on-format");
    assert!(
        said.code == Some(0) && said.stderr.contains("the adapter was made for --model in another format"),
        "{said:?}"
    );
    let said = train(&tuned, &[], "refused");
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains(says_other) && said.stderr.contains("--allow-other-base goes on"), "{said:?}");
    let said = train(&tuned, &["--allow-other-base"], "allowed");
    assert!(said.code == Some(0) && said.stderr.contains(says_other), "{said:?}");

    // A GGUF adapter keeps the record, and a model of another depth is another shape.
    let gguf = path(&dir.join("adapter.gguf"));
    let flags = ["adapter", "convert", "--model", &path(&own), "--adapter", &adapter, "--out", &gguf];
    assert_eq!(programs::run(&mut programs::command(lichen_host(), &flags)).code, Some(0));
    let config = config_of("tiny-gemma3");
    assert_eq!(open(Path::new(&gguf), &config).base, open(Path::new(&adapter), &config).base);
}
