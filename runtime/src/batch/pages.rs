//! The free pages of a batch, and what each slot holds of them. A sequence gets all its pages when it is admitted, those
//! of its longest possible answer too: so it may have to wait, but never stops half-way.

use lichen_kernels::ops::attention::PAGE;

use super::limits::{table_entries, BatchLimits};
use crate::forward::ByReach;
use crate::memory_plan::Limits;
use crate::model_config::ModelConfig;

/// Ids of pages, of the local layers' pool and of the global ones'.
pub(super) type PageIds = ByReach<Vec<u32>>;

pub(super) struct Pages {
    free: PageIds,
    /// By slot, in order of position; empty while nobody is there.
    held: Vec<PageIds>,
    /// Of a sequence of the full context.
    entries: ByReach<usize>,
}

impl Pages {
    pub fn new(config: &ModelConfig, limits: &Limits, batch: &BatchLimits) -> Pages {
        let (n_pages, entries) = (batch.n_pages(config, limits), table_entries(config, limits));
        // The lowest are handed out first.
        let ids = |n: usize| (0..n as u32).rev().collect();
        let list = |n: usize| Vec::with_capacity(n);
        let held = || ByReach { local: list(entries.local), global: list(entries.global) };
        Pages {
            free: ByReach { local: ids(n_pages.local), global: ids(n_pages.global) },
            held: (0..batch.n_slots).map(|_| held()).collect(),
            entries,
        }
    }

    /// Gives a slot the pages of so many positions; false, and nothing is taken, when there are too few.
    pub fn take(&mut self, slot: usize, n_positions: usize) -> bool {
        let n_global = n_positions.div_ceil(PAGE);
        let n_local = n_global.min(self.entries.local);
        let held = &mut self.held[slot];
        assert!(held.global.is_empty() && n_global <= self.entries.global, "{n_positions} positions for slot {slot}");
        if self.free.local.len() < n_local || self.free.global.len() < n_global {
            return false;
        }
        held.local.extend(self.free.local.drain(self.free.local.len() - n_local..).rev());
        held.global.extend(self.free.global.drain(self.free.global.len() - n_global..).rev());
        true
    }

    pub fn of_slot(&self, slot: usize) -> &PageIds {
        &self.held[slot]
    }

    /// Takes a slot's pages back.
    pub fn give_back(&mut self, slot: usize) {
        let held = &mut self.held[slot];
        self.free.local.extend(held.local.drain(..).rev());
        self.free.global.extend(held.global.drain(..).rev());
    }

    /// Pages that nobody holds: (local, global).
    pub fn n_free(&self) -> (usize, usize) {
        (self.free.local.len(), self.free.global.len())
    }
}
