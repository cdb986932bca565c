//! What a vocabulary of Gemma's size costs. The figures are printed (`--nocapture`); the bounds only catch a change of
//! order, since machines differ.

use std::time::Instant;

use lichen_runtime::text::tokenizer::{Tokenizer, TokenizerArrays, TokenizerKind};

const N_TOKENS: usize = 262_144;

/// Bytes this process holds now, and the most it ever held.
fn resident_bytes() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<usize>().ok()).unwrap_or(0) << 10
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Seconds this thread ran on a processor: what the work costs however busy the machine is.
fn processor_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let ns = stat.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
    ns.unwrap_or(0) as f64 / 1e9
}

/// Every piece is two earlier ones joined, as merging makes them; 30% start with a space.
fn arrays() -> TokenizerArrays {
    let mut state = 1u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    let mut tokens: Vec<String> = ["<pad>", "<eos>", "<bos>", "<unk>"].map(String::from).to_vec();
    let mut token_type = vec![3; 4];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    token_type.extend([6; 256]);
    tokens.extend((0..6_400).map(|n| format!("<unused{n}>")));
    token_type.extend([4; 6_400]);
    let first = tokens.len();
    tokens.extend(('a'..='z').map(String::from));
    tokens.push("\u{2581}".to_string());
    tokens.extend(('\u{C80}'..='\u{CFF}').map(String::from));
    let mut seen: std::collections::HashSet<String> = tokens.iter().cloned().collect();
    while tokens.len() < N_TOKENS {
        let n = tokens.len() - first;
        let joined = format!("{}{}", tokens[first + below(n)], tokens[first + below(n.min(2000))]);
        if joined.len() < 24 && seen.insert(joined.clone()) {
            tokens.push(joined);
        }
    }
    token_type.resize(N_TOKENS, 1);
    let scores = (0..N_TOKENS).map(|id| -(id as f32)).collect();
    TokenizerArrays {
        kind: TokenizerKind::SentencePiece,
        tokens,
        scores,
        token_type,
        merges: Vec::new(),
        bos_id: Some(2),
        eos_id: Some(1),
        unknown_id: Some(3),
        padding_id: Some(0),
        add_bos: true,
        add_space_prefix: false,
    }
}

/// The same vocabulary as a `tokenizer.json`, with one merge per piece.
fn json(arrays: &TokenizerArrays) -> String {
    let ids: std::collections::HashMap<&str, usize> =
        arrays.tokens.iter().enumerate().map(|(id, text)| (text.as_str(), id)).collect();
    let mut merges: Vec<(&str, &str)> = Vec::new();
    for text in &arrays.tokens {
        let mut cuts = text.char_indices().skip(1).map(|(at, _)| text.split_at(at));
        merges.extend(cuts.find(|(left, right)| ids.contains_key(left) && ids.contains_key(right)));
    }
    let replace =
        |from: &str, to: &str| serde_json::json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let file = serde_json::json!({
        "added_tokens": [],
        "normalizer": replace(" ", "\u{2581}"),
        "decoder": {"type": "Sequence", "decoders": [replace("\u{2581}", " "), {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": true, "vocab": ids, "merges": merges},
    });
    file.to_string()
}

#[test]
fn a_vocabulary_of_gemmas_size_loads_in_seconds_and_bounded_memory() {
    let arrays = arrays();
    let text: String = (0..20_000).map(|n| arrays.tokens[7_000 + n * 12].replace('\u{2581}', " ")).collect();
    let json = json(&arrays);
    let (before, _) = resident_bytes();
    let (start, processor_start) = (Instant::now(), processor_s());
    let tokenizer = Tokenizer::from_arrays(arrays, N_TOKENS).unwrap();
    let load_s = start.elapsed().as_secs_f64();
    let load_processor_s = processor_s() - processor_start;
    let (after, peak) = resident_bytes();
    let start = Instant::now();
    let ids = tokenizer.encode(&text).unwrap();
    let encode_s = start.elapsed().as_secs_f64();
    assert_eq!(tokenizer.decode(&ids), text);
    let mb = |bytes: usize| bytes as f64 / 1e6;
    println!(
        "load {load_s:.2} s ({load_processor_s:.2} s of processor time); process {:.0} MB before with the arrays, {:.0} MB after, {:.0} MB at most; memory_bytes {:.0} MB",
        mb(before), mb(after), mb(peak), mb(tokenizer.memory_bytes())
    );
    println!("encode {} bytes to {} ids in {encode_s:.3} s", text.len(), ids.len());
    drop(tokenizer);
    let (before, _) = resident_bytes();
    let (start, processor_start) = (Instant::now(), processor_s());
    let from_json = Tokenizer::from_json_bytes(json.as_bytes(), N_TOKENS).unwrap();
    let (json_s, json_processor_s) = (start.elapsed().as_secs_f64(), processor_s() - processor_start);
    assert_eq!(from_json.vocab_size(), N_TOKENS);
    println!(
        "tokenizer.json of {:.0} MB: load {json_s:.2} s ({json_processor_s:.2} s of processor time); process {:.0} MB \
         before, {:.0} MB at most",
        mb(json.len()),
        mb(before),
        mb(resident_bytes().1)
    );
    assert!(load_s < 60.0, "{load_s} s");
    assert!(peak.saturating_sub(before) < 400 << 20, "{} MB", mb(peak - before));
}
