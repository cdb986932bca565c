//! Files, models and sessions: Gemma 3 and Qwen 2.5 inference within a memory plan, on the board itself.
#![deny(unsafe_code)]

pub mod adapter;
pub mod adapter_file;
pub mod answer;
pub mod available_memory;
pub mod bench;
pub mod block;
pub mod chat_template;
#[cfg(feature = "cli")]
pub mod cli;
pub mod conversation;
pub mod demo;
pub mod device_config;
pub mod disk;
pub mod engine;
pub mod error;
pub mod escape;
pub mod formats;
mod forward;
pub mod jsonl;
pub mod kv_cache;
pub mod limits;
pub mod loader;
mod local_global;
pub mod mapped_file;
pub mod memory_plan;
pub mod model;
pub mod model_config;
pub mod model_source;
pub mod perplexity;
pub mod presets;
pub mod prompt_file;
pub mod request;
pub mod sampler;
pub mod session;
pub mod session_file;
pub mod setting;
pub mod signals;
pub mod snapshot;
pub mod step_graph;
pub mod stop;
pub mod suggest;
pub mod synthetic;
pub mod telemetry;
mod text_stream;
pub mod tokenizer;
mod upload;

pub use error::{Error, Result};
pub use model_config::{Architecture, ModelConfig};
pub use model_source::{ModelSource, Part, TokenizerSource};
