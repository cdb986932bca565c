//! Quantised layers of Hugging Face folders: broken NF4 (C48), and the int8 schemes that are only converted.

use super::corpus_folder::{case, run, tiny_qwen2, Folder};
use lichen_runtime::{ModelSource, Part};
use lichen_tests::formats::corpus::TempDir;

/// The q projection of [`tiny_qwen2`] as bitsandbytes stores it with plain f32 scales.
fn nf4() -> Folder {
    let q = "model.layers.0.self_attn.q_proj.weight";
    let state = r#"{"quant_type":"nf4","blocksize":64,"dtype":"bfloat16","shape":[64,64]}"#;
    let levels: Vec<u8> = lichen_kernels::formats::nf4::LEVELS.iter().flat_map(|l| l.to_le_bytes()).collect();
    tiny_qwen2().weights(|w| {
        w.set(q, "U8", &[2048, 1], vec![0x70; 2048])
            .set(&format!("{q}.absmax"), "F32", &[64], 1.0f32.to_le_bytes().repeat(64))
            .set(&format!("{q}.quant_map"), "F32", &[16], levels.clone())
            .set(&format!("{q}.quant_state.bitsandbytes__nf4"), "U8", &[state.len()], state.into())
    })
}

#[test]
fn nf4_layers() {
    let q = "model.layers.0.self_attn.q_proj.weight";
    let part = |part: &str, dtype: &'static str, shape: &[usize], data: Vec<u8>| {
        let name = format!("{q}.{part}");
        nf4().weights(|w| w.set(&name, dtype, shape, data.clone()))
    };
    let without = |part: &str| nf4().weights(|w| w.without(&format!("{q}.{part}")));
    let state = |text: &str| part("quant_state.bitsandbytes__nf4", "U8", &[text.len()], text.into());
    let c48 = |folder: Folder, message: &str| case("C48", folder, &format!("DIR: \"{q}\": {message}"));
    let nested = r#"{"quant_type":"nf4","blocksize":64,"shape":[64,64],"nested_blocksize":256,"nested_offset":0.1}"#;
    let codes = |folder: Folder| folder.weights(|w| w.set(&format!("{q}.absmax"), "U8", &[64], vec![0; 64]));
    run(vec![
        c48(part("absmax", "F32", &[4608], vec![0; 18432]), "4,608 scales for 64 blocks of 64"),
        c48(part("quant_map", "F32", &[15], vec![0; 60]), "quant_map has 15 F32 values; 16 F32 are needed"),
        c48(part("quant_map", "F32", &[16], vec![0; 64]), "quant_map does not hold NF4's levels"),
        c48(without("quant_state.bitsandbytes__nf4"), "has no quant_state.bitsandbytes__nf4"),
        c48(without("absmax"), "has no absmax"),
        c48(without("quant_map"), "has no quant_map"),
        c48(part("surprise", "U8", &[1], vec![0]), "unknown part \"surprise\""),
        c48(part("absmax", "F16", &[64], vec![0; 128]), "absmax is F16; F32 or U8 is needed"),
        c48(
            state(r#"{"quant_type":"nf4","blocksize":0,"shape":[64,64]}"#),
            "quant_state: blocksize is 0; 1 to 1048576 expected",
        ),
        c48(state(r#"{"quant_type":"nf4","blocksize":64}"#), "quant_state: shape is missing"),
        c48(
            state(r#"{"quant_type":"fp4","blocksize":64,"shape":[64,64]}"#),
            "quant_state: bitsandbytes quant_type \"fp4\" is not supported (supported: nf4)",
        ),
        c48(state("{"), "quant_state: is not JSON: line 1 column 1: EOF while parsing an object"),
        c48(codes(nf4()), "quant_state: nested_blocksize is missing"),
        c48(codes(state(nested)), "has no nested_absmax"),
        case(
            "C48",
            state(r#"{"quant_type":"nf4","blocksize":64,"shape":[32,64]}"#),
            &format!("DIR: tensor \"{q}\": 32 x 64 here, 64 x 64 by config.json"),
        ),
        case(
            "C48",
            part("quant_state.bitsandbytes__fp4", "U8", &[1], vec![0]),
            "DIR: bitsandbytes quant_type \"fp4\" is not supported (supported: nf4)",
        ),
    ]);
}

/// `bnb_4bit_quant_storage`: the same nibbles, called values of a wider type.
#[test]
fn nf4_in_other_storage() {
    let q = "model.layers.0.self_attn.q_proj.weight";
    let matrix = |dtype: &'static str, size: usize| {
        let dir = TempDir::new();
        let nibbles: Vec<u8> = (0..2048).map(|i| (i * 7 % 256) as u8).collect();
        nf4().weights(|w| w.set(q, dtype, &[2048 / size, 1], nibbles.clone())).write(dir.path());
        let source = ModelSource::open(dir.path()).unwrap_or_else(|e| panic!("{dtype}: {e}"));
        let memory = source.part_memory(Part::AttnQ, Some(0)).expect("sound");
        assert_eq!((memory.mapped, memory.heap), (2048, 64 * 4), "{dtype}");
        source.matrix(Part::AttnQ, Some(0)).unwrap_or_else(|e| panic!("{dtype}: {e}"))
    };
    let plain = matrix("U8", 1);
    assert_eq!(plain.format(), lichen_kernels::Format::NF4);
    for (dtype, size) in [("BF16", 2), ("F16", 2), ("F32", 4)] {
        let stored = matrix(dtype, size);
        assert_eq!(stored.format(), plain.format(), "{dtype}");
        assert!(stored.bytes() == plain.bytes() && stored.absmax() == plain.absmax(), "{dtype}");
    }
    let short = nf4().weights(|w| w.set(q, "BF16", &[1023, 1], vec![0; 2046]));
    let fp4 = nf4().weights(|w| {
        let state = format!("{q}.quant_state.bitsandbytes__");
        w.set(q, "BF16", &[1024, 1], vec![0; 2048]).without(&format!("{state}nf4")).set(
            &format!("{state}fp4"),
            "U8",
            &[1],
            vec![0],
        )
    });
    run(vec![
        case("C48", short, &format!("DIR: \"{q}\": 2046 bytes for 4096 values; 2048 are needed")),
        case("C48", fp4, "DIR: bitsandbytes quant_type \"fp4\" is not supported (supported: nf4)"),
    ]);
}

#[test]
fn nf4_scales_are_checked_when_read() {
    let q = "model.layers.0.self_attn.q_proj.weight";
    let dir = TempDir::new();
    let mut scales = 1.0f32.to_le_bytes().repeat(64);
    scales[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
    nf4().weights(|w| w.set(&format!("{q}.absmax"), "F32", &[64], scales.clone())).write(dir.path());
    let source = ModelSource::open(dir.path()).expect("the table is sound");
    let error = source.matrix(Part::AttnQ, Some(0)).err().expect("refused").to_string();
    assert!(error.ends_with(&format!("\"{q}\": 1 of 64 scales are not finite")), "{error}");
}

#[test]
fn int8_folders_are_for_converting() {
    let module = "model.layers.0.self_attn.q_proj";
    let weight = format!("{module}.weight");
    let quants: Vec<u8> = (0..4096).map(|i| (i % 255) as u8).collect();
    let scb: Vec<u8> = 2.54f32.to_le_bytes().repeat(64);
    let llm_int8 = tiny_qwen2().weights(|w| {
        w.set(&weight, "I8", &[64, 64], quants.clone()).set(&format!("{module}.SCB"), "F32", &[64], scb.clone())
    });
    let scale: Vec<u8> = half::bf16::from_f32(0.02).to_le_bytes().repeat(64);
    let quanto = tiny_qwen2().weights(|w| {
        w.without(&weight).set(&format!("{weight}._data"), "I8", &[64, 64], quants.clone()).set(
            &format!("{weight}._scale"),
            "BF16",
            &[64, 1],
            scale.clone(),
        )
    });
    let refused = "DIR: holds int8 weights of bitsandbytes or quanto: convert them first with lichen-host quantize";
    for (folder, unit) in [(llm_int8, 0.02f32), (quanto, half::bf16::from_f32(0.02).to_f32())] {
        run(vec![case("int8", folder.clone(), refused)]);
        let dir = TempDir::new();
        folder.write(dir.path());
        let source = ModelSource::open_to_convert(dir.path()).expect("sound");
        let matrix = source.matrix(Part::AttnQ, Some(0)).expect("decodes");
        let mut values = vec![0.0; 4096];
        matrix.decode_rows(0..64, &mut values);
        for (value, quant) in values.iter().zip(&quants) {
            assert!((value - *quant as i8 as f32 * unit).abs() < 1e-6, "{value} from {quant}");
        }
    }
}
