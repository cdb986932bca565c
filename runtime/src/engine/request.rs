//! One request: what is asked, and what it wants otherwise than the model and the program have it. A terminal, a line of a
//! file, a message on a wire and a C structure are ways to write the same thing.

use std::time::Duration;

use crate::engine::answer::Clamped;
use crate::error::{Error, Result};
use crate::limits::Limits;
use crate::loader::LoadedModel;
use crate::sampler::SamplerConfig;
pub use crate::sampler::SamplingOverrides;
use crate::setting::{CONTEXT, LOGPROBS, MAX_NEW_TOKENS, STOP, STOP_TOKENS, TIME_LIMIT_MS};
use crate::text::chat_template::{encode_with, ChatTemplate, Encoding, Message, Role};
use crate::text::stop::{StopIds, StopStrings};
use crate::text::tokenizer::Tokenizer;

/// Longest answer unless told otherwise.
pub const DEFAULT_MAX_NEW_TOKENS: usize = 512;
/// Most candidates whose probabilities a request may ask for, as OpenAI has it.
pub const TOP_LOGPROBS_MAX: usize = 20;
/// More would make every token wait.
const STOP_TOKENS_MAX: usize = 1024;

/// What is asked. Everything that is `None` is taken from the program's defaults, then from the model's.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub prompt: Prompt,
    /// Instructions in front of a text, or of messages that do not begin with some.
    pub system: Option<String>,
    /// Functions that the model may call, each as the chat template wants it (OpenAI's `{"type": "function", ..}`).
    pub tools: Vec<serde_json::Value>,
    pub sampling: SamplingOverrides,
    /// How many numbers of the seed's stream earlier turns have drawn: a conversation goes on with the next one.
    pub n_drawn: u64,
    /// Control tokens that are written out in the prompt become tokens; else they are text like any other. For prompts that
    /// are trusted: whoever writes one can then write the other side's turns too.
    pub parse_special: bool,
    /// Texts that end the answer; they are not part of it. One that is a control token ends it where the model writes that.
    pub stop: Option<Vec<String>>,
    /// Tokens that end the answer, beside the model's own.
    pub stop_tokens: Vec<u32>,
    /// The model's own end tokens do not end the answer.
    pub ignore_eos: bool,
    pub max_new_tokens: Option<usize>,
    /// The answer ends once it has taken this long, its prompt included; waiting for a slot does not count.
    pub time_limit: Option<Duration>,
    pub adapter: AdapterChoice,
    /// Ask for the log-probability of every token of the answer, and of so many candidates in its place.
    pub logprobs: Option<usize>,
    /// Whose request it is: nothing that was computed for one tenant serves another.
    pub tenant: u64,
}

/// What the model reads.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    /// A user's turn, put into the chat template.
    Text(String),
    /// Text as it is, behind BOS where the model wants one.
    Raw(String),
    /// A conversation, put into the chat template.
    Messages(Vec<Message>),
    /// Token ids, as they are.
    Tokens(Vec<u32>),
}

impl Default for Prompt {
    fn default() -> Self {
        Prompt::Tokens(Vec::new())
    }
}

/// Which adapter answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The one the engine was opened with, if any.
    #[default]
    Default,
    /// The model alone.
    Base,
    /// One that is loaded under this name.
    Named(String),
}

/// What a program allows every request: more is clamped, and the answer says so.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RequestLimits {
    pub max_new_tokens: Option<usize>,
    pub time_limit: Option<Duration>,
}

/// What the engine runs: every choice made, every value in range.
#[derive(Clone, Debug)]
pub struct ResolvedRequest {
    pub prompt: Vec<u32>,
    /// Tokens of the answer at most, as far as the context reaches. The last one needs no position.
    pub max_new_tokens: usize,
    pub time_limit: Option<Duration>,
    pub sampling: SamplerConfig,
    pub n_drawn: u64,
    pub stop: Vec<String>,
    pub stop_ids: StopIds,
    pub logprobs: Option<usize>,
    pub tenant: u64,
    pub clamped: Vec<Clamped>,
}

impl Request {
    /// A user's turn.
    pub fn text(text: impl Into<String>) -> Request {
        Request { prompt: Prompt::Text(text.into()), ..Request::default() }
    }

    /// Token ids, as they are.
    pub fn tokens(ids: impl Into<Vec<u32>>) -> Request {
        Request { prompt: Prompt::Tokens(ids.into()), ..Request::default() }
    }

    /// This request, and what `defaults` say where it says nothing. Prompt, draws and tenant are its own.
    pub fn with_defaults(mut self, defaults: &Request) -> Request {
        self.system = self.system.or_else(|| defaults.system.clone());
        if self.tools.is_empty() {
            self.tools.clone_from(&defaults.tools);
        }
        self.sampling = self.sampling.or(defaults.sampling);
        self.parse_special |= defaults.parse_special;
        self.stop = self.stop.or_else(|| defaults.stop.clone());
        if self.stop_tokens.is_empty() {
            self.stop_tokens.clone_from(&defaults.stop_tokens);
        }
        self.ignore_eos |= defaults.ignore_eos;
        self.max_new_tokens = self.max_new_tokens.or(defaults.max_new_tokens);
        self.time_limit = self.time_limit.or(defaults.time_limit);
        if self.adapter == AdapterChoice::Default {
            self.adapter.clone_from(&defaults.adapter);
        }
        self.logprobs = self.logprobs.or(defaults.logprobs);
        self
    }

    /// Refuses values out of range, as far as they can be told without a model.
    ///
    /// # Errors
    /// Which setting, its value and its range.
    pub fn check(&self) -> Result<()> {
        self.sampling.resolve(SamplerConfig::default()).check()?;
        StopStrings::check(self.stop.as_deref().unwrap_or_default())?;
        if let Some(n) = self.logprobs.filter(|n| *n > TOP_LOGPROBS_MAX) {
            return Err(Error::usage(format!("{LOGPROBS} is {n}; 0 to {TOP_LOGPROBS_MAX}")));
        }
        if self.stop_tokens.len() > STOP_TOKENS_MAX {
            let n = self.stop_tokens.len();
            return Err(Error::usage(format!("{STOP_TOKENS} has {n} tokens; at most {STOP_TOKENS_MAX}")));
        }
        Ok(())
    }

    /// Makes every choice: the prompt's tokens, the model's own sampling where nothing else is said, what the limits leave.
    ///
    /// # Errors
    /// It could never be answered: the prompt is empty, passes the context or has ids outside the vocabulary, the model has
    /// no tokenizer for it, or a setting is out of range.
    pub fn resolve(&self, model: &LoadedModel, limits: &Limits, allowed: &RequestLimits) -> Result<ResolvedRequest> {
        self.check()?;
        let prompt = self.encode(model)?;
        check_tokens(&prompt, model, limits)?;
        let mut clamped = Vec::new();
        let wanted = self.max_new_tokens.unwrap_or(DEFAULT_MAX_NEW_TOKENS);
        let max_new_tokens =
            wanted.min(limits.context + 1 - prompt.len()).min(allowed.max_new_tokens.unwrap_or(usize::MAX));
        if self.max_new_tokens.is_some() && max_new_tokens < wanted {
            let (asked, given) = (wanted as u64, max_new_tokens as u64);
            clamped.push(Clamped { setting: MAX_NEW_TOKENS, asked, given });
        }
        let time_limit = [self.time_limit, allowed.time_limit].into_iter().flatten().min();
        if let (Some(asked), Some(given)) = (self.time_limit, time_limit.filter(|given| Some(*given) < self.time_limit))
        {
            let [asked, given] = [asked, given].map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
            clamped.push(Clamped { setting: TIME_LIMIT_MS, asked, given });
        }
        let own = if self.ignore_eos { &[] } else { model.stop_ids.ids() };
        let stop = self.stop.clone().unwrap_or_default();
        let written_out = model.tokenizer.as_deref().map(|tokenizer| control_stops(tokenizer, &stop)).transpose()?;
        let asked = self.stop_tokens.iter().copied().chain(written_out.unwrap_or_default());
        Ok(ResolvedRequest {
            prompt,
            max_new_tokens,
            time_limit,
            sampling: self.sampling.resolve(model.default_sampling),
            n_drawn: self.n_drawn,
            stop,
            stop_ids: StopIds::new(own.iter().copied().chain(asked).collect()),
            logprobs: self.logprobs,
            tenant: self.tenant,
            clamped,
        })
    }

    /// The tokens of the prompt.
    ///
    /// # Errors
    /// The model has no tokenizer, or a template that does not take these messages.
    pub fn encode(&self, model: &LoadedModel) -> Result<Vec<u32>> {
        match &self.prompt {
            Prompt::Tokens(ids) => Ok(ids.clone()),
            _ => self.encode_by(model.tokenizer()?, || model.chat_template()),
        }
    }

    /// The same without a model whose weights are there. The template is asked for where it is needed.
    ///
    /// # Errors
    /// The template does not take these messages, or cannot be had.
    pub fn encode_by<'a>(
        &self,
        tokenizer: &Tokenizer,
        template: impl FnOnce() -> Result<&'a ChatTemplate>,
    ) -> Result<Vec<u32>> {
        let mut messages = match &self.prompt {
            Prompt::Tokens(ids) => return Ok(ids.clone()),
            Prompt::Raw(text) => return encode_raw(tokenizer, text, self.parse_special),
            Prompt::Text(text) => vec![Message::user(text)],
            Prompt::Messages(messages) => messages.clone(),
        };
        if messages.first().is_none_or(|first| first.role != Role::System) {
            messages.splice(0..0, self.system.as_ref().map(Message::system));
        }
        encode_with(tokenizer, template()?, &messages, &self.encoding())
    }

    /// What to say of a prompt without a template that holds control tokens written out; `None` where it holds none, or where
    /// they are read as tokens.
    pub fn control_text_note(&self, tokenizer: &Tokenizer) -> Option<String> {
        const SHOWN_MAX: usize = 3;
        let Prompt::Raw(text) = &self.prompt else { return None };
        let found = if self.parse_special { Vec::new() } else { tokenizer.control_texts(text) };
        let more = if found.len() > SHOWN_MAX { ", .." } else { "" };
        let shown = found.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
        (!shown.is_empty()).then(|| format!("control tokens written out ({shown}{more}) are read as text"))
    }

    /// How its messages are written.
    pub(crate) fn encoding(&self) -> Encoding<'_> {
        Encoding { tools: &self.tools, add_generation_prompt: true, parse_special: self.parse_special }
    }
}

/// Text as it is, behind BOS where the model wants one; `parse_special`: control tokens written out in it become tokens, and
/// a BOS among them that stands in front is the one.
pub fn encode_raw(tokenizer: &Tokenizer, text: &str, parse_special: bool) -> Result<Vec<u32>> {
    let ids = match parse_special {
        true => tokenizer.encode_with_markers(text)?,
        false => tokenizer.encode(text)?,
    };
    let bos = tokenizer.bos_id().filter(|bos| tokenizer.add_bos() && ids.first() != Some(bos));
    Ok(bos.into_iter().chain(ids).collect())
}

/// The control tokens among stop strings, which as text would never come.
///
/// # Errors
/// One stands beside other text: that is neither a text nor a token.
fn control_stops(tokenizer: &Tokenizer, stop: &[String]) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for text in stop {
        // A line feed before or behind it comes with it or not at all.
        match tokenizer.token_id(text.trim()).filter(|id| tokenizer.is_control(*id)) {
            Some(id) => ids.push(id),
            None => {
                if let Some(token) = tokenizer.hidden_texts(text).first() {
                    return Err(Error::usage(format!(
                        "{STOP} is {text:?}, and no text holds {token:?}, which is a control token: it can be a stop of its own"
                    )));
                }
            }
        }
    }
    Ok(ids)
}

fn check_tokens(prompt: &[u32], model: &LoadedModel, limits: &Limits) -> Result<()> {
    let (n, config) = (prompt.len(), &model.model.config);
    if n == 0 {
        return Err(Error::input("the prompt is empty: there is no token to start from"));
    }
    if let Some(id) = prompt.iter().find(|id| **id as usize >= config.vocab_size) {
        return Err(Error::input(format!("token {id} is outside the vocabulary of {}", config.vocab_size)));
    }
    if n > limits.context {
        return Err(Error::limit(format!(
            "the prompt has {n} tokens, and the context {} positions (raise {CONTEXT}, the model allows {})",
            limits.context, config.context_length
        )));
    }
    Ok(())
}

mod settings;
#[cfg(test)]
mod tests;

pub use settings::REQUEST_SETTINGS;
