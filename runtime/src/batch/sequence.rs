//! One sequence of a batch: a prompt on its way in, then an answer on its way out.

use std::ops::ControlFlow;
use std::time::Instant;

use lichen_kernels::Row;

use super::BatchRequest;
use crate::error::Result;
use crate::generation::{Answer, FinishReason, Next, TextStream, Timings};
use crate::sampler::SamplerConfig;
use crate::stop::StopIds;
use crate::tokenizer::Tokenizer;

pub(super) struct Sequence<'t> {
    pub id: u64,
    /// Sequences are served in this order.
    pub ticket: u64,
    pub sampling: SamplerConfig,
    /// How many tokens the sampler has drawn.
    pub n_drawn: u64,
    /// The prompt, then the answer without an end token.
    tokens: Vec<u32>,
    n_prompt: usize,
    /// Positions whose keys and values are stored.
    n_computed: usize,
    answer: Vec<u32>,
    max_new_tokens: usize,
    text: TextStream<'t>,
    prefill_s: f64,
    decode_start: Option<Instant>,
}

impl<'t> Sequence<'t> {
    /// # Errors: the stop strings are not acceptable.
    pub fn new(request: BatchRequest, tokenizer: Option<&'t Tokenizer>, context: usize, ticket: u64) -> Result<Self> {
        let BatchRequest { id, mut prompt, max_new_tokens, sampling, stop } = request;
        let (n_prompt, max_new_tokens) = (prompt.len(), longest_answer(prompt.len(), max_new_tokens, context));
        prompt.reserve_exact(max_new_tokens);
        Ok(Sequence {
            id,
            ticket,
            sampling,
            n_drawn: 0,
            tokens: prompt,
            n_prompt,
            n_computed: 0,
            answer: Vec::with_capacity(max_new_tokens),
            max_new_tokens,
            text: TextStream::new(tokenizer, &stop)?,
            prefill_s: 0.0,
            decode_start: None,
        })
    }

    /// True while part of the prompt is still to be computed.
    pub fn is_prefilling(&self) -> bool {
        self.n_computed < self.n_prompt
    }

    /// What the sampler sees.
    pub fn recent(&self) -> &[u32] {
        &self.tokens
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
    pub fn accept(&mut self, token: u32, stop_ids: &StopIds) -> Option<FinishReason> {
        self.decode_start.get_or_insert_with(Instant::now);
        self.answer.push(token);
        if stop_ids.contains(token) {
            return Some(FinishReason::Stop);
        }
        self.tokens.push(token);
        if let Next::Stop = self.text.push(token, &mut |_| ControlFlow::Continue(())) {
            return Some(FinishReason::Stop);
        }
        (self.answer.len() >= self.max_new_tokens).then_some(FinishReason::Length)
    }

    pub fn finish(mut self, finish_reason: FinishReason) -> Answer {
        self.text.finish(&mut |_| ControlFlow::Continue(()));
        let timings = Timings {
            prompt_tokens: self.n_prompt,
            reused_tokens: 0,
            prefill_s: self.prefill_s,
            new_tokens: self.answer.len(),
            decode_s: self.decode_start.map_or(0.0, |start| start.elapsed().as_secs_f64()),
        };
        Answer { token_ids: self.answer, text: self.text.into_text(), finish_reason, timings }
    }
}

/// Tokens of an answer at most: what was asked for, as far as the context reaches. The last one needs no position.
pub(super) fn longest_answer(n_prompt: usize, max_new_tokens: usize, context: usize) -> usize {
    max_new_tokens.min(context + 1 - n_prompt)
}
