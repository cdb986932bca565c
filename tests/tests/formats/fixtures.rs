//! Files made by the ecosystem's own writers: decoders against the PyPI `gguf` package, and the same model from GGUF
//! and from a Hugging Face folder.

use std::sync::Arc;

use lichen_kernels::formats::{decode, float, q4_0, q5_0, q8_0};
use lichen_kernels::Format;
use lichen_runtime::files::formats::hf_config;
use lichen_runtime::files::formats::safetensors::SafeTensors;
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::{ModelSource, Part, TokenizerSource};
use lichen_tests::fixture;

fn blocks() -> SafeTensors {
    let bytes = std::fs::read(fixture("blocks.safetensors")).expect("fixture");
    SafeTensors::parse(Arc::new(bytes)).expect("sound")
}

fn f32s(file: &SafeTensors, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|| panic!("{name}"));
    let mut values = vec![0.0; tensor.range.len() / 4];
    float::decode_f32(file.tensor_slice(tensor), &mut values);
    values
}

#[test]
fn decoders_give_the_reference_values() {
    let file = blocks();
    let mut seen = 0;
    for format in Format::ALL {
        let Some(tensor) = file.tensor(&format!("{format}.bytes")) else { continue };
        let want = f32s(&file, &format!("{format}.values"));
        let mut got = vec![f32::NAN; want.len()];
        decode(format, file.tensor_slice(tensor), &mut got);
        for (i, (g, w)) in got.iter().zip(&want).enumerate() {
            // One rounding of difference in the order of products; NaN fails.
            let close = (g - w).abs() <= 2e-7 * w.abs().max(1e-3);
            assert!(close, "{format}: value {i}: got {g}, want {w}");
        }
        seen += 1;
    }
    assert_eq!(seen, 20, "formats in the fixture");
}

#[test]
fn encoders_give_the_reference_bytes() {
    let file = blocks();
    let input = f32s(&file, "input");
    type Encode = fn(&[f32], &mut Vec<u8>);
    let cases: [(&str, Encode); 4] =
        [("Q8_0", q8_0::encode), ("Q4_0", q4_0::encode), ("Q5_0", q5_0::encode), ("BF16", float::encode_bf16)];
    for (name, encode) in cases {
        let want = file.tensor_slice(file.tensor(&format!("{name}.bytes")).expect("present"));
        let mut got = Vec::new();
        encode(&input, &mut got);
        let different = got.iter().zip(want).filter(|(g, w)| g != w).count();
        assert_eq!((got.len(), different), (want.len(), 0), "{name}: differing bytes");
    }
}

#[test]
fn gguf_and_folder_hold_the_same_model() {
    for name in ["tiny-gemma3", "tiny-qwen2-tied"] {
        let dir = fixture(name);
        let folder = ModelSource::open(&dir).expect("folder");
        let gguf = ModelSource::open(&dir.join(format!("{name}-f32.gguf"))).expect("gguf");
        assert_eq!(folder.config(), gguf.config(), "{name}");
        assert_eq!(folder.bos_id(), gguf.bos_id(), "{name}: bos");
        assert_eq!(folder.chat_template(), gguf.chat_template(), "{name}: template");
        for id in folder.stop_ids() {
            assert!(gguf.stop_ids().contains(&id), "{name}: stop id {id} of {:?}", gguf.stop_ids());
        }
        for (part, layer) in Part::of_model(folder.config()) {
            match part.shape(folder.config()) {
                PartShape::Vector(_) => {
                    let (a, b) = (folder.vector(part, layer).unwrap(), gguf.vector(part, layer).unwrap());
                    assert_eq!(a, b, "{name}: {part:?} {layer:?}");
                }
                PartShape::Matrix(..) => {
                    let (a, b) = (folder.matrix(part, layer).unwrap(), gguf.matrix(part, layer).unwrap());
                    assert_eq!(a.format(), b.format(), "{name}: {part:?} {layer:?}");
                    assert!(a.bytes() == b.bytes(), "{name}: {part:?} {layer:?}");
                }
            }
        }
        assert_ne!(folder.fingerprint(), gguf.fingerprint());
    }
}

#[test]
fn both_styles_of_config_say_the_same() {
    for name in ["tiny-gemma3", "tiny-qwen2-tied", "tiny-qwen2-untied"] {
        let read = |file: &str| {
            let text = std::fs::read_to_string(fixture(name).join(file)).expect("fixture");
            hf_config::model_config(&serde_json::from_str(&text).expect("JSON"), Format::F32).expect("sound")
        };
        assert_eq!(read("config.json"), read("config-transformers5.json"), "{name}");
    }
}

#[test]
fn q8_0_files_are_used_as_they_are() {
    for name in ["tiny-gemma3", "tiny-qwen2-tied", "tiny-qwen2-untied"] {
        let dir = fixture(name);
        let folder = ModelSource::open(&dir).expect("folder");
        let quantised = ModelSource::open(&dir.join(format!("{name}-q8_0.gguf"))).expect("gguf");
        assert_eq!(folder.config(), quantised.config(), "{name}");
        for (part, layer) in Part::of_model(folder.config()) {
            let PartShape::Matrix(..) = part.shape(folder.config()) else { continue };
            let ours = folder.matrix_q8_0(part, layer).expect("matrix");
            let theirs = quantised.matrix(part, layer).expect("matrix");
            assert_eq!(theirs.format(), Format::Q8_0, "{name}: {part:?}");
            assert!(ours.bytes() == theirs.bytes(), "{name}: {part:?} {layer:?}: our Q8_0 differs");
        }
        assert_eq!(quantised.heap_bytes(), 0);
        assert_eq!(quantised.weight_memory().unwrap().mapped, mapped_matrix_bytes(&quantised));
        let TokenizerSource::Arrays(arrays) = quantised.tokenizer().expect("arrays") else { panic!("not arrays") };
        assert_eq!(arrays.tokens.len(), quantised.config().vocab_size);
    }
}

fn mapped_matrix_bytes(source: &ModelSource) -> usize {
    let matrices = Part::of_model(source.config())
        .filter(|(part, _)| matches!(part.shape(source.config()), PartShape::Matrix(..)));
    matrices.map(|(part, layer)| source.matrix(part, layer).unwrap().bytes().len()).sum()
}

#[test]
fn nf4_folders_of_bitsandbytes_open() {
    let source = ModelSource::open(&fixture("tiny-gemma3-nf4")).expect("folder");
    let full = ModelSource::open(&fixture("tiny-gemma3")).expect("folder");
    assert_eq!(source.config(), full.config());
    let mut worst = 0.0f64;
    for (part, layer) in Part::of_model(source.config()) {
        let PartShape::Matrix(rows, cols) = part.shape(source.config()) else { continue };
        let (quantised, exact) = (source.matrix(part, layer).unwrap(), full.matrix(part, layer).unwrap());
        let expected = if part == Part::TokenEmbedding { Format::F32 } else { Format::NF4 };
        assert_eq!(quantised.format(), expected, "{part:?}");
        let (mut a, mut b) = (vec![0.0; rows * cols], vec![0.0; rows * cols]);
        quantised.decode_rows(0..rows, &mut a);
        exact.decode_rows(0..rows, &mut b);
        let error: f64 = a.iter().zip(&b).map(|(a, b)| (*a as f64 - *b as f64).powi(2)).sum();
        let power: f64 = b.iter().map(|b| (*b as f64).powi(2)).sum();
        worst = worst.max((error / power).sqrt());
    }
    // Normal weights in NF4 with double quantisation: about 9% root mean square; a wrong nibble order gives over 100%.
    assert!(worst > 0.01 && worst < 0.12, "relative error {worst}");
    assert_eq!(source.weight_memory().unwrap().heap, expected_nf4_heap(&source));
}

/// The expanded scales and the vectors.
fn expected_nf4_heap(source: &ModelSource) -> usize {
    Part::of_model(source.config())
        .map(|(part, layer)| match part.shape(source.config()) {
            PartShape::Vector(n) => n * 4,
            PartShape::Matrix(..) => size_of_val(source.matrix(part, layer).unwrap().absmax()),
        })
        .sum()
}
