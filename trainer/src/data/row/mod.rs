//! One row: bytes of JSON to what it says, with the reason in words when it says nothing usable.

mod build;
mod fields;
mod shapes;

use lichen_runtime::files::formats::json_shape::seed;
use lichen_runtime::text::chat_template::Message;
use serde_json::Value;

use fields::Fields;

/// Most turns of a conversation: each answer's place is found by rendering all that is before it.
pub(super) const TURNS_MAX: usize = 1000;

/// What a row says.
#[derive(Debug, PartialEq)]
pub(super) enum Row {
    Chat(Conversation),
    Text(String),
    /// Not checked against a vocabulary yet; `labels` has as many items as `ids`, -100 where a mask says so.
    Tokens {
        ids: Vec<i32>,
        labels: Option<Vec<i32>>,
    },
}

/// Messages, and what is to be learned of them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Conversation {
    pub messages: Vec<Message>,
    /// One for each message.
    pub turns: Vec<Turn>,
    /// Functions that the model may call, as its chat template wants them.
    pub tools: Vec<Value>,
    /// The key that the row was told by.
    pub key: &'static str,
}

/// What a row says of a message beside the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub name: TurnName,
    pub learn: Learn,
}

/// What an error calls a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnName {
    /// The value of a key.
    Key(&'static str),
    /// A message of a key's list, counted from 1.
    Message(&'static str, usize),
}

/// Whether a message is to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Learn {
    /// As the job says.
    AsUsual,
    /// It is a part of what is asked.
    NotAsked,
    /// The row says so of this message.
    Said(bool),
}

impl std::fmt::Display for TurnName {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            TurnName::Key(key) => write!(f, "\"{key}\""),
            TurnName::Message("messages", n) => write!(f, "message {n}"),
            TurnName::Message(key, n) => write!(f, "message {n} of \"{key}\""),
        }
    }
}

impl Conversation {
    pub fn push(&mut self, message: Message, name: TurnName, learn: Learn) {
        self.messages.push(message);
        self.turns.push(Turn { name, learn });
    }
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

/// A row, and the keys of it that were not used: those of messages as `messages[].name`.
#[derive(Debug)]
pub(super) struct ParsedRow {
    pub row: Row,
    pub unused: Vec<String>,
}

impl Row {
    /// Reads the row that `bytes` are; its first byte stands `column` bytes behind the beginning of its line.
    pub fn parse(bytes: &[u8], column: usize) -> Result<ParsedRow, Fault> {
        let text = utf8(bytes, column)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let read = serde::de::DeserializeSeed::deserialize(seed::<Fields>(), &mut deserializer)
            .and_then(|fields| deserializer.end().map(|()| fields));
        let fields = read.map_err(|e| not_json(&e, text, column))?;
        fields.row().map_err(Fault::meaning)
    }

    /// Every text in it that a person wrote.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let (messages, text) = match self {
            Row::Chat(chat) => (chat.messages.as_slice(), None),
            Row::Text(text) => (Default::default(), Some(text.as_str())),
            Row::Tokens { .. } => (Default::default(), None),
        };
        messages.iter().map(|message| message.content.as_str()).chain(text)
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
