//! Random damage, half of it aware of the structure: byte flips alone die at the magic.

use serde_json::{json, Value};

use super::gguf_file::{self as g, tiny_gemma3, tiny_gemma3_of_ollama, tiny_gguf_adapter, tiny_qwen2_yarn, GgufFile};
use super::random::Random;
use super::safetensors_file::{with_header, SafetensorsFile};

/// Numbers at which arithmetic breaks.
const EDGES: [u64; 22] = [
    0,
    1,
    2,
    3,
    7,
    8,
    31,
    33,
    63,
    255,
    256,
    65_535,
    65_536,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 42,
    1 << 61,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX,
];

fn edge(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.number(),
        1 => random.below(4096) as u64,
        _ => *random.pick(&EDGES),
    }
}

/// A GGUF file with one to four faults; sometimes none.
pub fn gguf(random: &mut Random) -> Vec<u8> {
    let mut file = match random.below(4) {
        0 => tiny_gemma3_of_ollama(),
        1 => tiny_qwen2_yarn(),
        _ => tiny_gemma3(),
    };
    for _ in 0..random.below(4) {
        damage_gguf(&mut file, random);
    }
    let mut bytes = file.bytes();
    if random.below(3) == 0 {
        // The table is the first few kilobytes: damage to the data is only damage to weights.
        damage_bytes(&mut bytes, random, 3000);
    }
    bytes
}

/// The parts of a split model as [`super::check::gguf_split`] reads them, with one to three faults; sometimes none.
pub fn gguf_split(random: &mut Random) -> Vec<u8> {
    let mut parts = tiny_gemma3().split(1 + random.below(4));
    for _ in 0..random.below(4) {
        let n_parts = parts.len();
        let at = random.below(n_parts);
        let part = &mut parts[at];
        let n = edge(random);
        match random.below(6) {
            0 => *part = part.clone().set("split.no", g::u16(n as u16)),
            1 => *part = part.clone().set("split.count", g::u16(n as u16)),
            2 => *part = part.clone().set("split.tensors.count", g::i32(n as i32)),
            3 => {
                let tensor = part.tensors[random.below(part.tensors.len())].clone();
                let other = random.below(n_parts);
                parts[other].tensors.push(tensor);
            }
            4 if n_parts > 1 => drop(parts.remove(at)),
            _ => damage_gguf(part, random),
        }
    }
    let n_parts = parts.len();
    let framed = parts.iter().enumerate().flat_map(|(i, part)| {
        let bytes = part.bytes();
        let n = if i + 1 == n_parts { u32::MAX } else { bytes.len() as u32 };
        [n.to_le_bytes().to_vec(), bytes].concat()
    });
    framed.collect()
}

/// Where faults were found in practice: metadata and tensor descriptions first, then the header and consistency.
fn damage_gguf(file: &mut GgufFile, random: &mut Random) {
    let n_entries = file.metadata.len();
    let n_tensors = file.tensors.len();
    if n_entries == 0 || n_tensors == 0 {
        return;
    }
    let entry = random.below(n_entries);
    let tensor = random.below(n_tensors);
    match random.below(16) {
        0 => file.version = edge(random) as u32,
        1 => file.n_tensors = Some(edge(random)),
        2 => file.n_metadata = Some(edge(random)),
        3 => file.metadata[entry].value = random_value(random),
        4 => damage_bytes(&mut file.metadata[entry].value, random, usize::MAX),
        5 => damage_bytes(&mut file.metadata[entry].key, random, usize::MAX),
        6 => {
            let copy = file.metadata[entry].clone();
            file.metadata.insert(random.below(n_entries), copy);
        }
        7 => drop(file.metadata.remove(entry)),
        8 => *file = file.clone().set("general.alignment", g::u32(edge(random) as u32)),
        9 => {
            let axis = random.below(file.tensors[tensor].dims.len());
            if let Some(dim) = file.tensors[tensor].dims.get_mut(axis) {
                *dim = edge(random);
            }
        }
        10 => file.tensors[tensor].n_dims = random.below(7) as u32,
        11 => file.tensors[tensor].type_id = random.below(45) as u32,
        12 => file.tensors[tensor].offset = Some(edge(random)),
        13 => damage_bytes(&mut file.tensors[tensor].name, random, usize::MAX),
        14 => {
            let copy = file.tensors[tensor].clone();
            file.tensors.push(copy);
        }
        _ => drop(file.tensors.remove(tensor)),
    }
}

fn random_value(random: &mut Random) -> Vec<u8> {
    let n = edge(random);
    match random.below(10) {
        0 => g::u8(n as u8),
        1 => g::u32(n as u32),
        2 => g::i32(n as i32),
        3 => g::u64(n),
        4 => g::f32(f32::from_bits(n as u32)),
        5 => g::bool(n & 1 == 1),
        6 => g::string(vec![b'x'; random.below(40)]),
        7 => g::array(random.below(15) as u32, n, vec![1; random.below(64)]),
        8 => g::f32s(&vec![0.5; random.below(8)]),
        _ => g::strings(&vec!["a"; random.below(8)]),
    }
}

/// Flips, overwrites, cuts, inserts or removes within the first `within` bytes.
pub fn damage_bytes(bytes: &mut Vec<u8>, random: &mut Random, within: usize) {
    for _ in 0..=random.below(3) {
        let len = bytes.len().min(within);
        if len == 0 {
            bytes.push(random.number() as u8);
            continue;
        }
        let at = random.below(len);
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.number() as u8,
            2 => {
                let value = edge(random).to_le_bytes();
                let n = if random.below(2) == 0 { 4 } else { 8 };
                bytes.iter_mut().skip(at).zip(&value[..n]).for_each(|(b, v)| *b = *v);
            }
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.number() as u8),
            5 => drop(bytes.remove(at)),
            _ => {
                let end = (at + random.below(64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = random.below(len);
                bytes.splice(to..to, copy);
            }
        }
    }
}

/// A safetensors file with a few faults; sometimes none.
pub fn safetensors(random: &mut Random) -> Vec<u8> {
    let dtypes = ["F32", "F16", "BF16", "I64", "I32", "I8", "U8", "BOOL"];
    let sizes = [4, 2, 2, 8, 4, 1, 1, 1];
    let mut file = SafetensorsFile::default();
    for i in 0..random.below(5) {
        let kind = random.below(dtypes.len());
        let shape: Vec<usize> = (0..random.below(4)).map(|_| random.below(5)).collect();
        let n: usize = shape.iter().product();
        file = file.add(&format!("tensor.{i}"), dtypes[kind], &shape, vec![0; n * sizes[kind]]);
    }
    let mut bytes = file.bytes();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes")) as usize;
    match random.below(4) {
        0 => bytes,
        1 => {
            let within = 8 + header_len;
            damage_bytes(&mut bytes, random, within);
            bytes
        }
        // The length stays that of the header, so that the damage is seen by the parser behind it.
        2 => {
            let mut header = bytes[8..8 + header_len].to_vec();
            damage_bytes(&mut header, random, usize::MAX);
            with_header(header, &bytes[8 + header_len..])
        }
        _ => {
            let mut header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).expect("made here");
            damage_json(&mut header, random);
            with_header(header.to_string(), &bytes[8 + header_len..])
        }
    }
}

/// config.json of a random family with a few faults; sometimes none.
pub fn hf_config(random: &mut Random) -> Vec<u8> {
    let mut config = match random.below(4) {
        3 => json!({
            "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "vocab_size": 5, "max_position_embeddings": 128,
            "rope_scaling": {
                "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 32, "beta_slow": 1,
                "attention_factor": 1.1, "mscale": 1.0, "mscale_all_dim": 1.0, "truncate": true
            }
        }),
        0 => json!({
            "model_type": "qwen2", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 5, "max_position_embeddings": 128,
            "rms_norm_eps": 1e-6, "rope_theta": 1e6, "hidden_act": "silu", "use_sliding_window": false,
            "sliding_window": 32, "max_window_layers": 2, "tie_word_embeddings": true, "rope_scaling": null
        }),
        1 => json!({
            "model_type": "gemma3_text", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 7,
            "head_dim": 32, "query_pre_attn_scalar": 32, "rope_local_base_freq": 10000, "rope_theta": 1e6,
            "sliding_window": 16, "sliding_window_pattern": 6, "final_logit_softcapping": null,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0}
        }),
        _ => json!({
            "model_type": "gemma3", "text_config": {
                "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
                "layer_types": ["sliding_attention", "full_attention"],
                "rope_parameters": {
                    "full_attention": {"rope_theta": 1e6, "rope_type": "linear", "factor": 8},
                    "sliding_attention": {"rope_theta": 1e4, "rope_type": "default"}
                }
            }
        }),
    };
    for _ in 0..random.below(4) {
        damage_json(&mut config, random);
    }
    let mut bytes = config.to_string().into_bytes();
    if random.below(4) == 0 {
        damage_bytes(&mut bytes, random, usize::MAX);
    }
    bytes
}

/// Replaces, removes or adds one value somewhere in the tree.
pub fn damage_json(value: &mut Value, random: &mut Random) {
    match value {
        Value::Object(map) if !map.is_empty() && random.below(6) > 0 => {
            let at = random.below(map.len());
            let key = map.keys().nth(at).expect("in range").clone();
            match random.below(6) {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert(format!("{key}x"), json!(1))),
                _ => damage_json(map.get_mut(&key).expect("present"), random),
            }
        }
        Value::Array(list) if !list.is_empty() && random.below(6) > 0 => {
            let at = random.below(list.len());
            match random.below(4) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => damage_json(&mut list[at], random),
            }
        }
        other => *other = random_json(random),
    }
}

fn random_json(random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => json!(random.below(2) == 0),
        2 => json!(edge(random)),
        3 => json!(-(random.below(1 << 20) as i64)),
        4 => json!(edge(random) as f64 * 0.5),
        5 => json!(*random.pick(&["", "full_attention", "linear", "yarn", "F32", "nf4", "\u{1b}[2J", "qwen2"])),
        6 => json!([]),
        7 => json!({}),
        _ => json!([[1, 2], {"a": "b"}]),
    }
}

/// adapter_config.json with a few faults; sometimes none.
pub fn adapter_config(random: &mut Random) -> Vec<u8> {
    let mut config = peft_config(random);
    for _ in 0..random.below(4) {
        damage_json(&mut config, random);
    }
    let mut bytes = config.to_string().into_bytes();
    if random.below(4) == 0 {
        damage_bytes(&mut bytes, random, usize::MAX);
    }
    bytes
}

/// A sound config of one of the kinds that are found: lists, expressions, layers, whole tables.
fn peft_config(random: &mut Random) -> Value {
    let mut config = json!({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "bias": "none",
        "target_modules": ["q_proj", "v_proj"], "use_rslora": false, "use_dora": false,
        "rank_pattern": {}, "alpha_pattern": {"^model\\.layers\\.1\\.mlp\\.up_proj$": 2.5, "layers.[01].*(q|k)_proj": 3},
        "modules_to_save": null, "init_lora_weights": true
    });
    match random.below(5) {
        0 => config["target_modules"] = json!("all-linear"),
        1 => config["target_modules"] = json!(*random.pick(&EXPRESSIONS)),
        2 => config["exclude_modules"] = json!(*random.pick(&EXPRESSIONS)),
        3 => {
            config["layers_to_transform"] = json!([1]);
            config["layers_pattern"] = json!("layers");
        }
        _ => config["modules_to_save"] = json!(["lm_head"]),
    }
    config
}

/// As fine-tuning programs write them, and as nobody should.
const EXPRESSIONS: [&str; 6] = [
    ".*(q|v)_proj",
    r"^(?!.*vision).*layers\.\d+\.(self_attn|mlp)\.(q|k|v|o|gate|up|down)_proj",
    r"(?:.*?(?:language|text).*?(?:self_attn|mlp).*?(?:_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn)\.(?:(?:q_proj)))",
    r"(?=x|)((\w|\.)*)*(?<=y)!",
    r"(\w{1000}){1000}",
    "(",
];

/// A PEFT adapter for the model of [`tiny_gemma3`], as `check::peft_adapter` takes it, with a few faults; sometimes none.
pub fn peft_adapter(random: &mut Random) -> Vec<u8> {
    let mut config = peft_config(random);
    let outer = *random.pick(&["model.", "model.language_model.", "language_model.model."]);
    let mut weights = SafetensorsFile::default();
    for (module, outputs) in [("layers.0.self_attn.q_proj", 32), ("layers.1.self_attn.v_proj", 16)] {
        let at = format!("base_model.model.{outer}{module}");
        weights = weights.add_f32(&format!("{at}.lora_A.weight"), &[4, 32]);
        weights = weights.add_f32(&format!("{at}.lora_B.weight"), &[outputs, 4]);
    }
    if random.below(2) == 0 || !config["modules_to_save"].is_null() {
        weights = weights.add_f32("base_model.model.lm_head.weight", &[5, 32]);
    }
    for _ in 0..random.below(3) {
        match random.below(3) {
            0 => damage_json(&mut config, random),
            1 => {
                let at = random.below(weights.tensors.len());
                let names = ["lora_magnitude_vector", "norm.weight", "lora_A.bias", "x"];
                weights.tensors[at].0 = format!("base_model.model.model.layers.1.{}", random.pick(&names));
            }
            _ => drop(weights.tensors.remove(random.below(weights.tensors.len()))),
        }
    }
    let mut bytes = [config.to_string().as_bytes(), &[0], &weights.bytes()].concat();
    if random.below(3) == 0 {
        damage_bytes(&mut bytes, random, usize::MAX);
    }
    bytes
}

/// A GGUF adapter for the model of [`tiny_gemma3`] with a few faults; sometimes none.
pub fn gguf_adapter(random: &mut Random) -> Vec<u8> {
    let mut file = tiny_gguf_adapter();
    for _ in 0..random.below(4) {
        damage_gguf(&mut file, random);
    }
    let mut bytes = file.bytes();
    if random.below(3) == 0 {
        damage_bytes(&mut bytes, random, usize::MAX);
    }
    bytes
}
