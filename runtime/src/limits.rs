//! What an engine may use: positions, rows at once, sequences at once and pages of keys and values.

use lichen_kernels::ops::attention::{KvFormat, KvStore, PageTable, PAGE};

use crate::model::local_global::LocalGlobal;
use crate::model_config::ModelConfig;

/// What each sequence may use; everything else follows from the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Positions a sequence can hold.
    pub context: usize,
    /// Rows the prefill computes at once.
    pub chunk: usize,
    /// Rows whose logits are kept at once: 1 to generate, more to score a text.
    pub logit_rows: usize,
    pub kv_format: KvFormat,
    pub n_threads: usize,
    /// Highest rank of an adapter that may be applied; 0 for none.
    pub max_rank: usize,
}

/// Rows the prefill computes at once unless told otherwise: enough to amortise the widening of a weight panel (4% of the
/// work at 128 rows), little enough that Gemma 3 1B's activations stay at 12 MB.
pub const DEFAULT_CHUNK: usize = 128;
/// Context unless told otherwise, shortened to the model's.
pub const DEFAULT_CONTEXT: usize = 2048;

/// Most tokens, rows or positions that a setting can ask for.
pub const COUNT_MAX: usize = 1 << 24;
/// Most CPU threads.
pub const THREADS_MAX: usize = 1024;
/// Most rows that the prefill can be told to compute at once.
pub const PREFILL_CHUNK_MAX: usize = 4096;
/// Most sequences computed at once.
pub const SLOTS_MAX: usize = 64;
/// Most rows of a prompt that are computed between two decode steps.
pub const CHUNK_MAX: usize = 256;

/// Rows of a decode step: fewer live sequences are filled up to the next of these on a GPU, which records a graph for each.
pub(crate) const BUCKETS: [usize; 9] = [1, 2, 4, 8, 16, 24, 32, 48, SLOTS_MAX];

/// Which of [`BUCKETS`] holds so many rows.
pub(crate) fn bucket(n_rows: usize) -> usize {
    BUCKETS.iter().position(|b| *b >= n_rows).expect("at most SLOTS_MAX rows")
}

/// What a batch has beside the limits of each of its sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Sequences computed at once, 1 to [`SLOTS_MAX`].
    pub n_slots: usize,
    /// Sequences of the full context that the pages hold: at most `n_slots`. With fewer, long prompts wait for each other.
    pub n_contexts: usize,
}

impl BatchLimits {
    /// Rows of the largest decode step.
    pub(crate) fn n_rows(&self) -> usize {
        BUCKETS[bucket(self.n_slots)]
    }

    /// The limits of a pass, which is a chunk of a prompt or a decode step, whose rows all meet the head: its products have
    /// split-K partials too.
    pub(crate) fn pass_limits(&self, limits: &Limits) -> Limits {
        Limits { chunk: limits.chunk.max(self.n_rows()), logit_rows: self.n_rows().max(2), ..*limits }
    }

    /// Pages of each kind in its pool.
    pub(crate) fn n_pages(&self, config: &ModelConfig, limits: &Limits) -> LocalGlobal<usize> {
        let entries = table_entries(config, limits);
        LocalGlobal { local: self.n_contexts * entries.local, global: self.n_contexts * entries.global }
    }

    /// Bytes of the keys and values of all layers.
    pub(crate) fn kv_bytes(&self, config: &ModelConfig, limits: &Limits) -> LocalGlobal<usize> {
        let n_pages = self.n_pages(config, limits);
        let mut bytes = LocalGlobal { local: 0, global: 0 };
        for is_global in &config.is_global {
            let n_slots = n_pages.of(*is_global) * PAGE;
            *bytes.of_mut(*is_global) +=
                KvStore::size_bytes(limits.kv_format, n_slots, config.n_kv_heads, config.head_dim);
        }
        bytes
    }

    /// Bytes of both page tables.
    pub(crate) fn table_bytes(&self, config: &ModelConfig, limits: &Limits) -> usize {
        let entries = table_entries(config, limits);
        PageTable::size_bytes(self.n_slots, entries.local) + PageTable::size_bytes(self.n_slots, entries.global)
    }

    /// What the host holds of prompts, answers and pages: a prompt, what the sampler sees, and the answer.
    pub(crate) fn sequence_bytes(&self, config: &ModelConfig, limits: &Limits) -> usize {
        let n_pages = self.n_pages(config, limits);
        let lists = 4 * (n_pages.local + n_pages.global);
        self.n_slots * 3 * 4 * limits.context + 2 * lists + self.table_bytes(config, limits)
    }
}

/// Pages of a sequence of the full context. A local layer's are a ring: a chunk is written before its first row looks a
/// window back, and begins and ends within a page. 0 where no layer is local.
pub(crate) fn table_entries(config: &ModelConfig, limits: &Limits) -> LocalGlobal<usize> {
    let global = limits.context.div_ceil(PAGE);
    let window = config.sliding_window.unwrap_or(usize::MAX);
    let local = match config.is_global.iter().all(|g| *g) {
        true => 0,
        false => global.min((window.saturating_add(limits.chunk - 1).saturating_add(2 * PAGE - 2)) / PAGE),
    };
    LocalGlobal { local, global }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every run of positions that a chunk touches fits the ring, at every offset in a page.
    #[test]
    fn a_ring_holds_a_window_and_a_chunk() {
        let mut config = crate::model::presets::config("gemma-3-1b").unwrap();
        for (window, chunk) in [(1, 1), (1, 32), (33, 1), (512, 128), (16, 16), (31, 2), (32, 2), (5, 256)] {
            config.sliding_window = Some(window);
            let limits = Limits {
                context: 8192,
                chunk,
                logit_rows: 1,
                kv_format: lichen_kernels::ops::attention::KvFormat::F16,
                n_threads: 1,
                max_rank: 0,
            };
            let n = table_entries(&config, &limits).local;
            let touched = |first: usize| (first + window + chunk - 2) / PAGE - first / PAGE + 1;
            let most = (0..PAGE).map(touched).max().unwrap();
            assert_eq!(n, most, "window {window}, chunk {chunk}");
        }
    }

    #[test]
    fn rows_are_filled_up_to_a_bucket() {
        for (n, want) in [(1, 1), (2, 2), (3, 4), (9, 16), (17, 24), (33, 48), (49, 64), (64, 64)] {
            assert_eq!(BUCKETS[bucket(n)], want);
        }
    }
}
