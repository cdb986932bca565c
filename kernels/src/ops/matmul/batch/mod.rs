//! Products for a batch of sequences that decode together, 1 to 64 rows at a time: on tensor cores (sm_80 and later) the
//! weights stream past all rows once; before, and for F32 weights, past eight rows at a time (`decode`).
//!
//! A row of the result has the same bits whatever the number of rows is, one included: a sequence does not depend on its
//! batch. It may differ from what a session that decodes alone computes.

pub mod cuda;
mod kernel;
mod source;

use crate::ops::kernel_module::{KernelModule, Role};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[
    KernelModule::one("batch_prepare", Role::Batches),
    KernelModule::one("batch_sum", Role::Batches),
    KernelModule::per_weights("batch", Role::Batches),
    KernelModule::per_weights("wgmma", Role::Batches),
];
