//! Files, models and sessions: Gemma 3 and Qwen 2.5 inference within a memory plan, on the board itself.
#![deny(unsafe_code)]

pub mod adapter_file;
pub mod display;
pub mod error;
pub mod formats;
pub mod mapped_file;
pub mod model_config;
pub mod model_source;
pub mod tokenizer;

pub use error::{Error, Result};
pub use model_config::{Architecture, ModelConfig};
pub use model_source::{ModelSource, Part, TokenizerSource};
