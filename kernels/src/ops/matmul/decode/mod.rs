//! The products of a decode step, and of a batch of a few rows, on a GPU: the weights stream past once for up to eight
//! rows of `x`.

pub(super) mod cuda;

use crate::ops::kernel_module::{KernelModule, Role};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::per_weights("decode", Role::Answers)];
