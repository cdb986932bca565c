//! What an op says of its modules of CUDA kernels: the folder of an op that holds `.cu` files lists them in its `mod.rs`, as
//! `MODULES`, which build.rs collects for [`modules`](super::modules_for).

/// Who launches the kernels of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Answers and training.
    Every,
    /// Sessions and batches: training multiplies many rows, and has no cache.
    Answers,
    /// Sessions alone, where batches have others.
    Sessions,
    /// Batches alone.
    Batches,
    Training,
    /// Measures a device; no model has it.
    Bench,
}

impl Role {
    /// True for what an answer needs, of a batch or of a session.
    pub(crate) fn answers(self, in_batch: bool) -> bool {
        match self {
            Role::Every | Role::Answers => true,
            Role::Sessions => !in_batch,
            Role::Batches => in_batch,
            Role::Training | Role::Bench => false,
        }
    }

    pub(crate) fn trains(self) -> bool {
        matches!(self, Role::Every | Role::Training)
    }
}

/// A `.cu` file, or one for each format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelModule {
    /// Of the file, in its folder; without the format where there is one.
    pub name: &'static str,
    pub role: Role,
    pub files: Files,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Files {
    One,
    /// `prefill_q8_0.cu`: for models with weights of the format.
    PerWeights,
    /// `decode_f16.cu`: for caches whose keys and values have the format.
    PerCache,
}

impl KernelModule {
    /// `name.cu`.
    pub(crate) const fn one(name: &'static str, role: Role) -> Self {
        KernelModule { name, role, files: Files::One }
    }

    /// `name_q8_0.cu` and so on, of formats of weights.
    pub(crate) const fn per_weights(name: &'static str, role: Role) -> Self {
        KernelModule { name, role, files: Files::PerWeights }
    }

    /// `name_f16.cu` and so on, of formats of keys and values.
    pub(crate) const fn per_cache(name: &'static str, role: Role) -> Self {
        KernelModule { name, role, files: Files::PerCache }
    }
}
