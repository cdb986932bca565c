//! What a program can be told, by name, without how it is told: the same setting is a flag (`--max-new-tokens`), a key of a
//! TOML file or of a JSON object (`max_new_tokens`) and a field of a C structure.
//!
//! A library's message names a setting by putting it into the text; each edge spells it in its own way
//! ([`Error::spelled`](crate::Error::spelled)).

pub mod table;
pub mod value;

use std::fmt;

/// The name of one setting, in the spelling of fields and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Setting(&'static str);

impl Setting {
    /// `name` is in lower case, its words joined by underscores.
    pub const fn new(name: &'static str) -> Setting {
        Setting(name)
    }

    /// As keys and fields are spelled: `max_new_tokens`.
    pub const fn name(self) -> &'static str {
        self.0
    }

    /// As command lines spell it: `--max-new-tokens`.
    pub fn flag(self) -> String {
        as_flag(self.0)
    }
}

/// How a command line spells a name.
pub fn as_flag(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}

/// How a JSON object spells a name.
pub fn as_json_key(name: &str) -> String {
    format!("\"{name}\"")
}

/// Noncharacters of Unicode, which no text that is meant to be read has: a message marks its settings with them on its way
/// into an error, which takes them out.
const OPEN: char = '\u{fdd0}';
const CLOSE: char = '\u{fdd1}';

/// For messages of errors alone: the name between marks.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{OPEN}{}{CLOSE}", self.0)
    }
}

/// A message, and where settings stand in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Settings by their plain names.
    pub text: String,
    /// Bytes of `text` that name a setting, in order.
    names: Vec<std::ops::Range<usize>>,
}

impl Message {
    /// Takes the marks out of a text.
    pub fn new(marked: String) -> Message {
        if !marked.contains(OPEN) {
            return Message { text: marked, names: Vec::new() };
        }
        let mut message = Message::default();
        for (i, part) in marked.split(OPEN).enumerate() {
            match part.split_once(CLOSE).filter(|_| i > 0) {
                Some((name, rest)) => {
                    let start = message.text.len();
                    message.text.push_str(name);
                    message.names.push(start..message.text.len());
                    message.text.push_str(rest);
                }
                None => message.text.push_str(part),
            }
        }
        message
    }

    /// The same with `prefix` in front, which may have marks of its own.
    pub fn behind(self, prefix: String) -> Message {
        let mut message = Message::new(prefix);
        let by = message.text.len();
        message.text.push_str(&self.text);
        message.names.extend(self.names.into_iter().map(|n| n.start + by..n.end + by));
        message
    }

    /// Every setting spelled by `spell`.
    pub fn spelled(&self, spell: &dyn Fn(&str) -> String) -> String {
        let (mut out, mut at) = (String::with_capacity(self.text.len() + 16), 0);
        for name in &self.names {
            out.push_str(&self.text[at..name.start]);
            out.push_str(&spell(&self.text[name.clone()]));
            at = name.end;
        }
        out.push_str(&self.text[at..]);
        out
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Setting = Setting::new($text);)*
    };
}

settings! {
    /// A GGUF file or a Hugging Face folder.
    MODEL = "model";
    ADAPTER = "adapter";
    /// Whether an adapter may be used with another model than its own.
    ALLOW_OTHER_BASE = "allow_other_base";
    DEVICE = "device";
    /// A board's file of defaults.
    DEVICE_CONFIG = "device_config";
    THREADS = "threads";
    MEMORY_BUDGET = "memory_budget";
    CONTEXT = "context";
    PREFILL_CHUNK = "prefill_chunk";
    KV_CACHE = "kv_cache";
    /// Sequences computed at once.
    PARALLEL = "parallel";
    PROMPT = "prompt";
    MESSAGES = "messages";
    TOKENS = "tokens";
    SYSTEM = "system";
    MAX_NEW_TOKENS = "max_new_tokens";
    STOP = "stop";
    STOP_TOKENS = "stop_tokens";
    IGNORE_EOS = "ignore_eos";
    /// Control tokens written out are tokens.
    PARSE_SPECIAL = "parse_special";
    /// A built-in template's name, or a file.
    CHAT_TEMPLATE = "chat_template";
    /// Functions that the model may call.
    TOOLS = "tools";
    LOGPROBS = "logprobs";
    TIME_LIMIT_MS = "time_limit_ms";
    SEED = "seed";
    TEMPERATURE = "temperature";
    TOP_K = "top_k";
    TOP_P = "top_p";
    MIN_P = "min_p";
    REPEAT_PENALTY = "repeat_penalty";
    REPEAT_LAST_N = "repeat_last_n";
    RESUME = "resume";
    /// A released model's shape.
    GEOMETRY = "geometry";
    FORMAT = "format";
    PROMPT_TOKENS = "prompt_tokens";
    NEW_TOKENS = "new_tokens";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_edge_spells_the_settings_of_a_message() {
        let message = Message::new(format!("raise {CONTEXT}, or lower {MAX_NEW_TOKENS} (now 7)"));
        assert_eq!(message.text, "raise context, or lower max_new_tokens (now 7)");
        assert_eq!(message.spelled(&as_flag), "raise --context, or lower --max-new-tokens (now 7)");
        let message = message.behind(format!("{MODEL}: "));
        assert_eq!(message.spelled(&as_json_key), "\"model\": raise \"context\", or lower \"max_new_tokens\" (now 7)");
    }

    #[test]
    fn text_of_others_with_marks_of_its_own_stays_text() {
        for text in ["a\u{fdd1}b", "a\u{fdd0}b", "\u{fdd0}\u{fdd1}", "\u{fdd0}\u{fdd0}x\u{fdd1}"] {
            let message = Message::new(text.to_string());
            assert!(!message.text.contains(OPEN), "{text:?}");
        }
    }
}
