//! Small vocabularies made by code, and a seeded random source, shared by the text tests.
#![allow(dead_code)] // Each test program uses its own part.

use lichen_runtime::text::tokenizer::{PieceKind, Tokenizer, TokenizerArrays, TokenizerKind};
use serde_json::{json, Value};

/// What breaks tokenizers: scripts whose characters span tokens, joiners, control texts, white space of all kinds.
pub const NASTY_TEXTS: [&str; 20] = [
    "",
    " ",
    "hello the theme",
    "  two  spaces   three",
    "ಕನ್ನಡ ನುಡಿ",
    "हिन्दी में लिखो",
    "👩‍👩‍👧‍👦 🇮🇳 👍🏽",
    "line\nline\n\n\nline\r\nend\n",
    "\t\ttabs\tand\t\t\tmore",
    "fn main() { println!(\"{}\", x[0]); }",
    "<start_of_turn>user\nhi<end_of_turn>",
    "<|im_start|>system\nx<|im_end|>",
    "<table><tr><td>1</td></tr></table>",
    "I'll don't WE'RE it's",
    "3.14159 1,000,000 2026",
    "中文，日本語。한국어",
    "\u{2581}typed\u{2581}mark",
    "<0x41><0x0A>",
    "nul\u{0}bell\u{7}\u{feff}\u{200b}",
    "<tool_call>{\"name\": \"f\"}</tool_call>",
];

/// SplitMix64: the same on every platform.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Pieces that merging makes, best first.
const WORDS: [&str; 26] = [
    "he",
    "\u{2581}t",
    "th",
    "the",
    "\u{2581}the",
    "in",
    "me",
    "ll",
    "llo",
    "hello",
    "\u{2581}h",
    "li",
    "ne",
    "line",
    "us",
    "er",
    "user",
    "start",
    "turn",
    "_of",
    "of",
    "ನ",
    "ನ್",
    "ನ್ನ",
    "ह",
    "हि",
];

/// Gemma's kinds of pieces at small size.
pub fn spm_arrays() -> TokenizerArrays {
    let mut arrays = TokenizerArrays {
        kind: TokenizerKind::SentencePiece,
        tokens: Vec::new(),
        scores: Vec::new(),
        token_type: Vec::new(),
        merges: Vec::new(),
        bos_id: Some(2),
        eos_id: Some(1),
        unknown_id: Some(3),
        padding_id: Some(0),
        add_bos: true,
        add_space_prefix: false,
    };
    let mut push = |text: &str, score: f32, token_type: i32| {
        arrays.tokens.push(text.to_string());
        arrays.scores.push(score);
        arrays.token_type.push(token_type);
    };
    for text in ["<pad>", "<eos>", "<bos>"] {
        push(text, 0.0, 3);
    }
    push("<unk>", 0.0, 2);
    // User-defined in many files: the look decides.
    for text in ["<start_of_turn>", "<end_of_turn>", "<unused0>", "<tool_call>"] {
        push(text, -1000.0, 4);
    }
    for text in ["\n", "\n\n", "\n\n\n", "\u{2581}\u{2581}", "\u{2581}\u{2581}\u{2581}", "\t\t", "<table>", "</table>"]
    {
        push(text, -1000.0, 4);
    }
    for byte in 0..=255u8 {
        push(&format!("<0x{byte:02X}>"), 0.0, 6);
    }
    for (rank, text) in WORDS.iter().enumerate() {
        push(text, -(rank as f32), 1);
    }
    let mut chars: Vec<char> = WORDS.concat().chars().chain("<>_|/0123abcdefg\u{2581}".chars()).collect();
    chars.sort_unstable();
    chars.dedup();
    for c in chars {
        if !WORDS.contains(&c.to_string().as_str()) {
            push(&c.to_string(), -100.0, 1);
        }
    }
    arrays
}

/// The `tokenizer.json` of [`spm_arrays`], merges in Hugging Face's order.
pub fn spm_json(arrays: &TokenizerArrays) -> Value {
    let mut vocab = serde_json::Map::new();
    for (id, text) in arrays.tokens.iter().enumerate() {
        vocab.insert(text.clone(), json!(id));
    }
    vocab.insert("\t".to_string(), vocab["<0x09>"].clone());
    let mut merges: Vec<(f32, String, String)> = Vec::new();
    for (id, text) in arrays.tokens.iter().enumerate().filter(|(id, _)| matches!(arrays.token_type[*id], 1 | 4)) {
        let score = if arrays.token_type[id] == 4 { 0.0 } else { arrays.scores[id] + 0.0 };
        let mut local: Vec<(String, String)> =
            text.char_indices().skip(1).map(|(at, _)| (text[..at].into(), text[at..].into())).collect();
        local.retain(|(l, r)| vocab.contains_key(l) && vocab.contains_key(r));
        local.sort_by_key(|(l, r)| (vocab[l].as_u64(), vocab[r].as_u64()));
        merges.extend(local.into_iter().map(|(l, r)| (score, l, r)));
    }
    let length = |text: &str| text.chars().count();
    merges.sort_by(|a, b| {
        b.0.total_cmp(&a.0).then(length(&b.1).cmp(&length(&a.1))).then(length(&b.2).cmp(&length(&a.2)))
    });
    let merges: Vec<Value> = merges.into_iter().map(|(_, l, r)| json!([l, r])).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added_tokens(arrays),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}}
        },
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}
        ]},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
            "vocab": vocab, "merges": merges
        }
    })
}

fn added_tokens(arrays: &TokenizerArrays) -> Value {
    let added = arrays.tokens.iter().zip(&arrays.token_type).enumerate().filter(|(_, (_, t))| matches!(t, 2..=4));
    let token = |(id, (text, t)): (usize, (&String, &i32))| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": *t != 4})
    };
    added.map(token).collect()
}

/// Qwen's kinds of pieces at small size.
pub fn byte_level_arrays() -> TokenizerArrays {
    let mut chars: Vec<char> = (33..=126u32).chain(161..=172).chain(174..=255).filter_map(char::from_u32).collect();
    chars.extend((0x100..0x144).filter_map(char::from_u32));
    let mut tokens: Vec<String> = chars.iter().map(|c| c.to_string()).collect();
    let merges = ["h e", "l l", "he ll", "hell o", "t he", "Ġ the", "i n", "à ²", "à¤ ¹", "à ¤", "Ċ Ċ", "Ġ Ġ"];
    // "à¤ ¹" needs "à¤", which the list makes after it: priority is not order of need.
    for merge in merges {
        let joined = merge.replace(' ', "");
        if !tokens.contains(&joined) {
            tokens.push(joined);
        }
    }
    let n_text = tokens.len();
    tokens.extend(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "[PAD]"].map(String::from));
    let mut token_type = vec![1; n_text];
    token_type.extend([3, 3, 3, 4, 5]);
    TokenizerArrays {
        kind: TokenizerKind::ByteLevel,
        bos_id: None,
        eos_id: Some(n_text as u32),
        unknown_id: None,
        padding_id: Some(n_text as u32),
        add_bos: false,
        add_space_prefix: false,
        scores: Vec::new(),
        merges: merges.map(String::from).to_vec(),
        tokens,
        token_type,
    }
}

/// The `tokenizer.json` of [`byte_level_arrays`], merges in the older spelling.
pub fn byte_level_json(arrays: &TokenizerArrays) -> Value {
    let split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let vocab: serde_json::Map<String, Value> = arrays
        .tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| arrays.token_type[*id] == 1)
        .map(|(id, text)| (text.clone(), json!(id)))
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added_tokens(arrays),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false}
        ]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false,
            "vocab": vocab, "merges": arrays.merges
        }
    })
}

/// A marker that decoding shows (`<tool_call>`).
pub fn is_visible(tokenizer: &Tokenizer, id: u32) -> bool {
    tokenizer.piece_kind(id) == Some(PieceKind::Marker)
}
