//! One request that a slot is at work on: a prompt on its way in, then an answer on its way out.

use std::sync::Arc;
use std::time::Instant;

use lichen_kernels::Row;

use super::mask::TokenMask;
use super::RequestId;
use crate::engine::answer::{Answer, Clamped, FinishReason, Timings, TokenLogprobs};
use crate::engine::request::ResolvedRequest;
use crate::error::Result;
use crate::model::adapter::Adapter;
use crate::sampler::SamplerConfig;
use crate::text::stop::StopIds;
use crate::text::text_stream::TextStream;
use crate::text::tokenizer::Tokenizer;

pub(super) struct Sequence {
    pub id: RequestId,
    pub sampling: SamplerConfig,
    /// How many numbers of the seed's stream are drawn.
    pub n_drawn: u64,
    pub adapter: Option<Arc<Adapter>>,
    pub mask: Option<Box<dyn TokenMask>>,
    pub n_top_logprobs: Option<usize>,
    /// The prompt, then the answer without an end token.
    tokens: Vec<u32>,
    n_prompt: usize,
    n_reused: usize,
    /// Positions whose keys and values are stored.
    n_computed: usize,
    answer: Vec<u32>,
    logprobs: Vec<TokenLogprobs>,
    /// Log-probabilities that an event has shown.
    n_shown: usize,
    max_new_tokens: usize,
    /// When it has taken as long as it may.
    deadline: Option<Instant>,
    stop_ids: StopIds,
    text: TextStream,
    clamped: Vec<Clamped>,
    prefill_s: f64,
    decode_start: Option<Instant>,
}

impl Sequence {
    /// # Errors: the stop strings are not acceptable.
    pub fn new(
        id: RequestId,
        request: ResolvedRequest,
        adapter: Option<Arc<Adapter>>,
        mask: Option<Box<dyn TokenMask>>,
        tokenizer: Option<Arc<Tokenizer>>,
    ) -> Result<Self> {
        let (mut tokens, n_new) = (request.prompt, request.max_new_tokens);
        let n_prompt = tokens.len();
        tokens.reserve_exact(n_new);
        let n_logprobs = if request.logprobs.is_some() { n_new } else { 0 };
        Ok(Sequence {
            id,
            sampling: request.sampling,
            n_drawn: request.n_drawn,
            adapter,
            mask,
            n_top_logprobs: request.logprobs,
            tokens,
            n_prompt,
            n_reused: 0,
            n_computed: 0,
            answer: Vec::with_capacity(n_new),
            logprobs: Vec::with_capacity(n_logprobs),
            n_shown: 0,
            max_new_tokens: n_new,
            deadline: request.time_limit.and_then(|limit| Instant::now().checked_add(limit)),
            stop_ids: request.stop_ids,
            text: TextStream::new(tokenizer, request.stop)?,
            clamped: request.clamped,
            prefill_s: 0.0,
            decode_start: None,
        })
    }

    /// Begins behind `n_reused` positions whose keys and values the slot holds.
    pub fn start(&mut self, n_reused: usize) {
        (self.n_reused, self.n_computed) = (n_reused, n_reused);
    }

    /// True while part of the prompt is still to be computed.
    pub fn is_prefilling(&self) -> bool {
        self.n_computed < self.n_prompt
    }

    /// True when no more of it may be computed.
    pub fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// The prompt and the answer so far: what the sampler sees.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub fn n_prompt(&self) -> usize {
        self.n_prompt
    }

    pub fn n_computed(&self) -> usize {
        self.n_computed
    }

    pub fn clamped(&self) -> &[Clamped] {
        &self.clamped
    }

    /// The next rows: part of the prompt, or the last token of the answer.
    pub fn next_rows(&self, slot: usize, chunk: usize, rows: &mut Vec<Row>) {
        let end = if self.is_prefilling() { self.n_prompt.min(self.n_computed + chunk) } else { self.n_computed + 1 };
        let row = |position| Row { token: self.tokens[position], position: position as u32, slot: slot as u32 };
        rows.extend((self.n_computed..end).map(row));
    }

    /// Their keys and values are stored now.
    pub fn computed(&mut self, n_rows: usize, prefill_s: f64) {
        self.n_computed += n_rows;
        self.prefill_s += prefill_s;
    }

    /// Takes the next token of the answer; says why it ends, if it does.
    pub fn accept(&mut self, token: u32, logprobs: Option<TokenLogprobs>) -> Option<FinishReason> {
        self.decode_start.get_or_insert_with(Instant::now);
        self.answer.push(token);
        self.logprobs.extend(logprobs);
        if self.stop_ids.contains(token) {
            return Some(FinishReason::Stop);
        }
        if let Some(mask) = &mut self.mask {
            mask.accept(token);
        }
        self.tokens.push(token);
        if self.text.push(token) {
            return Some(FinishReason::Stop);
        }
        (self.answer.len() >= self.max_new_tokens || self.is_late()).then_some(FinishReason::Length)
    }

    /// Text that became certain, and the log-probabilities of the tokens since the text before.
    pub fn take_new(&mut self) -> (&str, &[TokenLogprobs]) {
        let text = self.text.take_new();
        let first = self.n_shown;
        if !text.is_empty() {
            self.n_shown = self.logprobs.len();
        }
        (text, &self.logprobs[first..self.n_shown])
    }

    /// No more tokens come: what was held back of the text is certain now.
    pub fn end_text(&mut self) {
        self.text.finish();
    }

    /// The answer, and the tokens whose keys and values the slot holds.
    pub fn finish(mut self, finish_reason: FinishReason) -> (Answer, Vec<u32>) {
        let timings = Timings {
            prompt_tokens: self.n_prompt,
            reused_tokens: self.n_reused,
            prefill_s: self.prefill_s,
            new_tokens: self.answer.len(),
            decode_s: self.decode_start.map_or(0.0, |start| start.elapsed().as_secs_f64()),
        };
        self.tokens.truncate(self.n_computed);
        let answer = Answer {
            token_ids: self.answer,
            text: self.text.into_text(),
            finish_reason,
            timings,
            logprobs: self.logprobs,
            clamped: self.clamped,
        };
        (answer, self.tokens)
    }

    /// The tokens whose keys and values the slot holds, when there is no answer.
    pub fn into_computed(mut self) -> Vec<u32> {
        self.tokens.truncate(self.n_computed);
        self.tokens
    }
}
