//! Any bytes as a `tokenizer.json`.
#![no_main]

#[allow(dead_code)] // The other target's check.
#[path = "../../tests/text_support/checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    checks::tokenizer_json(data);
});
