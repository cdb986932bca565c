//! A chat: turns in, answers out, and nothing computed twice.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use serde_json::{json, Value};

use crate::adapter::Adapter;
use crate::chat_template::{encode_chat, encode_continuation, ChatTemplate, Message, Role};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::generation::{generate, Answer, FinishReason, Request, Timings};
use crate::sampler::{Sampler, SamplerConfig};
use crate::session::Session;
use crate::session_file::{self, SavedState};
use crate::setting::CONTEXT;
use crate::stop::StopIds;

/// How a conversation is to be led.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    pub system: Option<String>,
    pub sampling: SamplerConfig,
    /// Longest answer.
    pub max_new_tokens: usize,
    /// Texts that end an answer.
    pub stop: Vec<String>,
}

/// A model and what was said so far.
pub struct Conversation<'e> {
    engine: &'e Engine,
    template: ChatTemplate,
    stop_ids: StopIds,
    session: Session,
    sampler: Sampler,
    options: ChatOptions,
    /// The turns, without the system's.
    messages: Vec<Message>,
    /// The tokens of all turns as they were computed, up to the last answer's end; empty when they have to be encoded
    /// anew.
    ids: Vec<u32>,
    last: Option<Timings>,
}

impl<'e> Conversation<'e> {
    /// # Errors: the model has no tokenizer or a template that cannot be used, or an option is out of range.
    pub fn new(engine: &'e Engine, options: ChatOptions) -> Result<Self> {
        Ok(Conversation {
            template: engine.chat_template()?,
            stop_ids: engine.stop_ids(),
            session: engine.session()?,
            sampler: Sampler::new(options.sampling, engine.model.config.vocab_size)?,
            engine,
            options,
            messages: Vec::new(),
            ids: Vec::new(),
            last: None,
        })
    }

    /// Answers `text`. `on_text` is that of [`generate`]. An answer that was stopped before its first character leaves
    /// the conversation as it was.
    ///
    /// # Errors
    /// The turn does not fit what is left of the context; the conversation is as it was.
    pub fn ask(&mut self, text: &str, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<Answer> {
        let prompt = self.prompt(text)?;
        let context = self.session.limits().context;
        if prompt.len() >= context {
            return Err(Error::limit(format!(
                "the conversation is {} tokens long with this turn, and the context is {context}: start over, or use a \
                 larger {CONTEXT} (the model allows {})",
                prompt.len(),
                self.engine.model.config.context_length
            )));
        }
        let request = Request {
            prompt: &prompt,
            max_new_tokens: self.options.max_new_tokens,
            stop_ids: &self.stop_ids,
            stop: &self.options.stop,
        };
        let tokenizer = self.engine.tokenizer()?;
        let answer = generate(&mut self.session, Some(tokenizer), &mut self.sampler, &request, on_text)?;
        self.last = Some(answer.timings);
        if answer.finish_reason == FinishReason::Cancel && answer.text.is_empty() {
            return Ok(answer);
        }
        self.messages.push(Message::user(text));
        self.messages.push(Message::assistant(answer.text.clone()));
        self.ids.clear();
        let ended_by_token = answer.token_ids.last().is_some_and(|id| self.stop_ids.contains(*id));
        // After a stop string the tokens say more than the answer does: those turns are encoded anew.
        if ended_by_token || answer.finish_reason != FinishReason::Stop {
            self.ids.extend_from_slice(&prompt);
            self.ids.extend_from_slice(&answer.token_ids);
            if ended_by_token {
                self.ids.pop();
            }
        }
        Ok(answer)
    }

    /// The tokens of everything said so far and of `text`.
    fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let tokenizer = self.engine.tokenizer()?;
        let mut messages: Vec<Message> = self.options.system.iter().map(Message::system).collect();
        messages.extend(self.messages.iter().cloned());
        if !self.ids.is_empty() {
            // A template that cannot say what follows an answer costs time, not correctness.
            if let Ok(more) = encode_continuation(tokenizer, &self.template, &messages, text) {
                return Ok([self.ids.as_slice(), more.as_slice()].concat());
            }
        }
        messages.push(Message::user(text));
        encode_chat(tokenizer, &self.template, &messages, true)
    }

    /// Forgets every turn; the system text stays.
    pub fn reset(&mut self) {
        self.session.reset();
        self.messages.clear();
        self.ids.clear();
        self.last = None;
    }

    /// Starts over with other instructions.
    pub fn set_system(&mut self, system: Option<String>) {
        self.reset();
        self.options.system = system;
    }

    /// Goes on with another adapter, or none. What was said stays; its keys and values are computed again.
    ///
    /// # Errors
    /// The device has no room.
    pub fn set_adapter(&mut self, adapter: Option<Arc<Adapter>>) -> Result<()> {
        self.session.set_adapter(adapter)
    }

    /// Writes the turns, and the keys and values computed for them, to `path`.
    pub fn save(&self, path: &Path) -> Result<()> {
        let turns: Vec<Value> =
            self.messages.iter().map(|m| json!({"role": m.role.name(), "content": m.content})).collect();
        let note = json!({"system": self.options.system, "messages": turns, "ids": self.ids}).to_string();
        let (sampler_seed, sampler_step) = (self.sampler.config().seed, self.sampler.step());
        let state = SavedState { sampler_seed, sampler_step, note };
        session_file::save(&self.session, self.template.identity(), &state, path)
    }

    /// Goes on with a saved conversation exactly where it stopped. On an error about the file the conversation is as it
    /// was.
    ///
    /// # Errors
    /// The file is damaged, or was saved with another model, adapter, template or cache format.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let state = session_file::load(&mut self.session, self.template.identity(), path)?;
        let Some(turns) = Turns::parse(&state.note) else {
            self.reset();
            return Err(Error::input("holds a session without a conversation").in_file(path));
        };
        self.options.system = turns.system;
        self.messages = turns.messages;
        self.ids = turns.ids;
        self.last = None;
        let config = SamplerConfig { seed: state.sampler_seed, ..*self.sampler.config() };
        self.sampler = Sampler::new(config, self.engine.model.config.vocab_size)?;
        self.sampler.set_step(state.sampler_step);
        Ok(())
    }

    pub fn system(&self) -> Option<&str> {
        self.options.system.as_deref()
    }

    /// The turns, without the system's.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Where the time of the last answer went.
    pub fn last_timings(&self) -> Option<&Timings> {
        self.last.as_ref()
    }
}

/// What a saved session's note holds.
struct Turns {
    system: Option<String>,
    messages: Vec<Message>,
    ids: Vec<u32>,
}

impl Turns {
    fn parse(note: &str) -> Option<Turns> {
        let note: Value = serde_json::from_str(note).ok()?;
        let message =
            |turn: &Value| Some(Message::new(Role::parse(turn["role"].as_str()?)?, turn["content"].as_str()?));
        Some(Turns {
            system: note["system"].as_str().map(str::to_string),
            messages: note["messages"].as_array()?.iter().map(message).collect::<Option<_>>()?,
            ids: note["ids"].as_array()?.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect::<Option<_>>()?,
        })
    }
}
