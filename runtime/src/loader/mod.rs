//! From a path to a model that can answer: files, tokenizer, memory plan, weights, threads.
//!
//! [`TextModel`] has tokens and a chat template. [`PreparedModel`] knows everything but holds no weights: what `plan` prints. [`LoadedModel`] has loaded them.

pub mod demo;
mod loaded;
mod options;
mod prepared;
mod settings;
mod text_model;

use std::sync::Arc;

use crate::model::adapter::Adapter;

pub use loaded::{stop_ids, LoadedModel};
pub use options::{AdapterPath, DeviceChoice, EngineOptions};
pub(crate) use prepared::check_base;
pub use prepared::{open_tokenizer, plan_synthetic, PreparedModel};
pub use settings::ENGINE_SETTINGS;
pub use text_model::TextModel;

/// An adapter and what requests call it.
#[derive(Clone)]
pub struct NamedAdapter {
    pub name: String,
    pub adapter: Arc<Adapter>,
}

/// What an adapter takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdapterSize {
    pub bytes: usize,
    /// Of these, those of its own embedding and head.
    pub tables_bytes: usize,
    pub rank: usize,
    /// It is in memory already.
    pub is_allocated: bool,
}

/// The name of an adapter that was given without one.
pub const DEFAULT_ADAPTER: &str = "default";
