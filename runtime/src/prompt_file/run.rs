//! From a file of prompts to a file of answers: lines in, answers out as they are finished, each line once.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::source::{Next, Source};
use super::{answer_line, AnswerFile, Answered, Numbered, PromptLine};
use crate::engine::answer::Answer;
use crate::engine::request::{Prompt, Request};
use crate::engine::{Engine, Event, RequestId};
use crate::error::{Error, Result};
use crate::setting::{MESSAGES, PROMPT, SYSTEM, TOOLS};
use crate::text::tokenizer::Tokenizer;

/// What answers the requests of a file: an engine here, or something far away. Several are under way at once, and their
/// answers come in any order.
pub trait Answerer {
    /// What it calls a request.
    type Id: Copy + Eq + std::hash::Hash;

    /// True when one more request would not wait behind others.
    fn wants_more(&self) -> bool;

    /// Requests that are not answered yet.
    fn n_pending(&self) -> usize;

    /// # Errors
    /// The request could never be answered.
    fn submit(&mut self, request: Request) -> Result<Self::Id>;

    /// Goes on a little; what is finished goes to `done`. False when there is nothing to do.
    ///
    /// # Errors
    /// No request can go on.
    fn step(&mut self, done: &mut dyn FnMut(Self::Id, Result<Answer>)) -> Result<bool>;
}

impl Answerer for Engine {
    type Id = RequestId;

    fn wants_more(&self) -> bool {
        Engine::wants_more(self)
    }

    fn n_pending(&self) -> usize {
        self.n_running() + self.n_waiting()
    }

    fn submit(&mut self, request: Request) -> Result<RequestId> {
        Engine::submit(self, request)
    }

    fn step(&mut self, done: &mut dyn FnMut(RequestId, Result<Answer>)) -> Result<bool> {
        Engine::step(self, &mut |event| match event {
            Event::Done { id, answer } => done(id, Ok(answer)),
            Event::Failed { id, error } => done(id, Err(error)),
            Event::Started { .. } | Event::Text { .. } => {}
        })
    }
}

/// Where lines of answers go.
pub trait Output {
    /// # Errors
    /// It cannot be written.
    fn write(&mut self, line: String) -> Result<()>;

    /// # Errors
    /// What was written is not safe.
    fn flush(&mut self) -> Result<()>;
}

impl Output for AnswerFile {
    fn write(&mut self, line: String) -> Result<()> {
        AnswerFile::write(self, line)
    }

    fn flush(&mut self) -> Result<()> {
        AnswerFile::flush(self)
    }
}

/// Who watches a run.
pub trait Observer {
    /// True when the run is to finish what has begun and end.
    fn wants_to_stop(&self) -> bool;

    /// It stops, and so many answers are finished first.
    fn stopping(&mut self, n_pending: usize);

    /// A line is left out, and why.
    fn refused(&mut self, error: &Error);

    /// At the end: fields of the file's lines that are no settings and went over to the answers as they are, and in how many
    /// lines each stands.
    fn unrecognised(&mut self, fields: &[(String, u64)]);

    /// At the end: so many prompts without a template hold control tokens that are written out, and are read as text;
    /// `note` says of the line `first` which.
    fn control_texts(&mut self, n_lines: u64, first: u64, note: &str);

    /// After every step.
    fn progress(&mut self, counts: &Counts, source: &Source);
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub n_answers: u64,
    /// Lines that an earlier run answered.
    pub n_skipped: u64,
    /// Lines that cannot be answered.
    pub n_bad: u64,
    pub n_prompt_tokens: u64,
    pub n_new_tokens: u64,
    pub seconds: f64,
}

impl Counts {
    pub fn tokens_per_s(&self) -> f64 {
        self.n_new_tokens as f64 / self.seconds.max(1e-9)
    }
}

/// A run over one file.
pub struct PromptRun<'a> {
    /// What lines get that say nothing themselves. Line N draws with its seed, N - 1 later.
    pub defaults: Request,
    /// Prompts are text as it is, without the chat template.
    pub raw: bool,
    /// Answers have text where there is one.
    pub tokenizer: Option<&'a Tokenizer>,
    pub answered: Answered,
    pub out: &'a mut dyn Output,
    pub observer: &'a mut dyn Observer,
}

/// A run while it goes on.
struct Running<'r, 'a, Id> {
    run: &'r mut PromptRun<'a>,
    /// Prompts whose answers are not finished, and the seeds they draw with.
    pending: HashMap<Id, (PromptLine, u64)>,
    counts: Counts,
    /// Why an answer could not be written.
    failed: Option<Error>,
    unrecognised: BTreeMap<String, u64>,
    /// Lines with control tokens written out: how many, the first, and what it holds.
    control_texts: Option<(u64, u64, String)>,
}

/// More names than these are not listed.
const NAMES_MAX: usize = 32;

impl PromptRun<'_> {
    /// Answers every line that has no answer yet. True when it was stopped before the end. What was answered is flushed,
    /// whatever happens.
    ///
    /// # Errors
    /// The prompts cannot be read, an answer cannot be written, or no request can go on.
    pub fn answer<A: Answerer>(&mut self, answerer: &mut A, mut source: Source) -> Result<(Counts, bool)> {
        let mut running = Running {
            run: &mut *self,
            pending: HashMap::new(),
            counts: Counts::default(),
            failed: None,
            unrecognised: BTreeMap::new(),
            control_texts: None,
        };
        let outcome = running.all(answerer, &mut source);
        let Running { counts, unrecognised, control_texts, .. } = running;
        if !unrecognised.is_empty() {
            self.observer.unrecognised(&unrecognised.into_iter().collect::<Vec<_>>());
        }
        if let Some((n_lines, first, note)) = control_texts {
            self.observer.control_texts(n_lines, first, &note);
        }
        let flushed = self.out.flush();
        let was_stopped = outcome?;
        flushed?;
        Ok((counts, was_stopped))
    }
}

impl<Id: Copy + Eq + std::hash::Hash> Running<'_, '_, Id> {
    fn all<A: Answerer<Id = Id>>(&mut self, answerer: &mut A, source: &mut Source) -> Result<bool> {
        let start = Instant::now();
        let (mut is_end, mut was_stopped) = (false, false);
        loop {
            if !was_stopped && self.run.observer.wants_to_stop() {
                was_stopped = true;
                self.run.observer.stopping(answerer.n_pending());
            }
            while !is_end && !was_stopped && answerer.wants_more() {
                match source.next(answerer.n_pending() == 0)? {
                    Next::Line(line) => self.submit(answerer, source, *line)?,
                    Next::NotYet => break,
                    Next::End => is_end = true,
                }
            }
            let went_on = answerer.step(&mut |id, result| self.finish(source, id, result))?;
            self.counts.seconds = start.elapsed().as_secs_f64();
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            if !went_on && (is_end || was_stopped) {
                return Ok(was_stopped);
            }
            self.run.observer.progress(&self.counts, source);
        }
    }

    /// Hands a line over, unless it was answered before or cannot be.
    fn submit<A: Answerer<Id = Id>>(&mut self, answerer: &mut A, source: &Source, line: Numbered) -> Result<()> {
        let Numbered { number, prompt } = line;
        let prompt = match prompt {
            Ok(prompt) => prompt,
            Err(error) => {
                self.refuse(&error);
                return Ok(());
            }
        };
        if self.run.answered.has(&prompt).map_err(|e| source.at(number, e))? {
            self.counts.n_skipped += 1;
            return Ok(());
        }
        for name in prompt.unrecognised() {
            if self.unrecognised.len() < NAMES_MAX || self.unrecognised.contains_key(&name) {
                *self.unrecognised.entry(name).or_default() += 1;
            }
        }
        let seed = self.seed(&prompt);
        let request = self.request(&prompt, seed);
        if let Ok(request) = &request {
            self.look_for_control_texts(number, request);
        }
        match request.and_then(|request| answerer.submit(request)) {
            Ok(id) => {
                self.pending.insert(id, (prompt, seed));
            }
            Err(error) => self.refuse(&source.at(number, error)),
        }
        Ok(())
    }

    /// What whoever wrote the line may take for tokens.
    fn look_for_control_texts(&mut self, number: u64, request: &Request) {
        let Some(tokenizer) = self.run.tokenizer else { return };
        let Some(note) = request.control_text_note(tokenizer) else { return };
        let (n_lines, _, _) = self.control_texts.get_or_insert((0, number, note));
        *n_lines += 1;
    }

    /// The seed of a line: its own, or one that nothing else in the file changes.
    fn seed(&self, line: &PromptLine) -> u64 {
        let first = self.run.defaults.sampling.seed.unwrap_or_default();
        line.request.sampling.seed.unwrap_or(first.wrapping_add(line.number - 1))
    }

    /// What a line asks, with the defaults where it says nothing.
    fn request(&self, line: &PromptLine, seed: u64) -> Result<Request> {
        let mut request = line.request.clone();
        if self.run.raw {
            request.prompt = raw(&request)?;
        }
        request.sampling.seed = Some(seed);
        Ok(request.with_defaults(&self.run.defaults))
    }

    fn refuse(&mut self, error: &Error) {
        self.counts.n_bad += 1;
        self.run.observer.refused(error);
    }

    fn finish(&mut self, source: &Source, id: Id, result: Result<Answer>) {
        let Some((prompt, seed)) = self.pending.remove(&id) else { return };
        match result {
            Ok(answer) => {
                self.counts.n_answers += 1;
                self.counts.n_prompt_tokens += answer.timings.prompt_tokens as u64;
                self.counts.n_new_tokens += answer.timings.new_tokens as u64;
                let line = answer_line(&prompt, &answer, seed, self.run.tokenizer.is_some());
                if let Err(error) = self.run.out.write(line) {
                    self.failed.get_or_insert(error);
                }
            }
            Err(error) => self.refuse(&source.at(prompt.number, error)),
        }
    }
}

/// A prompt without a chat template, which is the only thing that could take instructions and messages.
fn raw(request: &Request) -> Result<Prompt> {
    let no_template = |what| Error::input(format!("has {what}, and without a chat template only {PROMPT} is taken"));
    match &request.prompt {
        _ if !request.tools.is_empty() => Err(no_template(TOOLS)),
        Prompt::Text(_) if request.system.is_some() => Err(no_template(SYSTEM)),
        Prompt::Text(text) => Ok(Prompt::Raw(text.clone())),
        Prompt::Messages(_) => Err(no_template(MESSAGES)),
        other => Ok(other.clone()),
    }
}
