//! Any bytes as the parts of a split GGUF file.
#![no_main]

#[allow(dead_code)] // The other targets' checks.
#[path = "../../formats/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    check::gguf_split(data);
});
