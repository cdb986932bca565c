//! What computes an engine's rows: a session with a ring for one slot, pages for several.
//!
//! Both give the same bits on the CPU. On a GPU a ring's attention cuts its positions into as many KV splits as keep all
//! multiprocessors busy, and one row multiplies with the kernels of a single sequence; pages cut at fixed positions and
//! multiply with those of batches, so that a row does not depend on its neighbours. One sequence alone is faster on the ring.

use std::ops::Range;
use std::sync::Arc;

use lichen_kernels::ops::attention::KvStore;
use lichen_kernels::{Device, Row};

use super::pages::Pages;
use super::pass::Pass;
use crate::error::Result;
use crate::memory_plan::MemoryPlan;
use crate::model::adapter::{Adapter, AdapterRows};
use crate::model::local_global::LocalGlobal;
use crate::model::session::Session;
use crate::model::snapshot::{SequenceState, Snapshot};
use crate::model::Model;

pub(super) enum Compute {
    Ring(Box<Session>),
    Pages { pass: Box<Pass>, pages: Pages },
}

impl Compute {
    /// Allocates what the plan says.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(model: &Arc<Model>, device: &Arc<Device>, plan: &MemoryPlan) -> Result<Compute> {
        let (model, device) = (model.clone(), device.clone());
        let Some(batch) = plan.batch else {
            return Ok(Compute::Ring(Box::new(Session::new(model, device, plan)?)));
        };
        let pages = Pages::new(&model.config, &plan.limits, &batch);
        let pass = match &*device.clone() {
            Device::Cpu(_) => Pass::new(model, device, plan, &batch)?,
            Device::Cuda(cuda) => {
                cuda.with_arena(plan.session_gpu_bytes(), || Pass::new(model, device, plan, &batch))?
            }
        };
        Ok(Compute::Pages { pass: Box::new(pass), pages })
    }

    /// How many of a slot's first `n` tokens, of `n_held`, serve whoever goes on after them: all or none.
    pub fn usable(&self, slot: usize, n: usize, n_held: usize) -> usize {
        match self {
            Compute::Ring(session) => session.usable(n),
            Compute::Pages { pages, .. } => pages.usable(slot, n, n_held),
        }
    }

    /// Goes back to the first `n` tokens of a slot, which are usable.
    pub fn rewind(&mut self, slot: usize, n: usize) {
        match self {
            Compute::Ring(session) => {
                session.rewind(n);
            }
            // What lies behind is written again before it is read.
            Compute::Pages { pages, .. } if n == 0 => pages.release(slot),
            Compute::Pages { .. } => {}
        }
    }

    /// Gives a slot room for so many positions; false, and nothing is taken, where there is too little.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn grow(&mut self, slot: usize, n_positions: usize) -> Result<bool> {
        match self {
            Compute::Ring(_) => Ok(true),
            Compute::Pages { pass, pages } => {
                if !pages.grow(slot, n_positions) {
                    return Ok(false);
                }
                pass.set_pages(slot, pages.of_slot(slot))?;
                Ok(true)
            }
        }
    }

    /// Whether [`Compute::grow`] would succeed once all of `others` were released.
    pub fn could_grow(&self, slot: usize, n_positions: usize, others: impl Iterator<Item = usize>) -> bool {
        match self {
            Compute::Ring(_) => true,
            Compute::Pages { pages, .. } => pages.could_grow(slot, n_positions, others),
        }
    }

    /// Takes back what a slot has beyond so many positions.
    pub fn shrink(&mut self, slot: usize, n_positions: usize) {
        if let Compute::Pages { pages, .. } = self {
            pages.shrink(slot, n_positions);
        }
    }

    /// Forgets what a slot holds.
    pub fn release(&mut self, slot: usize) {
        match self {
            Compute::Ring(session) => session.reset(),
            Compute::Pages { pages, .. } => pages.release(slot),
        }
    }

    /// Free pages of local layers, and of global ones; `None` for a ring.
    pub fn n_free_pages(&self) -> Option<(usize, usize)> {
        match self {
            Compute::Ring(_) => None,
            Compute::Pages { pages, .. } => Some(pages.n_free()),
        }
    }

    /// Makes room for an adapter of this rank.
    ///
    /// # Errors
    /// The device has no room.
    pub fn reserve_rank(&mut self, rank: usize) -> Result<()> {
        match self {
            Compute::Ring(session) => session.reserve_rank(rank),
            Compute::Pages { pass, .. } => pass.reserve_rank(rank),
        }
    }

    /// Computes a part of one slot's prompt; on request the logits of its last row, which are then row 0's.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn prefill(&mut self, rows: &[Row], adapter: Option<&Arc<Adapter>>, wants_logits: bool) -> Result<()> {
        match self {
            Compute::Ring(session) => {
                session.use_adapter(adapter)?;
                session.prefill_rows(rows, wants_logits)
            }
            Compute::Pages { pass, pages } => {
                pass.prefill(rows, adapter, wants_logits)?;
                if let Some(last) = rows.last() {
                    pages.advance(last.slot as usize, last.position as usize + 1);
                }
                Ok(())
            }
        }
    }

    /// Computes one token of each of some slots, and the logits of every row.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn decode(&mut self, rows: &[Row], adapters: &[AdapterRows]) -> Result<()> {
        match self {
            Compute::Ring(session) => session.decode(rows[0].token),
            Compute::Pages { pass, pages } => {
                pass.decode(rows, adapters)?;
                rows.iter().for_each(|row| pages.advance(row.slot as usize, row.position as usize + 1));
                Ok(())
            }
        }
    }

    /// Looks for the `k` best candidates of the first `n_rows` rows of logits.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn find_top(&mut self, n_rows: usize, k: usize) -> Result<()> {
        match self {
            Compute::Ring(session) => session.top_logits(k).map(|_| ()),
            Compute::Pages { pass, .. } => pass.find_top(n_rows, k),
        }
    }

    /// What was found, best first.
    pub fn top_of_row(&mut self, row: usize) -> &[(u32, f32)] {
        match self {
            Compute::Ring(session) => session.top_found(),
            Compute::Pages { pass, .. } => pass.top_of_row(row),
        }
    }

    /// Brings the logits of some rows to the host, in one wait for all of them; none where there are none.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn fetch_rows(&mut self, mut rows: impl Iterator<Item = usize>) -> Result<()> {
        match self {
            Compute::Ring(session) => match rows.next() {
                Some(_) => session.last_logits().map(|_| ()),
                None => Ok(()),
            },
            Compute::Pages { pass, .. } => pass.fetch_rows(rows),
        }
    }

    /// Logits of a row that was fetched, free to be changed by a sampler.
    pub fn logits_of_row(&mut self, row: usize) -> &mut [f32] {
        match self {
            Compute::Ring(session) => session.fetched_logits(),
            Compute::Pages { pass, .. } => pass.logits_of_row(row),
        }
    }

    /// What a slot holds of its `tokens`.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn save(&self, slot: usize, tokens: &[u32]) -> Result<Snapshot> {
        match self {
            Compute::Ring(session) => session.snapshot(),
            Compute::Pages { pass, pages } => {
                let held = pages.positions_held(slot, tokens.len());
                let LocalGlobal { local, global } = &held;
                let of_layer = |is_global: &bool| if *is_global { global.clone() } else { local.clone() };
                Ok(Snapshot {
                    tokens: tokens.to_vec(),
                    held: pass.model.config.is_global.iter().map(of_layer).collect(),
                    planes: pass.save(slot, &held)?,
                })
            }
        }
    }

    /// Whether layer `i` has room for these positions of `n`, and they cover what the next token sees.
    pub fn can_hold(&self, i: usize, held: &Range<usize>, n: usize) -> bool {
        match self {
            Compute::Ring(session) => session.cache().can_hold(i, held, n),
            Compute::Pages { pass, pages } => pages.can_hold(pass.model.config.is_global[i], held, n),
        }
    }

    /// How many of these positions, the last ones, layer `i` has room for.
    pub fn n_kept(&self, i: usize, held: &Range<usize>) -> usize {
        match self {
            Compute::Ring(session) => session.cache().n_kept(i, held),
            Compute::Pages { pass, pages } => pages.n_kept(pass.model.config.is_global[i], held),
        }
    }

    /// Where layer `i` has its keys and values.
    pub fn layer(&self, i: usize) -> &KvStore {
        match self {
            Compute::Ring(session) => session.cache().layer(i),
            Compute::Pages { pass, .. } => pass.layer(i),
        }
    }

    /// Fills a slot, which has room and was released, with restored keys and values, checked by the caller.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn restore(&mut self, slot: usize, tokens: &[u32], held: &[Range<usize>], planes: &[&[u8]]) -> Result<()> {
        match self {
            Compute::Ring(session) => session.restore(tokens, held, planes),
            Compute::Pages { pass, pages } => {
                pass.restore(slot, held, planes)?;
                let locals = held.iter().zip(&pass.model.config.is_global).filter(|(_, is_global)| !**is_global);
                let floor = locals.map(|(held, _)| held.start).max().unwrap_or(0);
                pages.restored(slot, tokens.len(), floor);
                Ok(())
            }
        }
    }

    /// Says under which adapter a restored slot's keys and values were made.
    pub fn use_restored_adapter(&mut self, adapter: Option<&Arc<Adapter>>) {
        if let Compute::Ring(session) = self {
            session.assume_adapter(adapter);
        }
    }
}
