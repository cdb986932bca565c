//! Model files made by code, sound and broken, and the checks every parser must pass on any bytes.

pub mod check;
pub mod corpus;
pub mod gguf_file;
pub mod mutate;
pub mod mutate_rows;
pub mod random;
pub mod safetensors_file;
