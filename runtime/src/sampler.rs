//! Logits to the next token.
//!
//! Filters run in transformers' order: repetition penalty, temperature, top-k, top-p, min-p, then one draw. The values that
//! models come with were tuned in it; llama.cpp has temperature last, so that its top-p and min-p see other
//! probabilities. Each filter sees what the ones before it left, with probabilities renormalised. Temperature 0 takes
//! the first maximum of the penalised logits, without a draw.
//!
//! The random number of a draw is a function of (seed, step) and of nothing else, so a saved session that restores
//! both continues exactly where it stopped.

use std::cmp::Ordering;

use lichen_kernels::ops::sampling::MAX_TOP_K;

use crate::error::{Error, Result};
use crate::limits::COUNT_MAX;
use crate::setting::{Setting, MIN_P, REPEAT_LAST_N, REPEAT_PENALTY, TEMPERATURE, TOP_K, TOP_P};

pub use overrides::SamplingOverrides;

mod overrides;

/// Hotter than this is noise.
pub const TEMPERATURE_MAX: f32 = 5.0;
pub const REPEAT_PENALTY_MIN: f32 = 0.1;
pub const REPEAT_PENALTY_MAX: f32 = 10.0;

/// What the flags of every program and the fields of every request say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerConfig {
    /// 0 to [`TEMPERATURE_MAX`]; 0 is greedy.
    pub temperature: f32,
    /// Keep this many of the most probable tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most probable tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less probable than this fraction of the most probable; 0 drops none.
    pub min_p: f32,
    /// Positive logits of recent tokens are divided by this, negative ones multiplied; 1 does nothing.
    pub repeat_penalty: f32,
    /// How many of the last tokens count as recent.
    pub repeat_last_n: usize,
    pub seed: u64,
}

impl Default for SamplerConfig {
    /// Plain sampling of the model's own distribution.
    fn default() -> Self {
        SamplerConfig {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 0,
        }
    }
}

impl SamplerConfig {
    /// The most probable token every time.
    pub fn greedy() -> Self {
        SamplerConfig { temperature: 0.0, ..SamplerConfig::default() }
    }

    /// Refuses values outside their range.
    pub fn check(&self) -> Result<()> {
        let range = |setting: Setting, value: f32, min: f32, max: f32| {
            // Not `value < min`: NaN must fail too.
            if value >= min && value <= max {
                return Ok(());
            }
            Err(Error::usage(format!("{setting} is {value}; {min} to {max}")))
        };
        range(TEMPERATURE, self.temperature, 0.0, TEMPERATURE_MAX)?;
        range(TOP_P, self.top_p, 0.0, 1.0)?;
        range(MIN_P, self.min_p, 0.0, 1.0)?;
        range(REPEAT_PENALTY, self.repeat_penalty, REPEAT_PENALTY_MIN, REPEAT_PENALTY_MAX)?;
        let count = |setting: Setting, value: usize| {
            if value <= COUNT_MAX {
                return Ok(());
            }
            Err(Error::usage(format!("{setting} is {value}; 0 to {COUNT_MAX}")))
        };
        count(TOP_K, self.top_k)?;
        count(REPEAT_LAST_N, self.repeat_last_n)
    }
}

/// One candidate: its logit, its probability relative to the best after temperature, and its id.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    logit: f32,
    weight: f64,
    id: u32,
}

/// Draws tokens; everything it needs is allocated in [`Sampler::new`].
#[derive(Debug)]
pub struct Sampler {
    config: SamplerConfig,
    step: u64,
    /// (vocab_size)
    candidates: Vec<Candidate>,
    /// One bit per token, clear between calls.
    seen: Vec<u64>,
}

impl Sampler {
    pub fn new(config: SamplerConfig, vocab_size: usize) -> Result<Self> {
        config.check()?;
        if vocab_size == 0 || u32::try_from(vocab_size).is_err() {
            return Err(Error::input(format!("vocab_size is {vocab_size}; 1 to {} expected", u32::MAX)));
        }
        // Greedy never lists candidates.
        let n_candidates = if config.temperature == 0.0 { 0 } else { vocab_size };
        Ok(Sampler {
            config,
            step: 0,
            candidates: Vec::with_capacity(n_candidates),
            seen: vec![0; vocab_size.div_ceil(64)],
        })
    }

    /// Heap bytes for a vocabulary of this size, for the memory plan.
    pub fn memory_bytes(config: &SamplerConfig, vocab_size: usize) -> usize {
        let n_candidates = if config.temperature == 0.0 { 0 } else { vocab_size };
        n_candidates * size_of::<Candidate>() + vocab_size.div_ceil(64) * 8
    }

    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }

    /// How many tokens were drawn: with the seed, all the state there is.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Continues a saved session.
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
    }

    /// The next token. `logits` (vocab_size) are changed by the penalty; `recent` holds the tokens so far, newest
    /// last. NaN counts as impossible; an error means that no token is possible. Allocates nothing.
    pub fn sample(&mut self, logits: &mut [f32], recent: &[u32]) -> Result<u32> {
        let step = self.step;
        self.step = self.step.wrapping_add(1);
        penalise(logits, recent, &self.config, &mut self.seen);
        self.choose_from(logits, uniform(self.config.seed, step))
    }

    /// Another token in place of the one drawn last, from the same logits after a mask: by a number of its own, so that what
    /// the mask left has the probabilities of a draw among them alone.
    pub(crate) fn sample_again(&mut self, logits: &mut [f32]) -> Result<u32> {
        const AGAIN: u64 = 1 << 63;
        self.choose_from(logits, uniform(self.config.seed, self.step.wrapping_sub(1) ^ AGAIN))
    }

    fn choose_from(&mut self, logits: &[f32], uniform: f64) -> Result<u32> {
        let (best, best_logit) = first_maximum(logits)?;
        // An infinite logit is certain, and its differences are not numbers.
        if self.config.temperature == 0.0 || self.config.top_k == 1 || best_logit == f32::INFINITY {
            return Ok(best);
        }
        self.collect(logits, best_logit);
        self.keep_top_k();
        self.keep_top_p();
        self.keep_min_p();
        Ok(self.draw(uniform))
    }

    /// Goes on with another sequence's draws: its settings and how many were drawn are all that there is.
    pub(crate) fn resume(&mut self, config: SamplerConfig, step: u64) {
        (self.config, self.step) = (config, step);
    }

    /// How many of the largest logits [`Sampler::sample_top`] needs; `None` where only all of them will do.
    pub(crate) fn candidates_needed(&self) -> Option<usize> {
        let k = if self.config.temperature == 0.0 { 1 } else { self.config.top_k };
        let has_few = (1..=MAX_TOP_K).contains(&k) && self.config.repeat_penalty >= 1.0;
        has_few.then_some(if self.config.repeat_penalty > 1.0 { MAX_TOP_K } else { k })
    }

    /// [`Sampler::sample`] from the best candidates alone, best first: [`Sampler::candidates_needed`] or more of them, or all
    /// there are. `None`, without a draw, where they do not decide: a penalty only lowers logits, so what it leaves above the
    /// least of the list is best of all, but there may be too little of that.
    pub(crate) fn sample_top(&mut self, top: &[(u32, f32)], recent: &[u32]) -> Result<Option<u32>> {
        let Some(needed) = self.candidates_needed() else { return Ok(None) };
        let k = if self.config.temperature == 0.0 { 1 } else { self.config.top_k };
        let (step, top) = (self.step, &top[..needed.min(top.len())]);
        let mut list = [(0, 0.0); MAX_TOP_K];
        let list = &mut list[..top.len()];
        list.copy_from_slice(top);
        if self.config.repeat_penalty != 1.0 {
            let recent = &recent[recent.len().saturating_sub(self.config.repeat_last_n)..];
            for (_, logit) in list.iter_mut().filter(|(id, _)| recent.contains(id)) {
                *logit = penalised(*logit, self.config.repeat_penalty);
            }
            // A list has no NaN; equal logits stay in order of ids.
            list.sort_unstable_by(|a, b| b.1.partial_cmp(&a.1).unwrap_or(Ordering::Equal).then(a.0.cmp(&b.0)));
            let is_all = top.len() < needed;
            let least = top.last().map_or(f32::NEG_INFINITY, |(_, logit)| *logit);
            if !is_all && list.get(k - 1).is_none_or(|(_, logit)| *logit <= least) {
                return Ok(None);
            }
        }
        self.step = self.step.wrapping_add(1);
        self.choose(&list[..k.min(list.len())], step).map(Some)
    }

    /// [`Sampler::sample`] when only `top`, best first, can be chosen.
    fn choose(&mut self, top: &[(u32, f32)], step: u64) -> Result<u32> {
        let &(best, best_logit) = top.first().ok_or_else(no_token)?;
        if top.len() == 1 || self.config.temperature == 0.0 || best_logit == f32::INFINITY {
            return Ok(best);
        }
        self.candidates.clear();
        let weight = self.weights(best_logit);
        self.candidates.extend(top.iter().map(|&(id, logit)| Candidate { logit, weight: weight(logit), id }));
        self.keep_top_p();
        self.keep_min_p();
        Ok(self.draw(uniform(self.config.seed, step)))
    }

    /// What a logit weighs: exp((logit - best) / temperature), so that the best has 1.
    fn weights(&self, best_logit: f32) -> impl Fn(f32) -> f64 {
        let (best, temperature) = (f64::from(best_logit), f64::from(self.config.temperature));
        move |logit| ((f64::from(logit) - best) / temperature).exp()
    }

    /// Lists the possible tokens with their weights.
    fn collect(&mut self, logits: &[f32], best_logit: f32) {
        self.candidates.clear();
        // A vocabulary larger than announced must not reallocate: its tail is never drawn.
        let n = logits.len().min(self.candidates.capacity());
        let weight = self.weights(best_logit);
        for (id, &logit) in logits[..n].iter().enumerate() {
            if logit > f32::NEG_INFINITY {
                self.candidates.push(Candidate { logit, weight: weight(logit), id: id as u32 });
            }
        }
    }

    fn keep_top_k(&mut self) {
        let k = self.config.top_k;
        if k > 0 && k < self.candidates.len() {
            self.candidates.select_nth_unstable_by(k - 1, more_probable);
            self.candidates.truncate(k);
        }
    }

    /// The shortest list of most probable tokens whose probabilities sum to at least top_p. Sorts only as much of the
    /// list as the sum needs: real distributions are peaked, so that is a few hundred of 262,144.
    fn keep_top_p(&mut self) {
        if self.config.top_p >= 1.0 {
            return;
        }
        let total: f64 = self.candidates.iter().map(|c| c.weight).sum();
        let target = f64::from(self.config.top_p) * total;
        let (mut sorted, mut sum) = (0, 0.0);
        let mut block = 256;
        while sorted < self.candidates.len() {
            let rest = &mut self.candidates[sorted..];
            let n = block.min(rest.len());
            if n < rest.len() {
                rest.select_nth_unstable_by(n - 1, more_probable);
            }
            rest[..n].sort_unstable_by(more_probable);
            for (at, candidate) in rest[..n].iter().enumerate() {
                sum += candidate.weight;
                if sum >= target {
                    self.candidates.truncate(sorted + at + 1);
                    return;
                }
            }
            sorted += n;
            block *= 4;
        }
    }

    fn keep_min_p(&mut self) {
        let min_p = f64::from(self.config.min_p);
        if min_p > 0.0 {
            // The best token has weight 1.
            self.candidates.retain(|candidate| candidate.weight >= min_p);
        }
    }

    /// One draw among what is left, in the order of ids: the same on every machine, whatever order the partial
    /// selections left behind.
    fn draw(&mut self, uniform: f64) -> u32 {
        self.candidates.sort_unstable_by_key(|candidate| candidate.id);
        let total: f64 = self.candidates.iter().map(|candidate| candidate.weight).sum();
        let target = uniform * total;
        let mut sum = 0.0;
        let mut last = 0;
        for candidate in self.candidates.iter().filter(|candidate| candidate.weight > 0.0) {
            last = candidate.id;
            sum += candidate.weight;
            if target < sum {
                break;
            }
        }
        last
    }
}

/// By logit, best first; equal ones by id, so that the kept set is the same everywhere.
fn more_probable(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// Each token seen in the last `repeat_last_n` once, as llama.cpp does: divided when positive, multiplied otherwise.
/// `seen` holds one bit per token, all clear before and after.
fn penalise(logits: &mut [f32], recent: &[u32], config: &SamplerConfig, seen: &mut [u64]) {
    let penalty = config.repeat_penalty;
    if penalty == 1.0 {
        return;
    }
    let recent = &recent[recent.len().saturating_sub(config.repeat_last_n)..];
    for &id in recent {
        let (Some(logit), Some(word)) = (logits.get_mut(id as usize), seen.get_mut(id as usize / 64)) else {
            continue;
        };
        let bit = 1 << (id % 64);
        if *word & bit == 0 {
            *word |= bit;
            *logit = penalised(*logit, penalty);
        }
    }
    for &id in recent {
        if let Some(word) = seen.get_mut(id as usize / 64) {
            *word = 0;
        }
    }
}

fn penalised(logit: f32, penalty: f32) -> f32 {
    if logit > 0.0 {
        logit / penalty
    } else {
        logit * penalty
    }
}

/// The lowest id among the greatest logits. NaN is no candidate.
fn first_maximum(logits: &[f32]) -> Result<(u32, f32)> {
    let mut best: Option<(u32, f32)> = None;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.map_or(f32::NEG_INFINITY, |(_, best_logit)| best_logit) {
            best = Some((id as u32, logit));
        }
    }
    best.ok_or_else(no_token)
}

fn no_token() -> Error {
    Error::input("the model's logits are all NaN or minus infinity: no token can be chosen")
}

/// A number in [0, 1) from (seed, step): two rounds of SplitMix64's finaliser, 53 bits.
fn uniform(seed: u64, step: u64) -> f64 {
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    // The seed is mixed first: seeds 1 apart must not give streams 1 apart.
    let key = mix(seed.wrapping_add(0x9E37_79B9_7F4A_7C15));
    let bits = mix(key ^ mix(step.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(0xD1B5_4A32_D192_ED03)));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests;
