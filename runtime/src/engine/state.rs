//! One conversation of an engine to a file and back, with the keys and values that its slot holds.

use std::ops::Range;
use std::path::Path;

use super::slot::{choose, fingerprint, least_recently_used, Held, Wanted};
use super::{Engine, LoadedModel, RequestId};
use crate::engine::request::AdapterChoice;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::session_file::{self, SavedState};
use crate::model::snapshot::{SequenceState, Snapshot};
use crate::model::Model;

/// A conversation in an engine's slot, or one that none holds any more.
struct Conversation<'e> {
    engine: &'e mut Engine,
    slot: Option<usize>,
    adapter: Option<[u8; 32]>,
    tenant: u64,
    id: RequestId,
}

impl Engine {
    /// Writes a conversation to `path`: `state`, and what the slot that served `last`, its last request, still holds. Nothing
    /// of it may be under way. Where the slot went to somebody else, the file has no keys and values, and whoever goes on
    /// from it computes them.
    ///
    /// # Errors
    /// The file cannot be written; the one that was there is untouched.
    pub fn save(
        &mut self,
        last: Option<RequestId>,
        adapter: &AdapterChoice,
        state: &SavedState,
        path: &Path,
    ) -> Result<()> {
        let model = self.model.clone();
        let template = template_identity(&model)?;
        let slot = last.and_then(|id| self.slots.iter().position(|s| s.is_idle() && s.held.request == Some(id)));
        let adapter = fingerprint(&self.find_adapter(adapter)?);
        let slot = slot.filter(|slot| self.slots[*slot].held.adapter == adapter);
        let id = self.next_id();
        let conversation = Conversation { engine: self, slot, adapter, tenant: 0, id };
        session_file::save(&conversation, template, state, path)
    }

    /// Fills an idle slot from a file. Returns the name under which [`Engine::save`] finds it.
    ///
    /// # Errors
    /// The file is damaged, or was saved with another model, adapter, template or cache format; or all slots are at work.
    pub fn restore(&mut self, adapter: &AdapterChoice, tenant: u64, path: &Path) -> Result<(RequestId, SavedState)> {
        let model = self.model.clone();
        let template = template_identity(&model)?;
        let chosen = self.find_adapter(adapter)?;
        let adapter = fingerprint(&chosen);
        let wanted = Wanted { prompt: &[0], adapter, tenant };
        let Some(choice) = choose(&self.slots, &wanted, |_, _| 0) else {
            return Err(Error::limit("all slots are busy: wait for a request to end"));
        };
        let id = self.next_id();
        let mut conversation = Conversation { engine: self, slot: Some(choice.slot), adapter, tenant, id };
        let state = session_file::load(&mut conversation, template, path)?;
        self.compute.use_restored_adapter(chosen.as_ref());
        Ok((id, state))
    }
}

/// What the tokens of a conversation were made with: a model without a tokenizer has none.
fn template_identity(model: &LoadedModel) -> Result<&str> {
    match model.tokenizer {
        Some(_) => Ok(model.chat_template()?.identity()),
        None => Ok("none"),
    }
}

impl SequenceState for Conversation<'_> {
    fn model(&self) -> &Model {
        &self.engine.model.model
    }

    fn limits(&self) -> &Limits {
        &self.engine.limits
    }

    fn adapter(&self) -> Option<[u8; 32]> {
        self.adapter
    }

    fn snapshot(&self) -> Result<Snapshot> {
        match self.slot {
            Some(slot) => self.engine.compute.save(slot, &self.engine.slots[slot].held.tokens),
            None => Ok(Snapshot::empty(self.model().layers.len())),
        }
    }

    fn can_hold(&self, i: usize, held: &Range<usize>, n: usize) -> bool {
        self.engine.compute.can_hold(i, held, n)
    }

    fn n_kept(&self, i: usize, held: &Range<usize>) -> usize {
        self.engine.compute.n_kept(i, held)
    }

    fn last_positions(&self, i: usize, bytes: &[u8], n_kept: usize) -> Vec<u8> {
        self.engine.compute.layer(i).last_positions(bytes, n_kept)
    }

    fn saved_bytes(&self, i: usize, n_positions: usize) -> usize {
        self.engine.compute.layer(i).saved_bytes(n_positions)
    }

    fn restore(&mut self, tokens: &[u32], held: &[Range<usize>], planes: &[&[u8]]) -> Result<()> {
        let Some(slot) = self.slot else { return Ok(()) };
        let engine = &mut *self.engine;
        engine.evict(slot);
        while !engine.compute.grow(slot, tokens.len())? {
            match least_recently_used(&engine.slots, slot) {
                Some(other) => engine.evict(other),
                None => {
                    return Err(Error::limit(
                        "not enough free KV pages beside the running requests: wait for one to end",
                    ))
                }
            }
        }
        if let Err(error) = engine.compute.restore(slot, tokens, held, planes) {
            engine.evict(slot);
            return Err(error);
        }
        engine.clock += 1;
        engine.slots[slot].last_used = engine.clock;
        engine.slots[slot].held =
            Held { tokens: tokens.to_vec(), adapter: self.adapter, tenant: self.tenant, request: Some(self.id) };
        Ok(())
    }
}
