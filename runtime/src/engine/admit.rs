//! How requests come to slots and leave them.

use super::sequence::Sequence;
use super::slot::{choose, fingerprint, least_recently_used, Held, Wanted};
use super::{Engine, Event, OnEvent, Queued};
use crate::engine::answer::{Answer, FinishReason};
use crate::error::Result;

impl Engine {
    /// Moves requests from the queue into slots, in order, while there are slots and pages.
    pub(super) fn admit(&mut self, on_event: &mut OnEvent<'_>) -> Result<()> {
        while let Some(Queued { id, request, adapter, .. }) = self.queue.front() {
            let (id, n_new) = (*id, request.max_new_tokens);
            if n_new == 0 {
                let mut answer = Answer::empty(request.prompt.len(), FinishReason::Length);
                answer.clamped.clone_from(&request.clamped);
                self.queue.pop_front();
                on_event(Event::Done { id, answer });
                continue;
            }
            let wanted = Wanted { prompt: &request.prompt, adapter: fingerprint(adapter), tenant: request.tenant };
            let usable = |slot: usize, n: usize| self.compute.usable(slot, n, self.slots[slot].held.tokens.len());
            let Some(choice) = choose(&self.slots, &wanted, usable) else { return Ok(()) };
            let n_positions = request.prompt.len() + n_new - 1;
            if !self.make_room(choice.slot, choice.n_reused, n_positions)? {
                return Ok(());
            }
            let Some(queued) = self.queue.pop_front() else { return Ok(()) };
            self.start(choice.slot, choice.n_reused, queued, on_event);
        }
        Ok(())
    }

    /// Takes a slot back to the tokens that are reused, and gives it room for a whole answer: where pages are short, what other
    /// idle slots hold is given up, the least recently used first. False, and nothing is given up, where even that is too
    /// little.
    fn make_room(&mut self, slot: usize, n_reused: usize, n_positions: usize) -> Result<bool> {
        let idle = self.slots.iter().enumerate().filter(|(_, s)| s.is_idle()).map(|(i, _)| i);
        if !self.compute.could_grow(slot, n_positions, idle) {
            return Ok(false);
        }
        self.compute.rewind(slot, n_reused);
        self.compute.shrink(slot, n_reused);
        self.slots[slot].held.tokens.truncate(n_reused);
        while !self.compute.grow(slot, n_positions)? {
            match least_recently_used(&self.slots, slot) {
                Some(other) => self.evict(other),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Forgets what an idle slot holds.
    pub(super) fn evict(&mut self, slot: usize) {
        self.compute.release(slot);
        self.slots[slot].held = Held::default();
    }

    /// Lets a slot, which has room, begin a request.
    fn start(&mut self, slot: usize, n_reused: usize, queued: Queued, on_event: &mut OnEvent<'_>) {
        let Queued { id, request, adapter, mask } = queued;
        let held =
            Held { tokens: Vec::new(), adapter: fingerprint(&adapter), tenant: request.tenant, request: Some(id) };
        self.clock += 1;
        let state = &mut self.slots[slot];
        (state.held, state.last_used) = (held, self.clock);
        match Sequence::new(id, request, adapter, mask, self.model.tokenizer.clone()) {
            Ok(mut sequence) => {
                sequence.start(n_reused);
                let (prompt_tokens, clamped) = (sequence.n_prompt(), sequence.clamped());
                on_event(Event::Started { id, prompt_tokens, reused_tokens: n_reused, clamped });
                state.running = Some(sequence);
            }
            Err(error) => {
                self.evict(slot);
                on_event(Event::Failed { id, error });
            }
        }
    }

    /// Ends what a slot is at work on. What was computed stays, for whoever goes on from there.
    pub(super) fn finish(&mut self, slot: usize, end: Result<FinishReason>, on_event: &mut OnEvent<'_>) {
        let state = &mut self.slots[slot];
        let Some(mut sequence) = state.running.take() else { return };
        let id = sequence.id;
        match end {
            Ok(reason) => {
                sequence.end_text();
                let (text, logprobs) = sequence.take_new();
                if !text.is_empty() {
                    on_event(Event::Text { id, text, logprobs });
                }
                let (answer, tokens) = sequence.finish(reason);
                state.held.tokens = tokens;
                on_event(Event::Done { id, answer });
            }
            Err(error) => {
                state.held.tokens = sequence.into_computed();
                on_event(Event::Failed { id, error });
            }
        }
        let n_held = state.held.tokens.len();
        self.compute.shrink(slot, n_held);
    }
}
