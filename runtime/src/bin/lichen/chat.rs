//! `lichen chat`: a conversation on a terminal, or one turn a line from a pipe.

use std::cell::RefCell;
use std::io::{BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use lichen_runtime::engine::answer::{Answer, FinishReason};
use lichen_runtime::engine::conversation::Conversation;
use lichen_runtime::engine::request::AdapterChoice;
use lichen_runtime::engine::Engine;
use lichen_runtime::error::Kind;
use lichen_runtime::loader::{AdapterPath, DEFAULT_ADAPTER};
use lichen_runtime::measure::bench::peak_rss_bytes;
use lichen_runtime::memory_plan::mib;
use lichen_runtime::setting::as_flag;
use lichen_runtime::signals::CatchInterrupts;
use lichen_runtime::text::tokenizer::TEXT_BYTES_MAX;
use lichen_runtime::Error;
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use crate::args::{engine_options, MachineArgs, ModelArgs, SamplingArgs, TemplateArgs};
use crate::opening::{adapter_note, defaults, open_with};
use crate::output::{self, Failure, Outcome};

const EXAMPLES: &str = "Examples:
  lichen chat
  lichen chat --model gemma-3-1b-it-Q8_0.gguf --system \"Answer in one sentence.\" --context 8192
  printf 'What is the capital of India?\\nAnd of Japan?\\n' | lichen chat

Ctrl-C stops the answer, Ctrl-D or /quit ends the conversation, /help lists the commands. Without a terminal each line \
of standard input is one turn and only the answers are printed.";

const HELP: &str = "\
/help             this list
/reset            forget the conversation
/system TEXT|off  start over with these instructions
/stats            tokens, speed and memory
/save FILE        keep the conversation and what was computed for it
/load FILE        go on with a saved one
/adapter PATH|off apply another LoRA adapter; PATH:SCALE sets its strength
/quit             end (Ctrl-D too); a line that starts with // is sent with one slash";

const HISTORY_LINES: usize = 1000;

/// Talk to a model
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ChatArgs {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    template: TemplateArgs,
    /// Keep no history of the lines typed
    #[arg(long)]
    no_history: bool,
}

pub fn run(args: &ChatArgs) -> Outcome<()> {
    let options = defaults(&args.sampling)?;
    let mut opened = engine_options(&args.model, &args.machine)?;
    args.template.fill(&mut opened)?;
    let engine = open_with(&opened)?;
    // What could never be used is refused now, and not at the first turn.
    engine.model().chat_template()?;
    let mut chat = Chat { engine, conversation: Conversation::new(options), failed: false };
    if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
        chat.read_terminal(args.no_history)
    } else {
        chat.read_pipe()
    }
}

struct Chat {
    engine: Engine,
    conversation: Conversation,
    /// Something was refused; the conversation went on.
    failed: bool,
}

/// What comes after a line.
enum Next {
    More,
    Quit,
}

impl Chat {
    fn read_terminal(&mut self, no_history: bool) -> Outcome<()> {
        let model = self.engine.model();
        output::note(&format!(
            "{}, {}, context {}, {} planned. /help lists the commands.",
            model.name,
            model.device.describe(),
            model.plan.limits.context,
            mib(model.plan.total_bytes())
        ));
        let terminal = |e: ReadlineError| Error::input(format!("the terminal cannot be read: {e}"));
        let config = Config::builder().max_history_size(HISTORY_LINES).map_err(terminal)?.history_ignore_space(true);
        let mut editor = DefaultEditor::with_config(config.build()).map_err(terminal)?;
        let history = if no_history { None } else { history_file() };
        if let Some(path) = &history {
            // The first start has none.
            let _ = editor.load_history(path);
        }
        loop {
            match editor.readline("> ") {
                Ok(line) => {
                    if !line.trim().is_empty() {
                        // Lines that cannot be remembered can still be answered.
                        let _ = editor.add_history_entry(line.as_str());
                        let _ = history.as_ref().map(|path| editor.append_history(path));
                    }
                    if matches!(self.line(&line)?, Next::Quit) {
                        return Ok(());
                    }
                }
                Err(ReadlineError::Interrupted) => {}
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(terminal(error).into()),
            }
        }
    }

    fn read_pipe(&mut self) -> Outcome<()> {
        let mut input = std::io::stdin().lock();
        let mut number = 0;
        loop {
            let mut bytes = Vec::new();
            let mut limited = (&mut input).take(TEXT_BYTES_MAX as u64 + 1);
            limited.read_until(b'\n', &mut bytes).map_err(|e| Error::io(Path::new("standard input"), &e))?;
            number += 1;
            if bytes.is_empty() {
                return if self.failed { Err(Failure::Reported) } else { Ok(()) };
            }
            if bytes.len() > TEXT_BYTES_MAX {
                let message = format!("standard input: line {number} is longer than {TEXT_BYTES_MAX} bytes");
                return Err(Error::limit(message).into());
            }
            let Ok(line) = std::str::from_utf8(&bytes) else {
                return Err(Error::input(format!("standard input: line {number} is not UTF-8")).into());
            };
            if matches!(self.line(line)?, Next::Quit) {
                return if self.failed { Err(Failure::Reported) } else { Ok(()) };
            }
        }
    }

    /// A turn or a command. What is refused is said, and the conversation goes on.
    fn line(&mut self, line: &str) -> Outcome<Next> {
        let line = line.trim();
        let done = match line.strip_prefix('/') {
            _ if line.is_empty() => return Ok(Next::More),
            Some(text) if text.starts_with('/') => self.answer(text),
            Some(command) => {
                let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
                if matches!(name, "quit" | "exit") {
                    return Ok(Next::Quit);
                }
                self.command(name, rest.trim())
            }
            None => self.answer(line),
        };
        match done {
            Err(Failure::Error(error)) => {
                output::error(&error.spelled(&as_flag));
                if error.kind() == Kind::Limit {
                    output::note("/reset starts over");
                }
                self.failed = true;
                Ok(Next::More)
            }
            Err(other) => Err(other),
            Ok(()) => Ok(Next::More),
        }
    }

    fn answer(&mut self, text: &str) -> Outcome<()> {
        let interrupts = CatchInterrupts::new();
        let shown = RefCell::new(Ok(()));
        let mut on_text = |piece: &str| {
            let is_open = shown.borrow().is_ok();
            if is_open {
                *shown.borrow_mut() = output::text(piece);
            }
        };
        let mut should_stop = || interrupts.interrupted() || shown.borrow().is_err();
        let answer = self.conversation.ask(&mut self.engine, text, &mut on_text, &mut should_stop)?;
        // Ctrl-C at a terminal is meant for the answer. Whatever else ends one is meant for the program.
        let is_over = interrupts.terminated() || !std::io::stdin().is_terminal();
        drop(interrupts);
        shown.into_inner()?;
        output::line("")?;
        match answer.finish_reason {
            FinishReason::Length if self.is_full(&answer) => output::note(&format!(
                "the context of {} tokens is full: /reset starts over, a larger --context holds more",
                self.engine.limits().context
            )),
            FinishReason::Length => output::note("(--max-new-tokens ended the answer)"),
            FinishReason::Cancel if is_over => return Err(Failure::Interrupted),
            FinishReason::Cancel => output::note("(stopped)"),
            FinishReason::Stop => {}
        }
        Ok(())
    }

    /// Whether an answer ended because there was no position left.
    fn is_full(&self, answer: &Answer) -> bool {
        answer.timings.prompt_tokens + answer.token_ids.len() > self.engine.limits().context
    }

    fn command(&mut self, name: &str, rest: &str) -> Outcome<()> {
        let needs = |what: &str| Error::usage(format!("/{name} needs {what}"));
        match (name, rest) {
            ("help", _) => output::line(HELP),
            ("reset", _) => {
                self.conversation.reset();
                Ok(())
            }
            ("stats", _) => self.stats(),
            ("system", "") => {
                output::line(self.conversation.system().unwrap_or("no instructions; /system TEXT sets them"))
            }
            ("system", text) => {
                self.conversation.set_system((text != "off").then(|| text.to_string()));
                Ok(())
            }
            ("save", "") | ("load", "") => Err(needs("a file").into()),
            ("adapter", "") => Err(needs("a path, or off").into()),
            ("save", file) => Ok(self.conversation.save(&mut self.engine, Path::new(file))?),
            ("load", file) => {
                self.conversation.load(&mut self.engine, Path::new(file))?;
                output::note(&format!("{} turns, {} tokens", self.turns(), self.used()));
                Ok(())
            }
            ("adapter", "off") => {
                self.conversation.set_adapter(AdapterChoice::Base);
                Ok(())
            }
            ("adapter", path) => {
                let file =
                    AdapterPath::parse(path).map_err(|range| Error::usage(format!("/adapter {path}: {range}")))?;
                // Under one name, so that the one before makes room for it.
                let adapter = self.engine.load_adapter(DEFAULT_ADAPTER, &file)?;
                output::note(&adapter_note(&adapter, self.engine.model()));
                self.conversation.set_adapter(AdapterChoice::Named(DEFAULT_ADAPTER.to_string()));
                Ok(())
            }
            _ => Err(Error::usage(format!("unknown command /{name}; /help lists them")).into()),
        }
    }

    fn turns(&self) -> usize {
        self.conversation.messages().len() / 2
    }

    fn used(&self) -> usize {
        self.conversation.n_tokens()
    }

    fn stats(&self) -> Outcome<()> {
        let limits = *self.engine.limits();
        let turns = self.turns();
        output::line(&format!("context   {} of {} tokens in {turns} turns", self.used(), limits.context))?;
        if let Some(t) = self.conversation.last_timings() {
            output::line(&format!(
                "prompt    {} tokens, {} reused, {} computed in {:.3} s ({:.1} tokens/s)",
                t.prompt_tokens,
                t.reused_tokens,
                t.prompt_tokens - t.reused_tokens,
                t.prefill_s,
                t.prefill_tokens_per_s()
            ))?;
            let (n, seconds, rate) = (t.new_tokens, t.decode_s, t.decode_tokens_per_s());
            output::line(&format!("answer    {n} tokens in {seconds:.3} s ({rate:.1} tokens/s)"))?;
        }
        let peak = peak_rss_bytes().map_or("unknown".to_string(), mib);
        output::line(&format!(
            "memory    {peak} at most so far, {} planned",
            mib(self.engine.model().plan.total_bytes())
        ))
    }
}

/// `lichen/history` in the user's state folder, which is made when it is missing.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let folder = state.or_else(home)?.join("lichen");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}
