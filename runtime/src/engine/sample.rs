//! The next token of every row of a pass: from the best candidates where they decide, else from all logits; then past the
//! mask, where an answer has one.

use super::{Engine, Event, OnEvent};
use crate::engine::answer::{TokenLogprob, TokenLogprobs};
use crate::error::Result;
use crate::sampler::Sampler;

use super::sequence::Sequence;

impl Engine {
    /// Draws the next token of the slots of `rows` from the logits of the last pass. A GPU is waited for at most twice: for the
    /// best candidates, and for the logits of all rows that these do not decide.
    pub(super) fn sample(&mut self, on_event: &mut OnEvent<'_>) -> Result<()> {
        self.draw_from_top()?;
        let is_open = |(row, drawn): (usize, &Result<Option<u32>>)| matches!(drawn, Ok(None)).then_some(row);
        self.compute.fetch_rows(self.drawn.iter().enumerate().filter_map(is_open))?;
        for i in 0..self.drawn.len() {
            let slot = self.rows[i].slot as usize;
            let Some(sequence) = &mut self.slots[slot].running else { continue };
            let (token, logprobs) = match std::mem::replace(&mut self.drawn[i], Ok(None)) {
                Ok(Some(token)) => (Ok(token), None),
                Ok(None) => draw_from_all(&mut self.sampler, self.compute.logits_of_row(i), sequence),
                Err(error) => (Err(error), None),
            };
            // A sampler's count is how many were drawn.
            sequence.n_drawn = sequence.n_drawn.wrapping_add(1);
            let end = match token {
                Ok(token) => {
                    let end = sequence.accept(token, logprobs);
                    let id = sequence.id;
                    let (text, logprobs) = sequence.take_new();
                    if !text.is_empty() {
                        on_event(Event::Text { id, text, logprobs });
                    }
                    end.map(Ok)
                }
                Err(error) => Some(Err(error)),
            };
            if let Some(end) = end {
                self.finish(slot, end, on_event);
            }
        }
        Ok(())
    }

    /// Draws what the best candidates decide. What a mask does not allow is left open: all logits are needed then.
    fn draw_from_top(&mut self) -> Result<()> {
        let mut n_asked = 0;
        for row in &self.rows {
            let Some(sequence) = &self.slots[row.slot as usize].running else { continue };
            n_asked = needed(&mut self.sampler, sequence).unwrap_or(0).max(n_asked);
        }
        if n_asked > 0 {
            self.compute.find_top(self.rows.len(), n_asked)?;
        }
        self.drawn.clear();
        for (i, row) in self.rows.iter().enumerate() {
            let Some(sequence) = &mut self.slots[row.slot as usize].running else { continue };
            // Looking at candidates waits for the device, whether they were looked for or not.
            let drawn = match needed(&mut self.sampler, sequence) {
                Some(_) => self.sampler.sample_top(self.compute.top_of_row(i), sequence.tokens()),
                None => Ok(None),
            };
            self.drawn.push(match (drawn, &mut sequence.mask) {
                (Ok(Some(token)), Some(mask)) => Ok(mask.allows(token).then_some(token)),
                (drawn, _) => drawn,
            });
        }
        Ok(())
    }
}

/// How many candidates a sequence's draw needs; `None` where only all logits will do.
fn needed(sampler: &mut Sampler, sequence: &Sequence) -> Option<usize> {
    sampler.resume(sequence.sampling, sequence.n_drawn);
    sampler.candidates_needed().filter(|_| sequence.n_top_logprobs.is_none())
}

/// The next token from all logits, (vocab_size), which are changed by penalty and mask; and its log-probabilities, where they
/// are wanted.
fn draw_from_all(
    sampler: &mut Sampler,
    logits: &mut [f32],
    sequence: &mut Sequence,
) -> (Result<u32>, Option<TokenLogprobs>) {
    // The model's own distribution, before anything is done to it.
    let raw = sequence.n_top_logprobs.map(|n| (n, logits.to_vec()));
    sampler.resume(sequence.sampling, sequence.n_drawn);
    let mut token = sampler.sample(logits, sequence.tokens());
    if let (Ok(drawn), Some(mask)) = (&token, &mut sequence.mask) {
        if !mask.allows(*drawn) {
            mask.apply(logits);
            token = sampler.sample_again(logits);
        }
    }
    let logprobs = match (&token, raw) {
        (Ok(token), Some((n_top, raw))) => Some(logprobs(&raw, *token, n_top)),
        _ => None,
    };
    (token, logprobs)
}

/// Natural logarithms of the probabilities of `chosen` and of the `n_top` most probable tokens.
fn logprobs(logits: &[f32], chosen: u32, n_top: usize) -> TokenLogprobs {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, v| if *v > max { *v } else { max });
    // NaN is no candidate, here as in the sampler.
    let sum: f64 = logits.iter().filter(|v| !v.is_nan()).map(|v| f64::from(v - max).exp()).sum();
    let of = |logit: f32| (f64::from(logit - max) - sum.ln()) as f32;
    let mut top: Vec<(u32, f32)> = Vec::with_capacity(n_top + 1);
    for (id, logit) in logits.iter().enumerate().filter(|(_, v)| **v > f32::NEG_INFINITY) {
        if top.len() < n_top || top.last().is_some_and(|(_, least)| logit > least) {
            let at = top.partition_point(|(_, other)| other >= logit);
            top.insert(at, (id as u32, *logit));
            top.truncate(n_top);
        }
    }
    let entry = |(token, logit): (u32, f32)| TokenLogprob { token, logprob: of(logit) };
    let chosen_logit = logits.get(chosen as usize).copied().unwrap_or(f32::NEG_INFINITY);
    TokenLogprobs { chosen: entry((chosen, chosen_logit)), top: top.into_iter().map(entry).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_are_those_of_a_softmax_and_nan_has_none() {
        let logits = [1.0f32, 3.0, f32::NAN, 2.0, f32::NEG_INFINITY, 3.0];
        let sum: f64 = [1.0f64, 3.0, 2.0, 3.0].iter().map(|v| v.exp()).sum();
        let got = logprobs(&logits, 3, 3);
        let want = |v: f64| (v - sum.ln()) as f32;
        assert!((got.chosen.logprob - want(2.0)).abs() < 1e-6 && got.chosen.token == 3);
        let top: Vec<u32> = got.top.iter().map(|t| t.token).collect();
        assert_eq!(top, [1, 5, 3]);
        assert!((got.top[0].logprob - want(3.0)).abs() < 1e-6);
        assert!(logprobs(&logits, 3, 0).top.is_empty());
    }
}
