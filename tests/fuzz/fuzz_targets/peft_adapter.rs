//! Any bytes as a PEFT adapter: its config, a zero byte, its weights.
#![no_main]

#[allow(dead_code)] // The other targets' checks.
#[path = "../../formats/check.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    check::peft_adapter(data);
});
