//! The settings of what is opened, a line each: flags of every subcommand that opens a model.

use super::options::{AdapterPath, DeviceChoice, EngineOptions};
use super::DEFAULT_ADAPTER;
use crate::board::device_config::KvCacheChoice;
use crate::limits::{COUNT_MAX, PREFILL_CHUNK_MAX, SLOTS_MAX, THREADS_MAX};
use crate::setting::table::{Access, Entry};
use crate::setting::value::bytes;
use crate::setting::{
    ADAPTER, CHAT_TEMPLATE, CONTEXT, DEVICE, DEVICE_CONFIG, KV_CACHE, MEMORY_BUDGET, MODEL, PARALLEL, PREFILL_CHUNK,
    THREADS,
};
use crate::setting_access as access;
use crate::text::chat_template::TemplateChoice;

/// Every setting of what is opened, in the order of help.
#[rustfmt::skip]
pub static ENGINE_SETTINGS: [Entry<EngineOptions>; 11] = [
    Entry::new(MODEL, "PATH", "GGUF file or Hugging Face folder [default: the small demo model inside this program]", access!(path model)),
    Entry::new(ADAPTER, "PATH[:SCALE]", "LoRA adapter: PEFT folder or GGUF file, with an optional factor for its strength", Access::Text(set_adapter, |_| None)),
    Entry::new(CHAT_TEMPLATE, "NAME|FILE", "Chat template in place of the model's own: gemma, chatml (with Qwen 2.5's default instructions), or a Jinja file", access!(text chat_template, |text| TemplateChoice::parse(text).map(Some), |it| it.as_ref().map(|choice| choice.to_string()))),
    Entry::new(DEVICE, "DEVICE", "Where to compute: auto, cpu, cuda or cuda:N", access!(text device, |text| DeviceChoice::parse(text), |it| Some(it.to_string()))),
    Entry::new(THREADS, "N", "CPU threads [default: all cores this process may use]", access!(optional_number threads, 1, THREADS_MAX)),
    Entry::new(MEMORY_BUDGET, "SIZE", "Refuse to start when the memory plan is larger: bytes, or a number with KiB, MiB, GiB, KB, MB, GB", access!(text memory_budget, |text| bytes(text).map(Some), |it| it.map(|n| n.to_string()))),
    Entry::new(DEVICE_CONFIG, "FILE", "A board's defaults for such settings, as in device-configs/jetson-nano-4gb.toml; what is given wins", access!(path device_config)),
    Entry::new(CONTEXT, "TOKENS", "Positions a conversation can hold [default: 2048, or what the model has]", access!(optional_number context, 1, COUNT_MAX)),
    Entry::new(KV_CACHE, "FORMAT", "How keys and values are kept: auto, f32, f16 or int8 [default: auto, which is f32 where that is small, else f16]", access!(text kv_cache, |text| KvCacheChoice::parse(text).map(Some), |it| it.map(|choice| choice.name().to_string()))),
    Entry::new(PREFILL_CHUNK, "TOKENS", "Prompt tokens computed at once [default: 128]", access!(optional_number chunk, 1, PREFILL_CHUNK_MAX)),
    Entry::<EngineOptions>::new(PARALLEL, "N", "Sequences computed at once", access!(optional_number parallel, 1, SLOTS_MAX)).short("batch"),
];

/// The adapter that requests take unless they name another.
fn set_adapter(options: &mut EngineOptions, text: &str) -> Result<(), String> {
    options.adapters = vec![(DEFAULT_ADAPTER.to_string(), AdapterPath::parse(text)?)];
    Ok(())
}
