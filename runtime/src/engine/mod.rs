//! The one loop that answers: requests go in, events come out, and between two calls of [`Engine::step`] nothing happens.
//!
//! A step computes one chunk of a prompt, or one token of every answer that is under way, so the weights are read once for
//! all of them. What a finished request leaves in its slot serves the next one that begins alike: a later turn of a
//! conversation computes only what is new.
//!
//! An answer is a function of its request: not of the number of slots, the other requests, when its turn came, or, on the
//! CPU, of what was there to be reused. There every op gives a row the same bits in any batch. On a GPU one family of kernels
//! computes all decode steps of an engine with several slots, whatever the number of live ones, and a prompt's chunks are its
//! own; but tokens of an earlier answer were decoded where they are reused, and multiplied by the kernels of prompts where
//! they are computed again, which moves the last bits of what follows.
//!
//! Nothing is allocated by a step but an answer's text, and what admission takes for a request.

mod adapters;
mod admit;
pub mod answer;
mod compute;
pub mod conversation;
mod event;
mod mask;
mod pages;
mod pass;
pub mod request;
mod sample;
mod sequence;
mod slot;
mod state;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use lichen_kernels::Row;

use crate::engine::answer::{Answer, FinishReason};
use crate::engine::request::{Request, RequestLimits, ResolvedRequest};
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::model::adapter::{Adapter, AdapterRows};
use crate::sampler::{Sampler, SamplerConfig};

pub use crate::loader::{AdapterPath, DeviceChoice, EngineOptions, LoadedModel, NamedAdapter, PreparedModel};
pub use event::{Event, OnEvent, RequestId};
pub use mask::TokenMask;

use adapters::Adapters;
use compute::Compute;
use slot::Slot;

/// A request that waits for a slot.
struct Queued {
    id: RequestId,
    request: ResolvedRequest,
    adapter: Option<Arc<Adapter>>,
    mask: Option<Box<dyn TokenMask>>,
}

/// Slots over one model, and the requests that wait for one. It has no lifetime and can be sent to another thread, whose own
/// it is then.
pub struct Engine {
    model: Arc<LoadedModel>,
    limits: Limits,
    adapters: Adapters,
    compute: Compute,
    slots: Vec<Slot>,
    queue: VecDeque<Queued>,
    /// What requests get that say nothing themselves.
    defaults: Request,
    allowed: RequestLimits,
    last_id: u64,
    /// Counts admissions: slots are served and given up in this order.
    clock: u64,
    /// Shared by all: what a sequence has of its own is its settings and how many numbers it drew.
    sampler: Sampler,
    /// The rows of the pass, ordered by adapter, and which adapter has which.
    rows: Vec<Row>,
    adapter_rows: Vec<AdapterRows>,
    /// What was drawn for each row from its best candidates alone; `None` where all logits are needed.
    drawn: Vec<Result<Option<u32>>>,
    /// Whether a chunk of a prompt is due, rather than a decode step.
    chunk_is_due: bool,
}

impl Engine {
    /// Opens a model within its memory plan, and makes the slots that the options ask for.
    ///
    /// # Errors
    /// What is missing, malformed or not supported, in one sentence that names the file; or the memory plan, when it passes
    /// the budget.
    pub fn open(options: &EngineOptions) -> Result<Engine> {
        Engine::new(Arc::new(LoadedModel::open(options)?))
    }

    /// Slots over a model: as many as its plan has.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(model: Arc<LoadedModel>) -> Result<Engine> {
        let (plan, config) = (&model.plan, &model.model.config);
        let n_slots = plan.batch.map_or(1, |batch| batch.n_slots);
        Ok(Engine {
            limits: plan.limits,
            compute: Compute::new(&model.model, &model.device, plan)?,
            slots: (0..n_slots).map(|_| Slot::default()).collect(),
            queue: VecDeque::new(),
            defaults: Request::default(),
            allowed: RequestLimits::default(),
            last_id: 0,
            clock: 0,
            sampler: Sampler::new(SamplerConfig::default(), config.vocab_size)?,
            rows: Vec::with_capacity(plan.limits.chunk.max(n_slots)),
            adapter_rows: Vec::with_capacity(n_slots),
            drawn: Vec::with_capacity(n_slots),
            chunk_is_due: true,
            adapters: Adapters::new(model.adapters.clone()),
            model,
        })
    }

    pub fn model(&self) -> &Arc<LoadedModel> {
        &self.model
    }

    /// What each sequence may use.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What requests get where they say nothing themselves: a program's flags.
    pub fn set_defaults(&mut self, defaults: Request) {
        self.defaults = defaults;
    }

    pub fn defaults(&self) -> &Request {
        &self.defaults
    }

    /// What every request is held to.
    pub fn set_request_limits(&mut self, allowed: RequestLimits) {
        self.allowed = allowed;
    }

    /// Puts a request at the end of the queue.
    ///
    /// # Errors
    /// It could never be answered: the prompt is empty, passes the context or has ids outside the vocabulary, a setting is
    /// out of range, or no adapter has that name.
    pub fn submit(&mut self, request: Request) -> Result<RequestId> {
        self.enqueue(request, None)
    }

    /// The same, for an answer whose tokens a mask allows.
    ///
    /// # Errors
    /// Those of [`Engine::submit`].
    pub fn submit_masked(&mut self, request: Request, mask: Box<dyn TokenMask>) -> Result<RequestId> {
        self.enqueue(request, Some(mask))
    }

    fn enqueue(&mut self, request: Request, mask: Option<Box<dyn TokenMask>>) -> Result<RequestId> {
        let request = request.with_defaults(&self.defaults);
        let adapter = self.adapters.find(&request.adapter)?;
        let request = request.resolve(&self.model, &self.limits, &self.allowed)?;
        let id = self.next_id();
        self.queue.push_back(Queued { id, request, adapter, mask });
        Ok(id)
    }

    fn next_id(&mut self) -> RequestId {
        self.last_id += 1;
        RequestId(self.last_id)
    }

    /// Ends a request before the next chunk or token is computed. Its answer, with the text so far, goes to `on_event`. False
    /// when there is none of this name any more.
    pub fn cancel(&mut self, id: RequestId, on_event: &mut OnEvent<'_>) -> bool {
        if let Some(i) = self.queue.iter().position(|queued| queued.id == id) {
            if let Some(queued) = self.queue.remove(i) {
                let mut answer = Answer::empty(queued.request.prompt.len(), FinishReason::Cancel);
                answer.clamped = queued.request.clamped;
                on_event(Event::Done { id, answer });
            }
            return true;
        }
        match self.slot_of(id) {
            Some(slot) => {
                self.finish(slot, Ok(FinishReason::Cancel), on_event);
                true
            }
            None => false,
        }
    }

    /// The slot that is at work on a request.
    fn slot_of(&self, id: RequestId) -> Option<usize> {
        self.slots.iter().position(|slot| slot.running.as_ref().is_some_and(|s| s.id == id))
    }

    /// Requests that wait for a slot or for pages.
    pub fn n_waiting(&self) -> usize {
        self.queue.len()
    }

    /// Slots at work.
    pub fn n_running(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.is_idle()).count()
    }

    pub fn n_slots(&self) -> usize {
        self.slots.len()
    }

    /// True when one more request would not wait behind others: what a caller that reads them from a file asks.
    pub fn wants_more(&self) -> bool {
        self.queue.len() < (self.n_slots() - self.n_running()).max(1)
    }

    /// Pages that no slot holds: of local layers, and of global ones. `None` where the one slot has a ring.
    pub fn n_free_pages(&self) -> Option<(usize, usize)> {
        self.compute.n_free_pages()
    }

    /// Forgets what idle slots hold: the next requests compute all of their prompts.
    pub fn clear(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_idle() {
                self.evict(slot);
            }
        }
    }

    /// Admits what has room, and computes one chunk of a prompt or one token of every answer. False when there was nothing to
    /// do.
    ///
    /// # Errors
    /// What went wrong on the device: no request can go on.
    pub fn step(&mut self, on_event: &mut OnEvent<'_>) -> Result<bool> {
        self.end_late(on_event);
        self.admit(on_event)?;
        let n_prefilling = self.n_prefilling();
        let n_decoding = self.n_running() - n_prefilling;
        // By turns; but a step for a few slots costs what one for many does, so most of them are filled first.
        if n_prefilling > 0 && (self.chunk_is_due || n_decoding < n_prefilling) {
            self.chunk_is_due = n_decoding == 0;
            return self.prefill(on_event);
        }
        self.chunk_is_due = true;
        self.decode(on_event)
    }

    /// Answers one request while nothing else is under way. `on_event` gets its events but for the last, which is returned.
    /// `should_stop` is asked before every chunk and token.
    ///
    /// # Errors
    /// Why there is no answer.
    pub fn run(
        &mut self,
        request: Request,
        on_event: &mut OnEvent<'_>,
        should_stop: &mut dyn FnMut() -> bool,
    ) -> Result<(RequestId, Answer)> {
        if self.n_running() + self.n_waiting() > 0 {
            return Err(Error::usage("other requests are under way: submit this one and step"));
        }
        let id = self.submit(request)?;
        let mut result = None;
        let mut on_event = |event: Event<'_>| match event {
            Event::Done { answer, .. } => result = Some(Ok((id, answer))),
            Event::Failed { error, .. } => result = Some(Err(error)),
            other => on_event(other),
        };
        loop {
            if should_stop() {
                self.cancel(id, &mut on_event);
            }
            match self.step(&mut on_event) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    // Nobody else would end it.
                    self.cancel(id, &mut |_| {});
                    self.clear();
                    return Err(error);
                }
            }
        }
        result.unwrap_or_else(|| Err(Error::input("the request ended without an answer")))
    }

    fn n_prefilling(&self) -> usize {
        self.slots.iter().filter(|slot| slot.running.as_ref().is_some_and(|s| s.is_prefilling())).count()
    }

    /// Ends requests that have taken as long as they may while their prompts were computed.
    fn end_late(&mut self, on_event: &mut OnEvent<'_>) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].running.as_ref().is_some_and(|s| s.is_prefilling() && s.is_late()) {
                self.finish(slot, Ok(FinishReason::Length), on_event);
            }
        }
    }

    /// The half of [`Engine::step`] that computes one chunk of the prompt that waits longest; false when none does. For whoever
    /// measures the two apart.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn prefill(&mut self, on_event: &mut OnEvent<'_>) -> Result<bool> {
        self.admit(on_event)?;
        let waiting =
            self.slots.iter().enumerate().filter(|(_, s)| s.running.as_ref().is_some_and(|s| s.is_prefilling()));
        let Some((slot, _)) = waiting.min_by_key(|(_, s)| s.last_used) else { return Ok(false) };
        let Some(sequence) = &mut self.slots[slot].running else { return Ok(false) };
        let start = Instant::now();
        self.rows.clear();
        sequence.next_rows(slot, self.limits.chunk, &mut self.rows);
        let is_end = sequence.n_computed() + self.rows.len() == sequence.n_prompt();
        self.compute.prefill(&self.rows, sequence.adapter.as_ref(), is_end)?;
        sequence.computed(self.rows.len(), start.elapsed().as_secs_f64());
        if is_end {
            // Row 0 of the logits is the last row's.
            self.rows.truncate(1);
            self.sample(on_event)?;
        }
        Ok(true)
    }

    /// The half of [`Engine::step`] that computes one token of every answer; false when there is none.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn decode(&mut self, on_event: &mut OnEvent<'_>) -> Result<bool> {
        self.rows.clear();
        for (slot, state) in self.slots.iter().enumerate() {
            if let Some(sequence) = state.running.as_ref().filter(|s| !s.is_prefilling()) {
                sequence.next_rows(slot, 1, &mut self.rows);
            }
        }
        if self.rows.is_empty() {
            return Ok(false);
        }
        self.group_by_adapter();
        self.compute.decode(&self.rows, &self.adapter_rows)?;
        for row in &self.rows {
            if let Some(sequence) = &mut self.slots[row.slot as usize].running {
                sequence.computed(1, 0.0);
            }
        }
        self.sample(on_event)?;
        Ok(true)
    }

    /// Orders the rows by adapter, those of the model alone first, and says which adapter has which.
    fn group_by_adapter(&mut self) {
        let slots = &self.slots;
        let adapter = |row: &Row| slots[row.slot as usize].running.as_ref().and_then(|s| s.adapter.as_ref());
        self.rows.sort_unstable_by_key(|row| (adapter(row).map(|a| a.fingerprint()), row.slot));
        self.adapter_rows.clear();
        for (i, row) in self.rows.iter().enumerate() {
            let Some(adapter) = adapter(row) else { continue };
            match self.adapter_rows.last_mut().filter(|last| last.adapter.fingerprint() == adapter.fingerprint()) {
                Some(last) => last.rows.end = i + 1,
                None => self.adapter_rows.push(AdapterRows { rows: i..i + 1, adapter: adapter.clone() }),
            }
        }
    }

    /// The logits that the last token of a request was drawn from; `None` when the last step had no row of it. On the CPU
    /// they are as the sampler left them, penalties applied.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn logits(&mut self, id: RequestId) -> Result<Option<&[f32]>> {
        let Some(slot) = self.slot_of(id) else { return Ok(None) };
        let is_decoding = self.slots[slot].running.as_ref().is_some_and(|s| !s.is_prefilling());
        let row = self.rows.iter().position(|row| row.slot as usize == slot).filter(|_| is_decoding);
        match row {
            Some(row) => {
                self.compute.fetch_rows(std::iter::once(row))?;
                Ok(Some(self.compute.logits_of_row(row)))
            }
            None => Ok(None),
        }
    }
}
