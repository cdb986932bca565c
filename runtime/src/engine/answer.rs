//! What comes of a request: its text, why it ended, where the time went.

use crate::setting::Setting;

/// Why an answer ended; the names are OpenAI's, `cancel` is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// `max_new_tokens`, the time it may take, or the context is full.
    Length,
    /// The caller stopped it.
    Cancel,
}

impl FinishReason {
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancel => "cancel",
        }
    }
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    pub prompt_tokens: usize,
    /// Of these, how many were held from before.
    pub reused_tokens: usize,
    pub prefill_s: f64,
    pub new_tokens: usize,
    pub decode_s: f64,
}

impl Timings {
    /// 0 when nothing was computed.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        rate(self.prompt_tokens - self.reused_tokens, self.prefill_s)
    }

    /// Tokens after the first, which the prefill gives.
    pub fn decode_tokens_per_s(&self) -> f64 {
        rate(self.new_tokens.saturating_sub(1), self.decode_s)
    }
}

fn rate(n: usize, seconds: f64) -> f64 {
    if seconds > 0.0 {
        n as f64 / seconds
    } else {
        0.0
    }
}

/// A token and how probable it was.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    pub token: u32,
    /// Natural logarithm of its probability in the model's own distribution, before penalties, temperature and filters.
    pub logprob: f32,
}

/// A token of an answer and those that might have been in its place.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprobs {
    pub chosen: TokenLogprob,
    /// The most probable, best first; the chosen one is among them where it is one of them.
    pub top: Vec<TokenLogprob>,
}

/// A setting of a request that a limit made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamped {
    pub setting: Setting,
    pub asked: u64,
    pub given: u64,
}

/// A finished answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Every token sampled, an end token included.
    pub token_ids: Vec<u32>,
    /// Their text, without end tokens and stop strings.
    pub text: String,
    pub finish_reason: FinishReason,
    pub timings: Timings,
    /// One for each token, where they were asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// What the request asked more of than it got.
    pub clamped: Vec<Clamped>,
}

impl Answer {
    /// An answer without a token.
    pub(crate) fn empty(prompt_tokens: usize, finish_reason: FinishReason) -> Answer {
        Answer {
            token_ids: Vec::new(),
            text: String::new(),
            finish_reason,
            timings: Timings { prompt_tokens, ..Timings::default() },
            logprobs: Vec::new(),
            clamped: Vec::new(),
        }
    }
}
