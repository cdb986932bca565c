//! One row: bytes of JSON to what it says, with the reason in words when it says nothing usable.

use lichen_runtime::escape::thousands;
use lichen_runtime::files::formats::json_shape::{seed, Integers, Shape, Text};
use lichen_runtime::text::chat_template::message_json::MessageList;
use lichen_runtime::text::chat_template::Message;
use serde::de::{IgnoredAny, MapAccess};
use serde::Deserialize;

/// Most turns of a conversation: each answer's place is found by encoding all that is before it.
const TURNS_MAX: usize = 1000;

/// What a row says.
#[derive(Debug, PartialEq)]
pub(super) enum Row {
    /// One question and its answer.
    Instruction {
        instruction: String,
        input: String,
        output: String,
    },
    Chat(Vec<Message>),
    Text(String),
    /// Not checked against a vocabulary yet; `labels` has as many items as `ids`.
    Tokens {
        ids: Vec<i32>,
        labels: Option<Vec<i32>>,
    },
}

/// Why a row cannot be used.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub what: String,
    /// How many lines below the row's first.
    pub lines_below: usize,
    pub kind: FaultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// Not JSON, or not UTF-8.
    Syntax,
    /// The same, and more bytes might have made it whole.
    Ends,
    /// JSON that is not a row.
    Meaning,
}

impl Fault {
    pub fn meaning(what: String) -> Self {
        Fault { what, lines_below: 0, kind: FaultKind::Meaning }
    }
}

impl Row {
    /// Reads the row that `bytes` are; its first byte stands `column` bytes behind the beginning of its line.
    pub fn parse(bytes: &[u8], column: usize) -> Result<Row, Fault> {
        let text = utf8(bytes, column)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = serde::de::DeserializeSeed::deserialize(seed::<Fields>(), &mut deserializer)
            .and_then(|fields| deserializer.end().map(|()| fields));
        let fields = read.map_err(|e| not_json(&e, text, column))?;
        fields.row().map_err(Fault::meaning)
    }
}

/// The text of a row. # Errors: not UTF-8.
pub(super) fn utf8(bytes: &[u8], column: usize) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|e| {
        let before = &bytes[..e.valid_up_to()];
        let lines_below = before.iter().filter(|&&b| b == b'\n').count();
        let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
        let column = if lines_below == 0 { column } else { 0 };
        let what = format!("is not UTF-8 from byte {}", column + before.len() - start);
        let kind = if e.error_len().is_none() { FaultKind::Ends } else { FaultKind::Syntax };
        Fault { what, lines_below, kind }
    })
}

/// `expected "," or "}" at column 88`. Columns are counted in characters, as editors do.
pub(super) fn not_json(error: &serde_json::Error, text: &str, column: usize) -> Fault {
    let lines_below = error.line().saturating_sub(1);
    let line = text.split('\n').nth(lines_below).unwrap_or_default();
    // The reader counts bytes, and stands behind the one that it did not expect.
    let n_chars = String::from_utf8_lossy(&line.as_bytes()[..error.column().min(line.len())]).chars().count();
    let column = if lines_below == 0 { column + n_chars } else { n_chars };
    let said = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let what = said.strip_suffix(&position).unwrap_or(&said).replace('`', "\"");
    let kind = if error.is_eof() { FaultKind::Ends } else { FaultKind::Syntax };
    Fault { what: format!("{what} at column {column}"), lines_below, kind }
}

/// The keys of a row.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    InputIds,
    Labels,
    Messages,
    Instruction,
    Input,
    Output,
    Text,
    #[serde(other)]
    Unknown,
}

#[derive(Debug, Default)]
struct Fields {
    input_ids: Integers,
    labels: Integers,
    messages: MessageList<TURNS_MAX>,
    instruction: Text,
    input: Text,
    output: Text,
    text: Text,
    /// A key that stands more than once.
    twice: Option<&'static str>,
    /// What the row is instead of an object.
    other: Option<String>,
}

impl Shape for Fields {
    fn null() -> Self {
        Fields::other("null".into())
    }

    fn other(shown: String) -> Self {
        Fields { other: Some(shown), ..Fields::default() }
    }

    fn object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Self, A::Error> {
        let mut fields = Fields::default();
        let mut seen = [false; 7];
        while let Some(key) = object.next_key::<Key>()? {
            let mut twice = |index: usize, name: &'static str| {
                if std::mem::replace(&mut seen[index], true) {
                    fields.twice.get_or_insert(name);
                }
            };
            match key {
                Key::InputIds => {
                    twice(0, "input_ids");
                    fields.input_ids = object.next_value_seed(seed())?;
                }
                Key::Labels => {
                    twice(1, "labels");
                    fields.labels = object.next_value_seed(seed())?;
                }
                Key::Messages => {
                    twice(2, "messages");
                    fields.messages = object.next_value_seed(seed())?;
                }
                Key::Instruction => {
                    twice(3, "instruction");
                    fields.instruction = object.next_value_seed(seed())?;
                }
                Key::Input => {
                    twice(4, "input");
                    fields.input = object.next_value_seed(seed())?;
                }
                Key::Output => {
                    twice(5, "output");
                    fields.output = object.next_value_seed(seed())?;
                }
                Key::Text => {
                    twice(6, "text");
                    fields.text = object.next_value_seed(seed())?;
                }
                Key::Unknown => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

impl Fields {
    fn row(self) -> Result<Row, String> {
        if let Some(shown) = self.other {
            return Err(format!("a row is {shown}; an object is needed"));
        }
        if let Some(name) = self.twice {
            return Err(format!("\"{name}\" stands twice"));
        }
        if !self.input_ids.is_absent() {
            return tokens(self.input_ids, self.labels);
        }
        if !self.messages.is_absent() {
            return self.messages.messages().map(Row::Chat);
        }
        // Some files have the rendered `text` beside these; it was written for another model.
        if !self.instruction.is_absent() || !self.output.is_absent() {
            return Ok(Row::Instruction {
                instruction: self.instruction.needed("instruction")?,
                input: self.input.optional("input")?.unwrap_or_default(),
                output: self.output.needed("output")?,
            });
        }
        match self.text.optional("text")? {
            Some(text) => Ok(Row::Text(text)),
            None => Err("none of \"instruction\", \"messages\", \"text\" and \"input_ids\" is there".into()),
        }
    }
}

fn tokens(ids: Integers, labels: Integers) -> Result<Row, String> {
    let ids = ids.optional("input_ids")?.unwrap_or_default();
    let labels = labels.optional("labels")?;
    if ids.is_empty() {
        return Err("\"input_ids\" is empty".into());
    }
    if let Some(labels) = labels.as_ref().filter(|labels| labels.len() != ids.len()) {
        let (n_labels, n_ids) = (thousands(labels.len() as u64), thousands(ids.len() as u64));
        return Err(format!("\"labels\" has {n_labels} items for {n_ids} of \"input_ids\""));
    }
    Ok(Row::Tokens { ids, labels })
}
