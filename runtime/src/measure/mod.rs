//! How fast a model is on a machine, and how good on a text.

pub mod bench;
pub mod perplexity;
