//! Bytes of model files -> checked tables of contents. Every length and offset is checked before it is used; nothing is
//! allocated that is not bounded by the bytes that are there.

use crate::error::{Error, Result};

pub mod bitsandbytes;
pub mod gguf;
pub mod gguf_config;
pub mod gguf_tokenizer;
pub mod gguf_write;
pub mod hf;
pub mod hf_config;
mod hf_rope;
pub mod json_file;
pub mod json_shape;
pub mod safetensors;
pub mod safetensors_write;
pub mod sampling;

/// What Git leaves in place of a large file when `git lfs pull` has not run.
fn refuse_git_lfs_pointer(bytes: &[u8]) -> Result<()> {
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(Error::input("is a Git LFS pointer, not the file itself: run git lfs pull"));
    }
    Ok(())
}
