//! Any bytes as a GGUF adapter.
#![no_main]

#[allow(dead_code)] // The other targets' checks.
#[path = "../../formats/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    check::gguf_adapter(data);
});
