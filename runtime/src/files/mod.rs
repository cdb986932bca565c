//! Bytes on disk: mapped and checked models and adapters, lines of JSON, and every write, which goes to a temporary file first.

pub mod adapter_file;
pub mod disk;
pub mod formats;
pub mod jsonl;
pub mod mapped_file;
pub mod model_source;
