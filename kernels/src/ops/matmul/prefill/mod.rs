//! Products of many rows on a GPU: tiles of tokens and weight rows on tensor cores (sm_72 and later) or on pairs of f16
//! (sm_53).
//!
//! Activations become 16-bit floats first: f16 times a power of two per row (prepare.cu), or bf16 for BF16 weights where
//! there are products of bf16 (sm_80 and later). Weights are f16, `code * scale` rounded once; on sm_53 the codes alone,
//! and the scale comes in f32. Sums are f32 on tensor cores; sm_53 sums sixteen products in f16 first.
//!
//! A row of the result depends on its row of `x`, the matrix and the device, not on the other rows: see epilogue.cuh.

pub mod cuda;
pub mod plan;

use crate::ops::kernel_module::{KernelModule, Role};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] =
    &[KernelModule::one("prepare", Role::Every), KernelModule::per_weights("prefill", Role::Every)];
