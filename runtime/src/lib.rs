//! Files, models and sessions: Gemma 3 and Qwen 2.5 inference within a memory plan, on the board itself.
#![deny(unsafe_code)]

pub mod chat_template;
pub mod display;
pub mod error;
pub mod model_config;
pub mod sampler;
pub mod stop;
pub mod tokenizer;

pub use error::{Error, Result};
pub use model_config::{Architecture, ModelConfig};
