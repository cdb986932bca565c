//! Any bytes as the adapter_config.json of a PEFT folder.
#![no_main]

#[allow(dead_code)] // The other targets' checks.
#[path = "../../formats/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    check::adapter_config(data);
});
