//! Files, models and one engine that answers: Gemma 3 and Qwen 2.5 inference within a memory plan, on the board itself.
//!
//! Read in this order: [`engine`] (what a program holds), [`model`] (one block, read like the paper), [`memory_plan`], then
//! whichever of [`files`] and [`text`] the question is about.
#![deny(unsafe_code)]

pub mod board;
#[cfg(feature = "cli")]
pub mod cli;
pub mod engine;
pub mod error;
pub mod escape;
pub mod files;
pub mod limits;
pub mod loader;
pub mod measure;
pub mod memory_plan;
pub mod model;
pub mod model_config;
pub mod prompt_file;
pub mod sampler;
pub mod setting;
pub mod signals;
pub mod suggest;
pub mod text;

pub use error::{Error, Result};
pub use files::model_source::{ModelSource, Part, TokenizerSource};
pub use model_config::{Architecture, BlockFeatures, ModelConfig};
