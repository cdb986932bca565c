//! What a source gives: transcoded matrices, constants of the families, names of multimodal files, the file map.

use std::sync::Arc;

use lichen_kernels::formats::decode;
use lichen_kernels::ops::rope::RopeScaling;
use lichen_kernels::Format;
use lichen_runtime::files::formats::gguf::{type_id, Gguf, GgufSet};
use lichen_runtime::files::formats::{gguf_config, hf_config};
use lichen_runtime::files::mapped_file::MappedFile;
use lichen_runtime::{ModelConfig, ModelSource, Part};
use lichen_tests::fixture;
use lichen_tests::formats::corpus::TempDir;
use lichen_tests::formats::gguf_file::{self as g, tiny_gemma3};
use serde_json::{json, Value};

/// Every format that is read but not computed with becomes Q8_0, within half a step of its scale.
#[test]
fn transcoding() {
    // Where the f16 scales of a block lie, in bytes.
    let scales = |format: Format| match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => vec![0, 2],
        Format::Q2_K => vec![80, 82],
        Format::Q3_K => vec![108],
        Format::Q6_K => vec![208],
        // Spread over the top nibbles of four u16: of 0x2121, which is 0.01.
        Format::IQ1_M => vec![],
        _ => vec![0],
    };
    for format in Format::ALL.into_iter().filter(|format| !format.is_computed()) {
        let block_bytes = format.block_bytes();
        let width = format.block_len();
        let mut data: Vec<u8> = (0..64 * block_bytes).map(|i| (i * 37 % 251) as u8).collect();
        for block in data.chunks_exact_mut(block_bytes) {
            for at in scales(format) {
                block[at..at + 2].copy_from_slice(&half::f16::from_f32(0.01).to_le_bytes());
            }
            if format == Format::IQ1_M {
                for (at, nibble) in [(49, 0x10), (51, 0x20), (53, 0x10), (55, 0x20)] {
                    block[at] = block[at] & 15 | nibble;
                }
            }
        }
        // gate is (hidden, dim): a model as wide as the block.
        let file = resized(width as u64)
            .tensor("blk.1.ffn_gate.weight", |t| (t.type_id, t.data) = (type_id(format), data.clone()))
            .bytes();
        let source = ModelSource::from_bytes("m", Arc::new(file)).expect("sound");
        let memory = source.part_memory(Part::FfnGate, Some(1)).expect("sound");
        let matrix = source.matrix(Part::FfnGate, Some(1)).expect("sound");
        assert_eq!(matrix.format(), Format::Q8_0);
        assert_eq!(source.transcoded(), [(format, 1)]);
        assert_eq!((memory.mapped, memory.heap), (0, matrix.bytes().len()));
        assert_eq!(source.heap_bytes(), matrix.bytes().len());
        let (mut want, mut got) = (vec![0.0; 64 * width], vec![0.0; 64 * width]);
        decode(format, &data, &mut want);
        matrix.decode_rows(0..64, &mut got);
        for (block, (g, w)) in got.chunks(32).zip(want.chunks(32)).enumerate() {
            let amax = w.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            for (g, w) in g.iter().zip(w) {
                // Half a step, and the f16 rounding of the scale.
                assert!((g - w).abs() <= amax * (0.5 / 127.0 + 0.0006), "{format}, block {block}: {g} for {w}");
            }
        }
    }
}

/// What the metadata of a file describes, whatever its weights are.
pub fn config_of(file: &g::GgufFile) -> ModelConfig {
    let gguf = Gguf::parse(Arc::new(file.bytes())).expect("sound");
    gguf_config::model_config(&GgufSet::whole(gguf).expect("one file")).unwrap_or_else(|e| panic!("{e}"))
}

/// [`tiny_gemma3`] with another width.
pub fn resized(dim: u64) -> g::GgufFile {
    let mut file = tiny_gemma3().set("gemma3.embedding_length", g::u32(dim as u32));
    for tensor in &mut file.tensors {
        let name = String::from_utf8(tensor.name.clone()).expect("UTF-8");
        let is_dim = |axis: usize| match () {
            _ if name.contains("attn_q_norm") || name.contains("attn_k_norm") => false,
            _ if name.contains("attn_output") || name.contains("ffn_down") => axis == 1,
            _ => axis == 0,
        };
        for (axis, d) in tensor.dims.iter_mut().enumerate() {
            *d = if is_dim(axis) { dim } else { *d };
        }
        tensor.data = vec![0; 4 * tensor.dims.iter().product::<u64>() as usize];
    }
    file
}

/// transformers rounds sqrt(dim) to the type of the weights.
#[test]
fn embedding_scale() {
    let config = json!({
        "model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144
    });
    for (format, want) in [(Format::BF16, 34.0), (Format::F16, 33.9375), (Format::F32, 33.941_124)] {
        assert_eq!(hf_config::model_config(&config, format).expect("sound").embedding_scale, want, "{format}");
    }
}

/// The config of the 4B model leaves out what transformers has defaults for.
#[test]
fn multimodal_config() {
    let config = json!({
        "model_type": "gemma3", "text_config": {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024
        }
    });
    let config = hf_config::model_config(&config, Format::BF16).expect("sound");
    assert_eq!((config.n_heads, config.n_kv_heads, config.head_dim, config.vocab_size), (8, 4, 256, 262_208));
    assert_eq!((config.rope_theta, config.rope_theta_local, config.rope_scaling), (1e6, 1e4, RopeScaling::Linear(8.0)));
    assert_eq!((config.sliding_window, config.query_scale, config.tied_head), (Some(1024), 0.0625, true));
    assert_eq!(config.is_global.iter().filter(|global| **global).count(), 5);
}

#[test]
fn multimodal_names() {
    let plain = ModelSource::open(&fixture("tiny-gemma3")).expect("folder");
    let text: Value = serde_json::from_slice(&std::fs::read(fixture("tiny-gemma3/config.json")).unwrap()).unwrap();
    let bytes = std::fs::read(fixture("tiny-gemma3/model.safetensors")).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&bytes[8..8 + header_len]).unwrap();
    for prefix in ["model.language_model.", "language_model.model.", ""] {
        let dir = TempDir::new();
        dir.write("config.json", json!({"model_type": "gemma3", "text_config": text}).to_string());
        let renamed = header.replace("\"model.", &format!("\"{prefix}"));
        let file = lichen_tests::formats::safetensors_file::with_header(renamed, &bytes[8 + header_len..]);
        dir.write("model.safetensors", file);
        let source = ModelSource::open(dir.path()).expect(prefix);
        assert_eq!(source.config(), plain.config());
        for (part, layer) in [(Part::OutputNorm, None), (Part::FfnNorm, Some(3)), (Part::PostAttnNorm, Some(6))] {
            assert_eq!(source.vector(part, layer).unwrap(), plain.vector(part, layer).unwrap(), "{prefix}{part:?}");
        }
    }
}

/// Gemma 3 27B alone scales queries by dim / n_heads.
#[test]
fn query_scale_of_the_largest_gemma() {
    let config = |layers: u32| {
        let file = tiny_gemma3().set("gemma3.block_count", g::u32(layers));
        config_of(&file)
    };
    assert_eq!(config(61).query_scale, 0.25);
    let wider = resized(64).set("gemma3.block_count", g::u32(62)).set("gemma3.embedding_length", g::u32(64));
    assert_eq!(config_of(&wider).query_scale, (32.0f64).powf(-0.5) as f32);
}

#[test]
fn window_patterns() {
    let global = |file: g::GgufFile| config_of(&file).is_global;
    let key = "gemma3.attention.sliding_window_pattern";
    assert_eq!(global(tiny_gemma3()), [false, false]);
    assert_eq!(global(tiny_gemma3().set(key, g::u32(2))), [false, true]);
    assert_eq!(global(tiny_gemma3().set(key, g::array(7, 2, [0, 1]))), [true, false]);
}

#[test]
fn end_markers_are_found_by_their_text() {
    let tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<end_of_turn>"];
    let file = tiny_gemma3().set("tokenizer.ggml.tokens", g::strings(&tokens)).without("tokenizer.ggml.eos_token_id");
    let source = ModelSource::from_bytes("m", Arc::new(file.bytes())).expect("sound");
    assert_eq!((source.stop_ids(), source.bos_id()), (vec![1, 4], Some(2)));
}

#[test]
fn fingerprints_tell_weights_apart() {
    let source = |byte: u8| {
        let file = tiny_gemma3().tensor("blk.1.ffn_down.weight", |t| t.data[0] = byte);
        ModelSource::from_bytes("m", Arc::new(file.bytes())).expect("sound").fingerprint()
    };
    assert_eq!(source(0), source(0));
    assert_ne!(source(0), source(1));
}

#[test]
fn file_map() {
    let dir = TempDir::new();
    let path = dir.write("f", vec![7; 100_000]);
    let file = MappedFile::open(&path).expect("a file");
    file.advise_random(0..100_000);
    file.advise_will_need(5000..usize::MAX);
    file.advise_dont_need(4097..90_000);
    file.advise_dont_need(200_000..300_000);
    assert!((*file).as_ref().iter().all(|b| *b == 7), "dropped pages come back");
    file.check_length().expect("unchanged");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(4).unwrap();
    let error = file.check_length().expect_err("cut").to_string();
    assert!(error.ends_with("was cut from 100000 to 4 bytes since it was opened"), "{error}");
    let empty = MappedFile::open(&dir.write("e", [])).expect("an empty file");
    assert!((*empty).as_ref().is_empty());
    let error = MappedFile::open(dir.path()).err().expect("refused").to_string();
    assert!(error.ends_with("is a folder; a file is expected"), "{error}");
    assert!(MappedFile::open("/dev/zero".as_ref()).err().expect("refused").to_string().contains("is a pipe, socket"));
}
