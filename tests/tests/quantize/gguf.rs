use lichen_host_tools::quantize::{run, Options, Target};
use lichen_kernels::formats::{q4_0, q8_0};
use lichen_kernels::Format;
use lichen_runtime::files::formats::gguf::{Gguf, Value};
use lichen_runtime::{ModelSource, Part};
use lichen_tests::models::{fixture, temp_dir};

use crate::{open_gguf, options, quantize, show};

/// Keys whose values differ for a reason.
///
/// - The name is the folder's here and the generator's there.
/// - Scores: ours are the indices of merges, the generator's the positions of pieces; what counts is their order.
/// - Gemma's end: ours is what the tokenizer names (with the turn's end beside it), the generator's the turn's end.
/// - Qwen's padding rows are pieces like any other in tokenizer.json; nothing there says that they are unused.
const DIFFERENT: [&str; 4] =
    ["general.name", "tokenizer.ggml.scores", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.token_type"];

#[test]
fn q8_0_files_equal_those_of_the_gguf_package() {
    let dir = temp_dir("quantize-gguf-package");
    for model in ["tiny-gemma3", "tiny-qwen2-tied", "tiny-qwen2-untied"] {
        let out = dir.join(format!("{model}.gguf"));
        quantize(&fixture(model), Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
        let (ours, theirs) = (open_gguf(&out), open_gguf(&fixture(&format!("{model}/{model}-q8_0.gguf"))));
        assert_eq!(ours.tensors().len(), theirs.tensors().len(), "{model}");
        for want in theirs.tensors() {
            let got = ours.tensor(&want.name).unwrap_or_else(|| panic!("{model}: no {}", want.name));
            assert_eq!((got.format, got.shape()), (want.format, want.shape()), "{model}: {}", want.name);
            let same = ours.tensor_bytes(got).as_slice() == theirs.tensor_bytes(want).as_slice();
            assert!(same, "{model}: {} has other bytes", want.name);
        }
        for (key, want) in theirs.metadata().iter() {
            let got = ours.metadata().get(key).unwrap_or_else(|| panic!("{model}: no {key}"));
            if !DIFFERENT.contains(&key) {
                assert_eq!(show(got), show(want), "{model}: {key}");
            }
        }
    }
}

#[test]
fn scores_order_pieces_as_the_gguf_package_does() {
    let dir = temp_dir("quantize-scores");
    let out = dir.join("m.gguf");
    quantize(&fixture("tiny-gemma3"), Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
    let order = |gguf: &Gguf| {
        let scores = numbers(gguf, "tokenizer.ggml.scores");
        let kinds = numbers(gguf, "tokenizer.ggml.token_type");
        // Of the normal pieces, those that merging makes: single characters are never compared, and no two pieces make
        // "ello" (273).
        let is_made = |id: &usize| kinds[*id] == 1.0 && (263..288).contains(id) && *id != 273;
        let mut ids: Vec<usize> = (0..scores.len()).filter(is_made).collect();
        ids.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        ids
    };
    let (ours, theirs) = (open_gguf(&out), open_gguf(&fixture("tiny-gemma3/tiny-gemma3-q8_0.gguf")));
    let (got, want) = (order(&ours), order(&theirs));
    assert_eq!(want.len(), 24);
    assert_eq!(got, want);
    let types = |gguf: &Gguf| numbers(gguf, "tokenizer.ggml.token_type");
    assert_eq!(types(&ours), types(&theirs));
}

fn numbers(gguf: &Gguf, key: &str) -> Vec<f32> {
    let Some(Value::Array(array)) = gguf.metadata().get(key) else { panic!("no array {key}") };
    let number = |item: Value| match item {
        Value::F32(v) => v,
        other => other.as_integer().expect("a number") as f32,
    };
    array.iter().map(number).collect()
}

#[test]
fn a_gemma_file_names_both_ends() {
    let dir = temp_dir("quantize-ends");
    let out = dir.join("m.gguf");
    quantize(&fixture("tiny-gemma3"), Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
    let source = ModelSource::open(&out).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(source.stop_ids(), [1, 5]);
    assert_eq!(source.bos_id(), Some(2));
    let original = ModelSource::open(&fixture("tiny-gemma3")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(source.chat_template(), original.chat_template());
    assert_eq!(source.config(), original.config());
}

#[test]
fn sampling_values_go_along() {
    let dir = temp_dir("quantize-sampling");
    let (folder, out) = (dir.join("folder"), dir.join("m.gguf"));
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(fixture("tiny-qwen2-tied").join(name), folder.join(name)).unwrap();
    }
    let values = r#"{"do_sample": true, "temperature": 0.25, "top_k": 20, "top_p": 0.8, "min_p": 0.05,
        "repetition_penalty": 1.1, "eos_token_id": [319, 317]}"#;
    std::fs::write(folder.join("generation_config.json"), values).unwrap();
    quantize(&folder, Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
    let source = ModelSource::open(&out).unwrap_or_else(|e| panic!("{e}"));
    let original = ModelSource::open(&folder).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(source.sampling().temperature, Some(0.25));
    assert_eq!(source.sampling(), original.sampling());
}

/// Linear layers are Q4_0 blocks of the source's values; embedding and head are Q8_0.
#[test]
fn q4_0_keeps_embedding_and_head_in_q8_0() {
    let dir = temp_dir("quantize-q4_0");
    let out = dir.join("m.gguf");
    let report = quantize(&fixture("tiny-qwen2-untied"), Target::Q4_0, &out).unwrap_or_else(|e| panic!("{e}"));
    let source = ModelSource::open(&fixture("tiny-qwen2-untied")).unwrap_or_else(|e| panic!("{e}"));
    let ours = open_gguf(&out);
    assert_eq!(ours.metadata().integer("general.file_type", 0, 100), Ok(Some(2)));
    let (mut n_q4, mut error, mut n_values) = (0, 0.0, 0);
    for (part, layer) in Part::of_model(source.config()) {
        let tensor = ours.tensor(&part.gguf_name(layer)).expect("written");
        if tensor.shape().len() == 1 {
            assert_eq!(tensor.format, Format::F32, "{part:?}");
            continue;
        }
        let matrix = source.matrix(part, layer).expect("readable");
        let mut values = vec![0.0; matrix.rows() * matrix.cols()];
        matrix.decode_rows(0..matrix.rows(), &mut values);
        let mut want = Vec::new();
        if matches!(part, Part::TokenEmbedding | Part::Output) {
            q8_0::encode(&values, &mut want);
            assert_eq!(tensor.format, Format::Q8_0, "{part:?}");
        } else {
            q4_0::encode(&values, &mut want);
            assert_eq!(tensor.format, Format::Q4_0, "{part:?}");
            let mut decoded = vec![0.0; values.len()];
            q4_0::decode(&want, &mut decoded);
            error += values.iter().zip(&decoded).map(|(a, b)| ((a - b) as f64).powi(2)).sum::<f64>();
            n_values += values.len();
            n_q4 += 1;
        }
        assert_eq!(ours.tensor_bytes(tensor).as_slice(), want, "{part:?} {layer:?}");
    }
    let figures = report.formats.iter().find(|f| f.format == "Q4_0").expect("reported");
    assert_eq!((figures.tensors, figures.values), (n_q4, n_values as u64));
    let want = error / n_values as f64;
    assert!((figures.mean_squared_error - want).abs() < 1e-9 * want, "{} for {want}", figures.mean_squared_error);
    assert_eq!(report.out_bytes, std::fs::metadata(&out).expect("written").len());
}

/// A GGUF in f32 gives the same blocks as the folder it was made of, and keeps every key but those about the weights.
#[test]
fn a_gguf_source_gives_the_same_blocks_and_keeps_its_metadata() {
    let dir = temp_dir("quantize-from-gguf");
    for model in ["tiny-gemma3", "tiny-qwen2-tied"] {
        let source = fixture(&format!("{model}/{model}-f32.gguf"));
        let out = dir.join(format!("{model}.gguf"));
        quantize(&source, Target::Q8_0, &out).unwrap_or_else(|e| panic!("{e}"));
        let (ours, theirs) = (open_gguf(&out), open_gguf(&fixture(&format!("{model}/{model}-q8_0.gguf"))));
        for want in theirs.tensors() {
            let got = ours.tensor(&want.name).expect("written");
            assert!(ours.tensor_bytes(got).as_slice() == theirs.tensor_bytes(want).as_slice(), "{}", want.name);
        }
        let text = |gguf: &Gguf| {
            let mut lines: Vec<String> = gguf.metadata().iter().map(|(key, v)| format!("{key} {}", show(v))).collect();
            lines.sort();
            lines
        };
        assert_eq!(text(&ours), text(&theirs), "{model}");
    }
}

/// Blocks that have the format already are passed on, not rounded once more.
#[test]
fn the_same_format_again_changes_nothing() {
    let dir = temp_dir("quantize-again");
    let out = dir.join("m.gguf");
    let source = fixture("tiny-gemma3/tiny-gemma3-q8_0.gguf");
    let report = run(&Options { name: Some("another".into()), ..options(&source, Target::Q8_0, &out) }, &mut ());
    let report = report.unwrap_or_else(|e| panic!("{e}"));
    assert!(report.formats.iter().all(|f| f.mean_squared_error == 0.0));
    let (ours, theirs) = (open_gguf(&out), open_gguf(&source));
    for want in theirs.tensors() {
        let got = ours.tensor(&want.name).expect("written");
        assert!(ours.tensor_bytes(got).as_slice() == theirs.tensor_bytes(want).as_slice(), "{}", want.name);
    }
    assert_eq!(ours.metadata().string("general.name"), Ok(Some("another")));
}

/// Plain numbers: F32 as the package `gguf` writes it, F16 and BF16 rounded to the nearest even; vectors stay F32.
#[test]
fn plain_formats_hold_the_rounded_values() {
    let dir = temp_dir("quantize-plain");
    for model in ["tiny-gemma3", "tiny-qwen2-tied"] {
        let theirs = open_gguf(&fixture(&format!("{model}/{model}-f32.gguf")));
        for (target, format, file_type) in
            [(Target::F32, Format::F32, 0), (Target::F16, Format::F16, 1), (Target::Bf16, Format::BF16, 32)]
        {
            let out = dir.join(format!("{model}-{}.gguf", target.name()));
            quantize(&fixture(model), target, &out).unwrap_or_else(|e| panic!("{e}"));
            let ours = open_gguf(&out);
            assert_eq!(ours.metadata().integer("general.file_type", 0, 100), Ok(Some(file_type)));
            assert!(ours.metadata().get("general.quantization_version").is_none(), "nothing is quantised");
            for want in theirs.tensors() {
                let got = ours.tensor(&want.name).expect("written");
                let bytes = theirs.tensor_bytes(want);
                let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                let values: Vec<f32> = bytes.as_slice().chunks_exact(4).map(number).collect();
                let rounded: Vec<u8> = match (format, want.shape().len()) {
                    (Format::F16, 2) => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
                    (Format::BF16, 2) => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
                    _ => bytes.as_slice().to_vec(),
                };
                assert!(ours.tensor_bytes(got).as_slice() == rounded, "{model} {format}: {}", want.name);
            }
        }
    }
}
