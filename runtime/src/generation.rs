//! From a prompt to an answer: prefill, sample, stream, stop.

use std::ops::ControlFlow;
use std::time::Instant;

use crate::error::Result;
use crate::sampler::Sampler;
use crate::session::Session;
use crate::stop::{StopIds, StopStrings};
use crate::tokenizer::{StreamDecoder, Tokenizer};

/// Why an answer ended; the names are OpenAI's, `cancel` is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// `max_new_tokens`, or the context is full.
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

/// What to generate.
pub struct Request<'a> {
    /// The whole prompt; what the session already holds of it is not computed again.
    pub prompt: &'a [u32],
    pub max_new_tokens: usize,
    /// Tokens that end the answer.
    pub stop_ids: &'a StopIds,
    /// Texts that end the answer; they are not part of it.
    pub stop: &'a [String],
}

/// Where the time went.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    pub prompt_tokens: usize,
    /// Of these, how many the session already held.
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

/// A finished answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Every token sampled, an end token included.
    pub token_ids: Vec<u32>,
    /// Their text, without end tokens and stop strings.
    pub text: String,
    pub finish_reason: FinishReason,
    pub timings: Timings,
}

/// Generates an answer. `on_text` gets each piece of text as soon as it is certain (whole characters, no part of a stop
/// string) and is also asked, with "", before every token and prefill chunk: `Break` ends the answer there.
///
/// Without a tokenizer there is no text: token ids alone.
pub fn generate(
    session: &mut Session,
    tokenizer: Option<&Tokenizer>,
    sampler: &mut Sampler,
    request: &Request<'_>,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<Answer> {
    let start = Instant::now();
    let reused_tokens = session.prompt(request.prompt, &mut || on_text(""))?;
    let mut timings = Timings {
        prompt_tokens: request.prompt.len(),
        reused_tokens,
        prefill_s: start.elapsed().as_secs_f64(),
        ..Timings::default()
    };
    let mut token_ids = Vec::with_capacity(request.max_new_tokens.min(session.room() + 1));
    let mut text = TextStream::new(tokenizer, request.stop)?;
    let complete = session.tokens().len() == request.prompt.len();
    let decode_start = Instant::now();
    let finish_reason = if complete {
        decode(session, sampler, request, &mut token_ids, &mut text, on_text)?
    } else {
        FinishReason::Cancel
    };
    timings.new_tokens = token_ids.len();
    timings.decode_s = decode_start.elapsed().as_secs_f64();
    text.finish(on_text);
    Ok(Answer { token_ids, text: text.text, finish_reason, timings })
}

fn decode(
    session: &mut Session,
    sampler: &mut Sampler,
    request: &Request<'_>,
    token_ids: &mut Vec<u32>,
    text: &mut TextStream<'_>,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
) -> Result<FinishReason> {
    // The session's tokens cannot be lent beside its logits: the sampler sees the last of them, copied once.
    let mut recent = Vec::with_capacity(request.prompt.len() + request.max_new_tokens.min(session.room() + 1));
    recent.extend_from_slice(request.prompt);
    while token_ids.len() < request.max_new_tokens {
        if on_text("").is_break() {
            return Ok(FinishReason::Cancel);
        }
        let token = sampler.next(session, &recent)?;
        token_ids.push(token);
        if request.stop_ids.contains(token) {
            return Ok(FinishReason::Stop);
        }
        recent.push(token);
        match text.push(token, on_text) {
            Next::Stop => return Ok(FinishReason::Stop),
            Next::Cancel => return Ok(FinishReason::Cancel),
            Next::More => {}
        }
        if token_ids.len() < request.max_new_tokens {
            if session.room() == 0 {
                return Ok(FinishReason::Length);
            }
            session.decode(token)?;
        }
    }
    Ok(FinishReason::Length)
}

/// Tokens in, certain text out.
pub(crate) struct TextStream<'a> {
    decoder: Option<StreamDecoder<'a>>,
    stop: StopStrings,
    text: String,
}

pub(crate) enum Next {
    More,
    Stop,
    Cancel,
}

impl<'a> TextStream<'a> {
    pub fn new(tokenizer: Option<&'a Tokenizer>, stop: &[String]) -> Result<Self> {
        let stop = StopStrings::new(stop.to_vec())?;
        Ok(TextStream { decoder: tokenizer.map(StreamDecoder::new), stop, text: String::new() })
    }

    pub fn push(&mut self, token: u32, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Next {
        let Some(decoder) = &mut self.decoder else { return Next::More };
        let piece = decoder.push(token);
        self.emit(&piece, on_text)
    }

    fn emit(&mut self, piece: &str, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Next {
        if piece.is_empty() {
            return Next::More;
        }
        let certain = self.stop.push(piece);
        self.text.push_str(&certain);
        let flow = if certain.is_empty() { ControlFlow::Continue(()) } else { on_text(&certain) };
        if self.stop.stopped() {
            return Next::Stop;
        }
        if flow.is_break() {
            Next::Cancel
        } else {
            Next::More
        }
    }

    /// Emits what was held back: half a stop string, an unfinished character.
    pub fn finish(&mut self, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) {
        if self.stop.stopped() {
            return;
        }
        let tail = self.decoder.as_mut().map(|d| d.finish()).unwrap_or_default();
        if matches!(self.emit(&tail, on_text), Next::Stop) {
            return;
        }
        let held = self.stop.finish();
        if !held.is_empty() {
            self.text.push_str(&held);
            // The answer is over: whether the caller wants more no longer matters.
            let _ = on_text(&held);
        }
    }
    /// All that was certain.
    pub fn into_text(self) -> String {
        self.text
    }
}
