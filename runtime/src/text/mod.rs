//! Text in, text out: tokens, conversations in a model's own words, and where an answer ends.

pub mod chat_template;
pub mod stop;
pub(crate) mod text_stream;
pub mod tokenizer;
