//! Many answers at once: a fixed number of slots over one model, refilled from a queue as answers finish.
//!
//! A decode step computes one token of every slot, so the weights are read once for all of them. Prompts are computed in
//! chunks between decode steps. Keys and values lie in pages ([`PAGE`](lichen_kernels::ops::attention::PAGE) positions
//! each); a request is admitted when a slot is free and the pages of its prompt and longest answer are, in the order in
//! which requests came.
//!
//! An answer does not depend on what it was batched with: not on the number of slots, the other requests, or when it was
//! admitted. On the CPU every op gives a row the same bits in any company, so the logits are those of a
//! [`Session`](crate::session::Session) too. On a GPU one family of kernels computes all decode steps, whatever the number
//! of live slots, and a prompt's chunks are its own; the logits are a session's but for how attention cuts its sums and, from
//! sm_80 on, how products round.
//!
//! Nothing is allocated by a step but an answer's text, and what admission takes for a sequence.

mod limits;
mod pages;
mod pass;
mod sequence;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use lichen_kernels::{Device, Row};

use crate::adapter::Adapter;
use crate::error::{Error, Result};
use crate::generation::{Answer, FinishReason, Timings};
use crate::memory_plan::{Limits, MemoryPlan};
use crate::model::Model;
use crate::sampler::{Sampler, SamplerConfig};
use crate::setting::CONTEXT;
use crate::stop::{StopIds, StopStrings};
use crate::tokenizer::Tokenizer;

pub use limits::{BatchLimits, CHUNK_MAX, SLOTS_MAX};

use pages::Pages;
use pass::Pass;
use sequence::{longest_answer, Sequence};

/// What to answer.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRequest {
    /// The caller's name for it.
    pub id: u64,
    pub prompt: Vec<u32>,
    pub max_new_tokens: usize,
    pub sampling: SamplerConfig,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
}

/// An answer, or why there is none: the model's logits were no numbers.
#[derive(Debug)]
pub struct BatchAnswer {
    pub id: u64,
    pub result: Result<Answer>,
}

/// Slots over one model, and the requests that wait for one.
pub struct Batch<'t> {
    pass: Pass,
    limits: Limits,
    pages: Pages,
    /// (n_slots).
    slots: Vec<Option<Sequence<'t>>>,
    queue: VecDeque<BatchRequest>,
    n_admitted: u64,
    /// Shared by all: what a sequence has of its own is its settings and how many tokens it drew.
    sampler: Sampler,
    tokenizer: Option<&'t Tokenizer>,
    stop_ids: StopIds,
    /// The rows of the pass.
    rows: Vec<Row>,
    /// What was drawn for each from its best candidates alone; `None` where all logits are needed.
    drawn: Vec<Result<Option<u32>>>,
    /// Whether a chunk of a prompt is due, rather than a decode step.
    chunk_is_due: bool,
}

impl<'t> Batch<'t> {
    /// Allocates what a plan with a batch says. Without a tokenizer answers have no text: token ids alone.
    ///
    /// # Errors
    /// The device has no room.
    pub fn new(
        model: Arc<Model>,
        device: Arc<Device>,
        adapter: Option<Arc<Adapter>>,
        plan: &MemoryPlan,
        tokenizer: Option<&'t Tokenizer>,
        stop_ids: StopIds,
    ) -> Result<Self> {
        let Some(batch) = plan.batch else {
            return Err(Error::usage("the memory plan is a session's: it has no batch"));
        };
        let pages = Pages::new(&model.config, &plan.limits, &batch);
        let sampler = Sampler::new(SamplerConfig::default(), model.config.vocab_size)?;
        let pass = match &*device.clone() {
            Device::Cpu(_) => Pass::new(model, device, adapter, plan, &batch)?,
            Device::Cuda(cuda) => {
                cuda.with_arena(plan.session_gpu_bytes(), || Pass::new(model, device, adapter, plan, &batch))?
            }
        };
        Ok(Batch {
            pass,
            limits: plan.limits,
            pages,
            slots: (0..batch.n_slots).map(|_| None).collect(),
            queue: VecDeque::new(),
            n_admitted: 0,
            sampler,
            tokenizer,
            stop_ids,
            rows: Vec::with_capacity(plan.limits.chunk.max(batch.n_slots)),
            drawn: Vec::with_capacity(batch.n_slots),
            chunk_is_due: true,
        })
    }

    /// Puts a request at the end of the queue.
    ///
    /// # Errors
    /// It could never be answered: the prompt is empty, passes the context or has ids outside the vocabulary, or the
    /// settings are out of range.
    pub fn submit(&mut self, request: BatchRequest) -> Result<()> {
        let (n, vocab_size) = (request.prompt.len(), self.pass.model.config.vocab_size);
        if n == 0 {
            return Err(Error::input("the prompt is empty: there is no token to start from"));
        }
        if let Some(id) = request.prompt.iter().find(|id| **id as usize >= vocab_size) {
            return Err(Error::input(format!("token {id} is outside the vocabulary of {vocab_size}")));
        }
        if n > self.limits.context {
            return Err(Error::limit(format!(
                "the prompt has {n} tokens, and the context {} positions (raise {CONTEXT}, the model allows {})",
                self.limits.context, self.pass.model.config.context_length
            )));
        }
        request.sampling.check()?;
        StopStrings::new(request.stop.clone())?;
        self.queue.push_back(request);
        Ok(())
    }

    /// Requests that wait for a slot or for pages.
    pub fn n_waiting(&self) -> usize {
        self.queue.len()
    }

    /// Slots in use.
    pub fn n_running(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    pub fn n_slots(&self) -> usize {
        self.slots.len()
    }

    /// True when one more request would not wait behind others: what a caller that reads them from a file asks.
    pub fn wants_more(&self) -> bool {
        self.queue.len() < (self.n_slots() - self.n_running()).max(1)
    }

    /// Pages that nobody holds: of local layers, and of global ones.
    pub fn n_free_pages(&self) -> (usize, usize) {
        self.pages.n_free()
    }

    /// The logits that the last token of a request was drawn from, as the sampler left them; `None` when the last step had
    /// no row of it.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn logits(&mut self, id: u64) -> Result<Option<&[f32]>> {
        let is_of =
            |row: &Row| self.slots[row.slot as usize].as_ref().is_some_and(|s| s.id == id && !s.is_prefilling());
        match self.rows.iter().position(is_of) {
            Some(row) => {
                self.pass.fetch_rows(std::iter::once(row))?;
                Ok(Some(self.pass.logits_of_row(row)))
            }
            None => Ok(None),
        }
    }

    /// Admits what has room and computes one chunk of a prompt or one decode step. Finished answers go to `done`. False
    /// when there was nothing to do.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn step(&mut self, done: &mut dyn FnMut(BatchAnswer)) -> Result<bool> {
        self.admit(done)?;
        let n_prefilling = self.slots.iter().flatten().filter(|s| s.is_prefilling()).count();
        let n_decoding = self.n_running() - n_prefilling;
        // By turns; but a step for a few slots costs what one for many does, so most of them are filled first.
        if n_prefilling > 0 && (self.chunk_is_due || n_decoding < n_prefilling) {
            self.chunk_is_due = n_decoding == 0;
            return self.prefill(done);
        }
        self.chunk_is_due = true;
        self.decode(done)
    }

    /// Computes one chunk of the prompt that waits longest; false when none does.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn prefill(&mut self, done: &mut dyn FnMut(BatchAnswer)) -> Result<bool> {
        self.admit(done)?;
        let waiting = self.slots.iter().enumerate().filter_map(|(slot, s)| Some((s.as_ref()?, slot)));
        let oldest = waiting.filter(|(s, _)| s.is_prefilling()).min_by_key(|(s, _)| s.ticket);
        let Some((sequence, slot)) = oldest else { return Ok(false) };
        let start = Instant::now();
        self.rows.clear();
        sequence.next_rows(slot, self.limits.chunk, &mut self.rows);
        let last = self.rows.last().expect("part of a prompt").position as usize;
        let is_end = last + 1 == sequence.recent().len();
        self.pass.prefill(&self.rows, is_end)?;
        let seconds = start.elapsed().as_secs_f64();
        self.slots[slot].as_mut().expect("found above").computed(self.rows.len(), seconds);
        if is_end {
            // Row 0 of the logits is the last row's.
            self.rows[0].slot = slot as u32;
            self.rows.truncate(1);
            self.sample(done)?;
        }
        Ok(true)
    }

    /// Computes one token of every answer; false when there is none.
    ///
    /// # Errors
    /// What went wrong on the device.
    pub fn decode(&mut self, done: &mut dyn FnMut(BatchAnswer)) -> Result<bool> {
        self.rows.clear();
        for (slot, sequence) in self.slots.iter().enumerate() {
            if let Some(sequence) = sequence.as_ref().filter(|s| !s.is_prefilling()) {
                sequence.next_rows(slot, 1, &mut self.rows);
            }
        }
        if self.rows.is_empty() {
            return Ok(false);
        }
        self.pass.decode(&self.rows)?;
        for row in &self.rows {
            self.slots[row.slot as usize].as_mut().expect("it has a row").computed(1, 0.0);
        }
        self.sample(done)?;
        Ok(true)
    }

    /// Moves requests from the queue into free slots while there are slots and pages.
    fn admit(&mut self, done: &mut dyn FnMut(BatchAnswer)) -> Result<()> {
        while let Some(request) = self.queue.front() {
            let Some(slot) = self.slots.iter().position(Option::is_none) else { return Ok(()) };
            let n_prompt = request.prompt.len();
            let n_new = longest_answer(n_prompt, request.max_new_tokens, self.limits.context);
            if n_new > 0 && !self.pages.take(slot, n_prompt + n_new - 1) {
                return Ok(());
            }
            let Some(request) = self.queue.pop_front() else { return Ok(()) };
            if n_new == 0 {
                done(BatchAnswer { id: request.id, result: Ok(nothing(n_prompt)) });
                continue;
            }
            self.pass.set_pages(slot, self.pages.of_slot(slot))?;
            self.n_admitted += 1;
            let sequence = Sequence::new(request, self.tokenizer, self.limits.context, self.n_admitted)?;
            self.slots[slot] = Some(sequence);
        }
        Ok(())
    }

    /// The next token of the slots of `rows`, from the logits of the last pass. Answers that it ends go to `done`. A GPU is
    /// waited for at most twice: for the best candidates, and for the logits of all rows that these do not decide.
    fn sample(&mut self, done: &mut dyn FnMut(BatchAnswer)) -> Result<()> {
        self.draw_from_top()?;
        let is_open = |(row, drawn): (usize, &Result<Option<u32>>)| matches!(drawn, Ok(None)).then_some(row);
        self.pass.fetch_rows(self.drawn.iter().enumerate().filter_map(is_open))?;
        for (i, drawn) in self.drawn.drain(..).enumerate() {
            let slot = self.rows[i].slot as usize;
            let Some(sequence) = &mut self.slots[slot] else { continue };
            let token = match drawn {
                Ok(None) => {
                    self.sampler.resume(sequence.sampling, sequence.n_drawn);
                    self.sampler.sample(self.pass.logits_of_row(i), sequence.recent())
                }
                Ok(Some(token)) => Ok(token),
                Err(error) => Err(error),
            };
            // A sampler's count is how many were drawn.
            sequence.n_drawn = sequence.n_drawn.wrapping_add(1);
            let end = match token {
                Ok(token) => sequence.accept(token, &self.stop_ids).map(Ok),
                Err(error) => Some(Err(error)),
            };
            if let Some(end) = end {
                self.pages.give_back(slot);
                if let Some(sequence) = self.slots[slot].take() {
                    done(BatchAnswer { id: sequence.id, result: end.map(|reason| sequence.finish(reason)) });
                }
            }
        }
        Ok(())
    }

    /// Draws what the best candidates decide.
    fn draw_from_top(&mut self) -> Result<()> {
        let mut asked = 0;
        for row in &self.rows {
            let sequence = self.slots[row.slot as usize].as_ref().expect("it has a row");
            self.sampler.resume(sequence.sampling, sequence.n_drawn);
            asked = self.sampler.candidates_needed().unwrap_or(0).max(asked);
        }
        if asked > 0 {
            self.pass.find_top(self.rows.len(), asked)?;
        }
        self.drawn.clear();
        for (i, row) in self.rows.iter().enumerate() {
            let sequence = self.slots[row.slot as usize].as_ref().expect("it has a row");
            self.sampler.resume(sequence.sampling, sequence.n_drawn);
            // Looking at candidates waits for the device, whether they were looked for or not.
            self.drawn.push(match self.sampler.candidates_needed() {
                Some(_) => self.sampler.sample_top(self.pass.top_of_row(i), sequence.recent()),
                None => Ok(None),
            });
        }
        Ok(())
    }
}

/// The answer to a request for no tokens.
fn nothing(prompt_tokens: usize) -> Answer {
    let timings = Timings { prompt_tokens, ..Timings::default() };
    Answer { token_ids: Vec::new(), text: String::new(), finish_reason: FinishReason::Length, timings }
}
