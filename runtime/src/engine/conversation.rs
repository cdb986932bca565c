//! A chat: turns in, answers out, and nothing computed twice.
//!
//! A conversation is a value: it writes the request of the next turn, takes its answer, and holds no engine. Several can share
//! one, turn by turn or token by token.

use std::path::Path;

use serde_json::{json, Value};

use crate::engine::answer::{Answer, FinishReason, Timings};
use crate::engine::request::{AdapterChoice, Prompt, Request, SamplingOverrides};
use crate::engine::{Engine, Event, RequestId};
use crate::error::{Error, Result};
use crate::loader::LoadedModel;
use crate::model::session_file::SavedState;
use crate::setting::CONTEXT;
use crate::text::chat_template::{encode_next_turn, Message, Role};

/// What was said so far, and how the conversation is to be led.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// What every turn asks for beside its prompt: instructions, sampling, stop strings, the longest answer, the adapter.
    options: Request,
    /// The turns, without the system's.
    messages: Vec<Message>,
    /// The tokens of all turns as they were computed, up to the last answer's end; empty when they have to be encoded
    /// anew.
    ids: Vec<u32>,
    n_tokens: usize,
    /// Numbers of the seed's stream that the answers drew.
    n_drawn: u64,
    /// The last request, by which the engine knows what it still holds.
    last_request: Option<RequestId>,
    last: Option<Timings>,
}

/// A turn that was asked and is not yet answered.
#[derive(Clone, Debug)]
pub struct Turn {
    text: String,
    prompt: Vec<u32>,
}

impl Conversation {
    /// An empty conversation. The prompt of `options` does not matter.
    pub fn new(options: Request) -> Self {
        Conversation { options, ..Conversation::default() }
    }

    /// The request of the next turn, and what [`Conversation::finish`] takes back with its answer.
    ///
    /// # Errors
    /// The turn does not fit the context, or the model has no tokenizer or no template that takes it.
    pub fn turn(&self, model: &LoadedModel, text: &str) -> Result<(Request, Turn)> {
        let prompt = self.prompt(model, text)?;
        let context = model.plan.limits.context;
        if prompt.len() >= context {
            return Err(Error::limit(format!(
                "the conversation is {} tokens long with this turn, and the context is {context}: start over, or use a \
                 larger {CONTEXT} (the model allows {})",
                prompt.len(),
                model.model.config.context_length
            )));
        }
        let request = Request { prompt: Prompt::Tokens(prompt.clone()), n_drawn: self.n_drawn, ..self.options.clone() };
        Ok((request, Turn { text: text.to_string(), prompt }))
    }

    /// Takes the answer of a turn. One that was stopped before its first character leaves the conversation as it was.
    pub fn finish(&mut self, model: &LoadedModel, turn: Turn, id: RequestId, answer: &Answer) {
        self.last = Some(answer.timings);
        // One that never got a slot leaves what was there before.
        if answer.timings.reused_tokens > 0 || answer.timings.prefill_s > 0.0 {
            self.last_request = Some(id);
        }
        self.n_drawn = self.n_drawn.wrapping_add(answer.token_ids.len() as u64);
        if answer.finish_reason == FinishReason::Cancel && answer.text.is_empty() {
            return;
        }
        self.messages.push(Message::user(turn.text));
        self.messages.push(Message::assistant(answer.text.clone()));
        self.ids.clear();
        let ended_by_token = answer.token_ids.last().is_some_and(|id| model.stop_ids.contains(*id));
        // After a stop string the tokens say more than the answer does: those turns are encoded anew.
        if ended_by_token || answer.finish_reason != FinishReason::Stop {
            self.ids = turn.prompt;
            self.ids.extend_from_slice(&answer.token_ids);
            if ended_by_token {
                self.ids.pop();
            }
        }
        self.n_tokens = match self.ids.len() {
            0 => answer.timings.prompt_tokens + answer.token_ids.len(),
            n => n,
        };
    }

    /// Answers `text` on an engine that has nothing else under way. `should_stop` is asked before every chunk and token.
    ///
    /// # Errors
    /// The turn does not fit what is left of the context; the conversation is as it was.
    pub fn ask(
        &mut self,
        engine: &mut Engine,
        text: &str,
        on_text: &mut dyn FnMut(&str),
        should_stop: &mut dyn FnMut() -> bool,
    ) -> Result<Answer> {
        let model = engine.model().clone();
        let (request, turn) = self.turn(&model, text)?;
        let mut on_event = |event: Event<'_>| {
            if let Event::Text { text, .. } = event {
                on_text(text);
            }
        };
        let (id, answer) = engine.run(request, &mut on_event, should_stop)?;
        self.finish(&model, turn, id, &answer);
        Ok(answer)
    }

    /// The tokens of everything said so far and of `text`.
    fn prompt(&self, model: &LoadedModel, text: &str) -> Result<Vec<u32>> {
        let (tokenizer, template) = (model.tokenizer()?, model.chat_template()?);
        let mut messages: Vec<Message> = self.options.system.iter().map(Message::system).collect();
        messages.extend(self.messages.iter().cloned());
        encode_next_turn(tokenizer, template, &self.ids, &messages, text, &self.options.encoding())
    }

    /// Forgets every turn; the system text stays.
    pub fn reset(&mut self) {
        self.messages.clear();
        self.ids.clear();
        self.n_tokens = 0;
        self.last = None;
        // What the engine still holds is not this conversation's any more.
        self.last_request = None;
    }

    /// Starts over with other instructions.
    pub fn set_system(&mut self, system: Option<String>) {
        self.reset();
        self.options.system = system;
    }

    /// Goes on with another adapter, or none. What was said stays; its keys and values are computed again.
    pub fn set_adapter(&mut self, adapter: AdapterChoice) {
        self.options.adapter = adapter;
    }

    /// Writes the turns, and the keys and values that the engine still holds of them, to `path`.
    pub fn save(&self, engine: &mut Engine, path: &Path) -> Result<()> {
        let turns: Vec<Value> =
            self.messages.iter().map(|m| json!({"role": m.role.name(), "content": m.content})).collect();
        let note = json!({"system": self.options.system, "messages": turns, "ids": self.ids}).to_string();
        let model = engine.model().clone();
        let seed = self.options.sampling.seed.or(engine.defaults().sampling.seed);
        let sampler_seed = seed.unwrap_or(model.default_sampling.seed);
        let state = SavedState { sampler_seed, sampler_step: self.n_drawn, note };
        engine.save(self.last_request, &self.options.adapter, &state, path)
    }

    /// Goes on with a saved conversation exactly where it stopped. On an error about the file the conversation is as it
    /// was.
    ///
    /// # Errors
    /// The file is damaged, or was saved with another model, adapter, template or cache format.
    pub fn load(&mut self, engine: &mut Engine, path: &Path) -> Result<()> {
        let (id, state) = engine.restore(&self.options.adapter, self.options.tenant, path)?;
        let Some(turns) = Turns::parse(&state.note) else {
            return Err(Error::input("holds a session without a conversation").in_file(path));
        };
        self.options.system = turns.system;
        self.messages = turns.messages;
        self.ids = turns.ids;
        self.n_tokens = self.ids.len();
        self.last = None;
        self.last_request = Some(id);
        self.options.sampling = SamplingOverrides { seed: Some(state.sampler_seed), ..self.options.sampling };
        self.n_drawn = state.sampler_step;
        Ok(())
    }

    pub fn system(&self) -> Option<&str> {
        self.options.system.as_deref()
    }

    /// The turns, without the system's.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Tokens of all turns.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
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
