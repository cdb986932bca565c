//! Any bytes as a model's chat template.
#![no_main]

use std::sync::OnceLock;

use lichen_runtime::text::tokenizer::{Tokenizer, TokenizerArrays, TokenizerKind};

#[allow(dead_code)] // The other target's check.
#[path = "../../tests/text_support/checks.rs"]
mod checks;

/// Gemma's markers, the bytes, and nothing else.
fn tokenizer() -> &'static Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER.get_or_init(|| {
        let markers = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"];
        let mut tokens: Vec<String> = markers.map(String::from).to_vec();
        tokens.extend((0..=255u8).map(|byte| format!("<0x{byte:02X}>")));
        let token_type = (0..tokens.len()).map(|id| if id < markers.len() { 3 } else { 6 }).collect();
        let rows = tokens.len();
        let arrays = TokenizerArrays {
            kind: TokenizerKind::SentencePiece,
            scores: vec![0.0; rows],
            tokens,
            token_type,
            merges: Vec::new(),
            bos_id: Some(2),
            eos_id: Some(1),
            unknown_id: Some(3),
            padding_id: Some(0),
            add_bos: true,
            add_space_prefix: false,
        };
        Tokenizer::from_arrays(arrays, rows).expect("the vocabulary is complete")
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checks::chat_template(data, tokenizer());
});
