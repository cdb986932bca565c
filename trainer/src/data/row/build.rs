//! From the keys of a row to what it says.

use lichen_runtime::escape::thousands;
use lichen_runtime::text::chat_template::message_json::MessageList;
use lichen_runtime::text::chat_template::{Message, Role};
use serde_json::Value;

use super::super::IGNORED;
use super::fields::Fields;
use super::{Conversation, Learn, ParsedRow, Row, TurnName, TURNS_MAX};

/// Keys of a list of messages.
const CHATS: [&str; 3] = ["messages", "conversations", "conversation"];
/// Keys of a question, each with the key that its answer usually has.
const QUESTIONS: [(&str, &str); 4] =
    [("instruction", "output"), ("prompt", "completion"), ("question", "answer"), ("query", "response")];
/// Keys of an answer, each with the key that its question usually has.
const ANSWERS: [(&str, &str); 4] =
    [("output", "instruction"), ("completion", "prompt"), ("answer", "question"), ("response", "prompt")];
/// Masks that say which ids are learned.
const LABEL_MASKS: [&str; 3] = ["completion_mask", "assistant_masks", "loss_mask"];

impl Fields {
    /// What the row says, and the keys that it is not told by.
    ///
    /// # Errors
    /// It says nothing usable, in words.
    pub(super) fn row(mut self) -> Result<ParsedRow, String> {
        if let Some(shown) = self.other {
            return Err(format!("a row is {shown}; an object is needed"));
        }
        if let Some(name) = self.twice {
            return Err(format!("\"{name}\" stands twice"));
        }
        if let Some((name, why)) = self.refused() {
            return Err(format!("\"{name}\" {why}"));
        }
        let row = self.shape()?;
        Ok(ParsedRow { row, unused: self.unused() })
    }

    fn shape(&mut self) -> Result<Row, String> {
        if self.has("input_ids") {
            return self.tokens();
        }
        if let Some(key) = self.first_of(&CHATS) {
            let mut chat = Conversation { key, ..Conversation::default() };
            let list = self.messages(key);
            self.append(&mut chat, key, list, Learn::AsUsual)?;
            return self.finish(chat).map(Row::Chat);
        }
        let question = self.first_of(&QUESTIONS.map(|(name, _)| name));
        let answer = self.first_of(&ANSWERS.map(|(name, _)| name));
        match (question, answer) {
            // Some files have the rendered `text` beside these; it was written for another model.
            (Some(question), Some(answer)) => self.pair(question, answer).map(Row::Chat),
            (None, Some("output")) if self.has("input") => self.pair("input", "output").map(Row::Chat),
            _ if self.has("text") => Ok(Row::Text(self.text("text")?.unwrap_or_default())),
            (Some(question), None) => Err(missing_partner(question, &QUESTIONS)),
            (None, Some(answer)) => Err(missing_partner(answer, &ANSWERS)),
            (None, None) => Err(self.nothing()),
        }
    }

    fn nothing(&self) -> String {
        let wanted =
            "none of \"messages\", \"conversations\", \"instruction\", \"prompt\", \"question\", \"text\" and \
                      \"input_ids\" is there";
        match self.unknown.as_slice() {
            [] => wanted.to_string(),
            keys => {
                let around =
                    keys.iter().find(|key| ["data", "train", "rows", "examples", "instances"].contains(&key.as_str()));
                if let Some(key) = around {
                    return format!("{wanted}; if the rows are inside \"{key}\", give the file as that array alone");
                }
                let shown: Vec<String> = keys.iter().take(4).map(|key| format!("{key:?}")).collect();
                format!("{wanted} (the row has {}{})", shown.join(", "), if keys.len() > 4 { ", .." } else { "" })
            }
        }
    }

    /// A question and its answer, with what stands before them.
    fn pair(&mut self, question: &'static str, answer: &'static str) -> Result<Conversation, String> {
        let mut chat = Conversation { key: question, ..Conversation::default() };
        for [asked, said] in self.history()? {
            chat.push(Message::user(asked), TurnName::Key("history"), Learn::AsUsual);
            chat.push(Message::assistant(said), TurnName::Key("history"), Learn::AsUsual);
        }
        let asked = match question {
            "input" => MessageList::Text(self.text("input")?.unwrap_or_default()),
            _ => self.messages(question),
        };
        let more = match self.text("input")? {
            Some(input) => input,
            None => self.text("context")?.unwrap_or_default(),
        };
        match asked {
            MessageList::Text(text) => {
                let whole = match (text.is_empty(), more.is_empty()) {
                    (_, true) => text,
                    (true, false) => more,
                    (false, false) => format!("{text}\n\n{more}"),
                };
                chat.push(Message::user(whole), TurnName::Key(question), Learn::NotAsked);
            }
            _ if !more.is_empty() => {
                return Err(format!("\"{question}\" is a list of messages, and \"input\" has no place in it"));
            }
            list => self.append(&mut chat, question, list, Learn::NotAsked)?,
        }
        match self.messages(answer) {
            MessageList::Text(text) => chat.push(Message::assistant(text), TurnName::Key(answer), Learn::AsUsual),
            list => self.append(&mut chat, answer, list, Learn::AsUsual)?,
        }
        self.finish(chat)
    }

    /// Puts the messages of a key behind those that are there.
    fn append(
        &mut self,
        chat: &mut Conversation,
        key: &'static str,
        list: MessageList<TURNS_MAX>,
        learn: Learn,
    ) -> Result<(), String> {
        let entries = match list {
            MessageList::Other(shown) if !CHATS.contains(&key) => {
                return Err(format!("\"{key}\" is {shown}; a string is needed"));
            }
            list => list.entries(key).map_err(|e| match key {
                "messages" => e,
                _ if e.starts_with('"') => e,
                _ => format!("\"{key}\": {e}"),
            })?,
        };
        for (k, entry) in entries.into_iter().enumerate() {
            for name in &entry.unused {
                self.leave(format!("{key}[].{name}"));
            }
            let learn = entry.is_trained.map_or(learn, Learn::Said);
            chat.push(entry.message, TurnName::Message(key, k + 1), learn);
        }
        Ok(())
    }

    /// What goes with any conversation: a system text, and tools.
    fn finish(&mut self, mut chat: Conversation) -> Result<Conversation, String> {
        let key = self.first_of(&["system", "system_prompt"]).unwrap_or("system");
        if let Some(system) = self.text(key)?.filter(|text| !text.is_empty()) {
            match chat.messages.first().filter(|first| first.role == Role::System) {
                Some(first) if first.content == system => {}
                Some(_) => return Err(format!("\"{key}\" and a system message are both there, and differ")),
                None => {
                    let first = super::Turn { name: TurnName::Key(key), learn: Learn::AsUsual };
                    chat.messages.insert(0, Message::system(system));
                    chat.turns.insert(0, first);
                }
            }
        }
        chat.tools = self.json("tools").map(tools).transpose()?.unwrap_or_default();
        match chat.messages.len() > TURNS_MAX {
            true => Err(format!(
                "has {} turns; at most {}",
                thousands(chat.messages.len() as u64),
                thousands(TURNS_MAX as u64)
            )),
            false => Ok(chat),
        }
    }

    /// Ids as they are, less what is padding.
    fn tokens(&mut self) -> Result<Row, String> {
        let mut ids = self.integers("input_ids")?.unwrap_or_default();
        let n = ids.len();
        if n == 0 {
            return Err("\"input_ids\" is empty".into());
        }
        let mut labels = self.integers("labels")?;
        if let Some(labels) = labels.as_ref().filter(|labels| labels.len() != n) {
            return Err(other_length("labels", labels.len(), n));
        }
        if let Some(at) = self.integers("position_ids")? {
            if at.len() != n || at.iter().enumerate().any(|(i, &at)| usize::try_from(at) != Ok(i)) {
                return Err(
                    "\"position_ids\" does not count from 0: several samples in one row are not supported, write \
                            a row for each"
                        .into(),
                );
            }
        }
        for name in LABEL_MASKS {
            let Some(mask) = self.mask(name, n)? else { continue };
            let labels = labels.get_or_insert_with(|| ids.clone());
            labels.iter_mut().zip(mask).filter(|(_, on)| !on).for_each(|(label, _)| *label = IGNORED);
        }
        if let Some(mask) = self.mask("attention_mask", n)? {
            let kept = padded(&mask)?;
            ids = ids[kept.clone()].to_vec();
            labels = labels.map(|labels| labels[kept].to_vec());
        }
        Ok(Row::Tokens { ids, labels })
    }
}

/// What is between the padding at both ends.
fn padded(attention_mask: &[bool]) -> Result<std::ops::Range<usize>, String> {
    let start = attention_mask.iter().position(|on| *on);
    let end = attention_mask.iter().rposition(|on| *on);
    let (Some(start), Some(end)) = (start, end) else {
        return Err("\"attention_mask\" leaves nothing of the row".into());
    };
    match attention_mask[start..=end].iter().position(|on| !on) {
        None => Ok(start..end + 1),
        Some(at) => {
            Err(format!("\"attention_mask\"[{}] is 0 between items that are 1, which is not supported", start + at))
        }
    }
}

/// A list of functions, or the JSON of one in a string, as files without nested columns have it.
fn tools(value: Value) -> Result<Vec<Value>, String> {
    let wrong = |what: &str| Err(format!("\"tools\" {what}; an array of objects is needed"));
    let list = match value {
        Value::String(text) if text.trim().is_empty() => return Ok(Vec::new()),
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(Value::Array(list)) => list,
            _ => return wrong("is a string that is no JSON array"),
        },
        Value::Array(list) => list,
        _ => return wrong("is no array"),
    };
    match list.iter().position(|tool| !tool.is_object()) {
        None => Ok(list),
        Some(at) => wrong(&format!("has something else as item {}", at + 1)),
    }
}

/// `"labels" has 3 items for 4 of "input_ids"`.
pub(super) fn other_length(name: &str, n: usize, n_ids: usize) -> String {
    format!("\"{name}\" has {} items for {} of \"input_ids\"", thousands(n as u64), thousands(n_ids as u64))
}

fn missing_partner(name: &str, pairs: &[(&str, &str)]) -> String {
    let partner = pairs.iter().find(|(key, _)| *key == name).map_or("", |(_, partner)| partner);
    format!("\"{partner}\" is missing")
}
