//! A chat template that is asked for in place of the model's own.

use std::fmt;
use std::path::{Path, PathBuf};

use super::ChatTemplate;
use crate::error::{Error, Result};
use crate::files::formats::hf::template_in_json;
use crate::files::formats::json_file::{read_text_any, MAX_CONFIG_BYTES};
use crate::text::tokenizer::Tokenizer;

/// Which template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateChoice {
    /// Built in: Gemma 3.
    Gemma,
    /// Built in: ChatML with Qwen 2.5's default system text.
    ChatMl,
    /// A Jinja file, or a JSON file with a `chat_template` as `tokenizer_config.json` has one.
    File(PathBuf),
}

impl TemplateChoice {
    /// A built-in name, or a path: `./gemma` is one.
    pub fn parse(text: &str) -> std::result::Result<TemplateChoice, String> {
        match text {
            "" => Err("gemma, chatml or a file".to_string()),
            "gemma" => Ok(TemplateChoice::Gemma),
            "chatml" => Ok(TemplateChoice::ChatMl),
            path => Ok(TemplateChoice::File(PathBuf::from(path))),
        }
    }

    /// Reads and checks it.
    ///
    /// # Errors
    /// The file is not there, or holds no template that can be used.
    pub fn open(&self, tokenizer: &Tokenizer) -> Result<ChatTemplate> {
        match self {
            TemplateChoice::Gemma => Ok(ChatTemplate::Gemma),
            TemplateChoice::ChatMl => Ok(ChatTemplate::ChatMl),
            TemplateChoice::File(path) => {
                let source = read(path)?;
                ChatTemplate::jinja(&source, tokenizer).map_err(|e| e.in_file(path))
            }
        }
    }
}

fn read(path: &Path) -> Result<String> {
    if !path.exists() {
        let message = "is neither a file nor a built-in chat template (gemma, chatml)";
        return Err(Error::input(message).in_file(path));
    }
    if path.extension().is_some_and(|extension| extension == "json") {
        let found = template_in_json(path)?;
        return found.ok_or_else(|| Error::input("holds no \"chat_template\"").in_file(path));
    }
    read_text_any(path, MAX_CONFIG_BYTES)
}

/// As [`TemplateChoice::parse`] takes it.
impl fmt::Display for TemplateChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TemplateChoice::Gemma => f.write_str("gemma"),
            TemplateChoice::ChatMl => f.write_str("chatml"),
            TemplateChoice::File(path) => write!(f, "{}", path.display()),
        }
    }
}
