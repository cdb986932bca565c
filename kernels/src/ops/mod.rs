//! One op, one folder: the contract in `mod.rs`, the scalar oracle in `cpu.rs`, instruction sets in `simd*`.
//!
//! Adding a kernel is one folder here and one line below: a folder with `.cu` files lists them in its `mod.rs` as `MODULES`
//! (`kernel_module`). A launch shape never leaves its op.

pub mod activation;
pub mod adamw;
pub mod attention;
pub mod bandwidth;
pub mod copy;
pub mod cross_entropy;
pub mod dropout;
mod elements;
pub mod embedding;
pub mod encode;
mod kernel_module;
pub mod lora;
pub mod matmul;
mod modules;
pub mod residual;
pub mod rmsnorm;
pub mod rope;
pub mod rows;
pub mod sampling;
pub mod sum_of_squares;
mod write;

pub use modules::{modules_for, modules_for_batch, modules_for_training};
pub use write::Write;

#[cfg(test)]
pub(crate) mod testing;
