//! Any bytes as a safetensors file.
#![no_main]

#[allow(dead_code)] // The other targets' checks.
#[path = "../../formats/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    check::safetensors(data);
});
