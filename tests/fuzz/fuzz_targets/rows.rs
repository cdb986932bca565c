//! Any bytes as a file of rows to train on; their number picks how they are read.
#![no_main]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use lichen_runtime::text::chat_template::ChatTemplate;
use lichen_runtime::text::tokenizer::{Tokenizer, TokenizerArrays, TokenizerKind};
use lichen_trainer::data::{DataOptions, LossOn, TextEncoder, Truncation};

#[path = "../../tests/training_data/checks.rs"]
mod checks;

/// Both families' markers, the bytes, and nothing else.
fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: OnceLock<Arc<Tokenizer>> = OnceLock::new();
    let build = || {
        let markers =
            ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>", "<|im_start|>", "<|im_end|>"];
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
        Arc::new(Tokenizer::from_arrays(arrays, rows).expect("the vocabulary is complete"))
    };
    TOKENIZER.get_or_init(build).clone()
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    let path = PATH.get_or_init(|| std::env::temp_dir().join(format!("lichen-fuzz-rows-{}.jsonl", std::process::id())));
    let how = data.len();
    std::fs::write(path, data).expect("a file for the rows");
    let options = DataOptions {
        max_seq: [8, 64, 512, 4096][how & 3],
        truncation: if how & 4 == 0 { Truncation::Cut } else { Truncation::Drop },
        loss_on: if how & 8 == 0 { LossOn::Answers } else { LossOn::All },
        parse_special: how & 16 == 0,
        strict: how & 32 == 0,
        ..DataOptions::default()
    };
    let template = if how & 64 == 0 { ChatTemplate::Gemma } else { ChatTemplate::ChatMl };
    let vocab_size = tokenizer().vocab_size();
    checks::rows(path, TextEncoder::new(tokenizer(), template), vocab_size, &options);
});
