//! The free pages of an engine's pools, and what each slot holds of them. A request gets all its pages when it is admitted,
//! those of its longest possible answer too: so it may have to wait, but never stops half-way. What its slot keeps of them
//! afterwards serves a request that goes on from there, until somebody needs the pages.

use std::ops::Range;

use lichen_kernels::ops::attention::PAGE;

use crate::limits::{table_entries, BatchLimits, Limits, DEFAULT_CHUNK};
use crate::model::local_global::LocalGlobal;
use crate::model_config::ModelConfig;

/// Ids of pages, of the local layers' pool and of the global ones'.
pub(super) type PageIds = LocalGlobal<Vec<u32>>;

pub(super) struct Pages {
    free: PageIds,
    /// By slot, in order of position; empty while the slot holds nothing.
    held: Vec<PageIds>,
    /// Of a sequence of the full context.
    entries: LocalGlobal<usize>,
    /// Positions a local layer sees; `None` where no layer is local.
    window: Option<usize>,
    /// By slot: the end of the positions ever written, and the first that a restored local layer holds.
    written: Vec<usize>,
    floor: Vec<usize>,
}

impl Pages {
    pub fn new(config: &ModelConfig, limits: &Limits, batch: &BatchLimits) -> Pages {
        let (n_pages, entries) = (batch.n_pages(config, limits), table_entries(config, limits));
        // The lowest are handed out first.
        let ids = |n: usize| (0..n as u32).rev().collect();
        let list = |n: usize| Vec::with_capacity(n);
        let held = || LocalGlobal { local: list(entries.local), global: list(entries.global) };
        Pages {
            free: LocalGlobal { local: ids(n_pages.local), global: ids(n_pages.global) },
            held: (0..batch.n_slots).map(|_| held()).collect(),
            window: config.sliding_window.filter(|_| entries.local > 0),
            entries,
            written: vec![0; batch.n_slots],
            floor: vec![0; batch.n_slots],
        }
    }

    /// Pages of so many positions.
    fn needed(&self, n_positions: usize) -> LocalGlobal<usize> {
        let global = n_positions.div_ceil(PAGE);
        LocalGlobal { local: global.min(self.entries.local), global }
    }

    /// Gives a slot the pages that it lacks of so many positions; false, and nothing is taken, when there are too few.
    pub fn grow(&mut self, slot: usize, n_positions: usize) -> bool {
        let needed = self.needed(n_positions);
        let held = &mut self.held[slot];
        assert!(needed.global <= self.entries.global, "{n_positions} positions for slot {slot}");
        let n_local = needed.local.saturating_sub(held.local.len());
        let n_global = needed.global.saturating_sub(held.global.len());
        if self.free.local.len() < n_local || self.free.global.len() < n_global {
            return false;
        }
        held.local.extend(self.free.local.drain(self.free.local.len() - n_local..).rev());
        held.global.extend(self.free.global.drain(self.free.global.len() - n_global..).rev());
        true
    }

    /// Whether [`Pages::grow`] would succeed once all of `others` were released.
    pub fn could_grow(&self, slot: usize, n_positions: usize, others: impl Iterator<Item = usize>) -> bool {
        let (needed, held) = (self.needed(n_positions), &self.held[slot]);
        let mut free = LocalGlobal {
            local: self.free.local.len() + held.local.len(),
            global: self.free.global.len() + held.global.len(),
        };
        for other in others.filter(|other| *other != slot) {
            free.local += self.held[other].local.len();
            free.global += self.held[other].global.len();
        }
        free.local >= needed.local && free.global >= needed.global
    }

    /// Takes back what a slot holds beyond so many positions.
    pub fn shrink(&mut self, slot: usize, n_positions: usize) {
        let needed = self.needed(n_positions);
        let held = &mut self.held[slot];
        let (n_local, n_global) = (needed.local.min(held.local.len()), needed.global.min(held.global.len()));
        self.free.local.extend(held.local.drain(n_local..).rev());
        self.free.global.extend(held.global.drain(n_global..).rev());
    }

    /// Takes all of a slot's pages back.
    pub fn release(&mut self, slot: usize) {
        self.shrink(slot, 0);
        (self.written[slot], self.floor[slot]) = (0, 0);
    }

    pub fn of_slot(&self, slot: usize) -> &PageIds {
        &self.held[slot]
    }

    /// Accounts for positions up to `end` that were written.
    pub fn advance(&mut self, slot: usize, end: usize) {
        self.written[slot] = self.written[slot].max(end);
    }

    /// Accounts for a restored sequence of `n` positions, of which local layers hold those from `floor` on.
    pub fn restored(&mut self, slot: usize, n: usize, floor: usize) {
        (self.written[slot], self.floor[slot]) = (n, floor);
    }

    /// The first position that local layers of a slot still hold.
    fn oldest_local(&self, slot: usize) -> usize {
        let n_pages = self.written[slot].div_ceil(PAGE);
        (n_pages.saturating_sub(self.entries.local) * PAGE).max(self.floor[slot])
    }

    /// How many of a slot's first `n` positions, of `n_held`, serve whoever goes on after them: all, or none where local
    /// layers no longer hold what the next position sees.
    pub fn usable(&self, slot: usize, n: usize, n_held: usize) -> usize {
        match self.window {
            Some(window) if n < n_held && (n + 1).saturating_sub(window) < self.oldest_local(slot) => 0,
            _ => n,
        }
    }

    /// Which of a slot's `n` positions its layers hold.
    pub fn positions_held(&self, slot: usize, n: usize) -> LocalGlobal<Range<usize>> {
        // No more than a ring of the default chunk keeps, so that a single sequence can be given it too.
        let wanted = self.window.map_or(0, |window| n.saturating_sub(window + DEFAULT_CHUNK));
        let oldest = if self.window.is_some() { self.oldest_local(slot).max(wanted).min(n) } else { 0 };
        LocalGlobal { local: oldest..n, global: 0..n }
    }

    /// True when these positions of `n` cover what the next one sees.
    pub fn can_hold(&self, is_global: bool, held: &Range<usize>, n: usize) -> bool {
        let needed = self.window.filter(|_| !is_global).map_or(0, |window| (n + 1).saturating_sub(window));
        held.end == n && held.start <= needed
    }

    /// How many of these positions, the last ones, a layer has room for: a local one's ring ends with a page that may be
    /// begun alone.
    pub fn n_kept(&self, is_global: bool, held: &Range<usize>) -> usize {
        let first = match is_global {
            true => 0,
            false => held.end.div_ceil(PAGE).saturating_sub(self.entries.local) * PAGE,
        };
        held.end - held.start.max(first).min(held.end)
    }

    /// Pages that no slot holds: (local, global).
    pub fn n_free(&self) -> (usize, usize) {
        (self.free.local.len(), self.free.global.len())
    }
}
