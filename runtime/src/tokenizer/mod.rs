//! Text to token ids and back.

mod arrays;

pub use arrays::{TokenizerArrays, TokenizerKind};
