//! A model's own template, run by minijinja within limits: no files, bounded steps, memory, depth and output.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{context, Environment, ErrorKind, Value};
use serde_json::json;

use super::marked::Marks;
use super::substitution::Substitution;
use super::{clock, guard, python, to_json, too_long, Chat, Message, ToolCall, OUTPUT_BYTES_MAX};
use crate::error::{Error, Result};

/// Steps, and bytes made divided by 64. A template of a released model uses a few dozen per turn.
const STEPS_MAX: u64 = 100_000;
/// Placeholders of characters take up to four bytes, and the engine counts bytes.
const PLACEHOLDER_FACTOR: u64 = 4;
const NAME: &str = "chat template";

/// A parsed template and the texts it may print for begin and end of sequence.
#[derive(Debug)]
pub struct JinjaTemplate {
    /// For the messages as they are.
    plain: Environment<'static>,
    /// For their placeholders, with room for the extra bytes.
    placeholders: Environment<'static>,
    source: String,
    /// What of the template can be told apart from messages, see [`Marks`].
    marks: Marks,
    /// Contents may be lists of parts.
    takes_parts: bool,
    bos: String,
    eos: String,
}

impl JinjaTemplate {
    /// Checks and parses `source`, which may come from an untrusted file.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let parts = guard::check(source)?;
        let engine_source = guard::without_generation(source, &parts);
        let marks = Marks::of(engine_source.clone())?;
        let mut environment = Environment::new();
        // Hugging Face renders with both, and templates are written for it.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| explain(&e))?);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(guard::DEPTH_MAX);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_unknown_method_callback(python::method);
        environment.add_test("iterable", python::is_iterable);
        environment.add_function("raise_exception", python::raise_exception);
        environment.add_function("strftime_now", clock::strftime_now);
        environment.add_filter("tojson", to_json::to_json);
        environment.add_template_owned(NAME, engine_source).map_err(|e| explain(&e))?;
        let mut placeholders = environment.clone();
        placeholders.set_fuel(Some(PLACEHOLDER_FACTOR * STEPS_MAX));
        let (source, bos, eos) = (source.to_string(), bos.to_string(), eos.to_string());
        let mut template =
            JinjaTemplate { plain: environment, placeholders, source, marks, takes_parts: true, bos, eos };
        template.takes_parts = template.writes_parts();
        Ok(template)
    }

    /// Whether a content that is a list of parts comes out as the text of the parts.
    fn writes_parts(&self) -> bool {
        let parts = ["lichen", "moss"];
        let asked = Message { parts: parts.map(String::from).to_vec(), ..Message::user("") };
        let chat = Chat { messages: &[asked], tools: &[], add_generation_prompt: false };
        let written = self.render(chat, Pass { unix_now: 0, placeholders: false });
        written.is_ok_and(|text| parts.iter().all(|part| text.contains(part)) && !text.contains("type"))
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    pub(super) fn marks(&self) -> &Marks {
        &self.marks
    }

    pub(super) fn render(&self, chat: Chat<'_>, pass: Pass) -> Result<String> {
        let environment = if pass.placeholders { &self.placeholders } else { &self.plain };
        self.render_in(environment, chat, pass, &|text| text.to_string())
    }

    /// Renders the messages as they are with the template's own text in placeholders, but for the strings of
    /// [`Marks`] that are `plain`.
    pub(super) fn render_marked(
        &self,
        chat: Chat<'_>,
        pass: Pass,
        substitution: &Substitution,
        plain: &[bool],
    ) -> Result<String> {
        let mut environment = self.placeholders.clone();
        let marked = self.marks.apply(substitution, plain);
        environment.add_template_owned(NAME, marked).map_err(|e| explain(&e))?;
        self.render_in(&environment, chat, pass, &|text| substitution.hide(text))
    }

    fn render_in(
        &self,
        environment: &Environment<'_>,
        chat: Chat<'_>,
        pass: Pass,
        own: &dyn Fn(&str) -> String,
    ) -> Result<String> {
        let messages: Vec<Value> = chat.messages.iter().map(|m| message(m, self.takes_parts)).collect();
        let add_generation_prompt = chat.add_generation_prompt;
        // Without tools the name is nothing, as templates expect.
        let tools = if chat.tools.is_empty() { Value::from(()) } else { Value::from(Serde(chat.tools)) };
        let context = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => own(&self.bos),
            eos_token => own(&self.eos),
            tools => tools,
            documents => (),
            lichen_unix_now => pass.unix_now,
        };
        let template = environment.get_template(NAME).map_err(|e| explain(&e))?;
        let mut output = Bounded(Vec::new());
        template.render_captured_to(context, &mut output).map_err(|e| explain(&e))?;
        String::from_utf8(output.0).map_err(|_| Error::input("chat template: the output is not UTF-8"))
    }
}

/// A message as templates find it: what it has not is not there.
fn message(m: &Message, takes_parts: bool) -> Value {
    let content = match &m.parts[..] {
        parts if takes_parts && !parts.is_empty() => {
            parts.iter().map(|part| json!({"type": "text", "text": part})).collect()
        }
        _ => json!(m.content),
    };
    let mut fields = json!({"role": m.role.name(), "content": content});
    let mut add = |name: &str, value| fields[name] = value;
    if let Some(name) = &m.name {
        add("name", json!(name));
    }
    if let Some(id) = &m.tool_call_id {
        add("tool_call_id", json!(id));
    }
    if !m.tool_calls.is_empty() {
        add("tool_calls", m.tool_calls.iter().map(tool_call).collect());
    }
    Value::from(Serde(&fields))
}

fn tool_call(call: &ToolCall) -> serde_json::Value {
    let function = json!({"name": call.name, "arguments": call.arguments});
    match &call.id {
        Some(id) => json!({"id": id, "type": "function", "function": function}),
        None => json!({"type": "function", "function": function}),
    }
}

/// One of the renderings of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    pub unix_now: u64,
    pub placeholders: bool,
}

/// Refuses what passes the limit while it is written.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > PLACEHOLDER_FACTOR as usize * OUTPUT_BYTES_MAX {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One sentence with the line, in the words of the other readers.
fn explain(error: &minijinja::Error) -> Error {
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::OutOfFuel => return too_many_steps(),
        ErrorKind::WriteFailure => return too_long(),
        ErrorKind::InvalidOperation if detail == "recursion limit exceeded" => return guard::too_deep(),
        ErrorKind::InvalidOperation if detail == "range has too many elements" => return too_many_steps(),
        ErrorKind::SyntaxError if detail.contains("maximum recursion") => return guard::too_deep(),
        _ => {}
    }
    // `"name" is not available` for filters, tests, functions, methods and statements alike.
    let unknown = match error.kind() {
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest => detail.split(' ').nth(1),
        ErrorKind::UnknownFunction => detail.split(' ').next(),
        ErrorKind::UnknownMethod => detail.rsplit(' ').next(),
        ErrorKind::SyntaxError => detail.strip_prefix("unknown statement "),
        _ => None,
    };
    let message = match unknown {
        Some(name) => format!("{:?} is not available", name),
        None if detail.is_empty() => error.kind().to_string(),
        None => detail
            .replace('`', "\"")
            .replace("unexpected end of block", "unexpected \"%}\"")
            .replace("unexpected end of variable block", "unexpected \"}}\""),
    };
    match error.line() {
        Some(line) => Error::input(format!("chat template, line {line}: {message}")),
        None => Error::input(format!("chat template: {message}")),
    }
}

fn too_many_steps() -> Error {
    Error::limit("chat template: used more than 100,000 steps")
}
