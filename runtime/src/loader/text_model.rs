//! A model's text side alone: tokens and chat template, without weights.

use std::path::Path;
use std::sync::OnceLock;

use super::prepared::open_tokenizer;
use super::{demo, EngineOptions};
use crate::error::{Error, Result};
use crate::files::model_source::ModelSource;
use crate::model_config::Architecture;
use crate::setting::TOKENS;
use crate::text::chat_template::ChatTemplate;
use crate::text::tokenizer::Tokenizer;

/// A model whose files are open and whose weights nobody needs.
pub struct TextModel {
    /// The path, or the demo model's name.
    pub name: String,
    pub tokenizer: Tokenizer,
    source: ModelSource,
    template: OnceLock<ChatTemplate>,
}

impl TextModel {
    /// # Errors
    /// What is missing, malformed or not supported, in one sentence that names the file.
    pub fn open(options: &EngineOptions) -> Result<TextModel> {
        let source = match &options.model {
            Some(path) => ModelSource::open(path)?,
            None => demo::source()?,
        };
        let name = options.model.as_deref().map_or(demo::NAME.to_string(), |path| path.display().to_string());
        let tokenizer = open_tokenizer(&source)?.ok_or_else(|| no_tokenizer(&name))?;
        let template = OnceLock::new();
        if let Some(choice) = &options.chat_template {
            let chosen = choice.open(&tokenizer)?;
            template.get_or_init(|| chosen);
        }
        Ok(TextModel { name, tokenizer, source, template })
    }

    /// The template that was asked for, the model's own, or the built-in one that fits it.
    ///
    /// # Errors: its own cannot be used.
    pub fn chat_template(&self) -> Result<&ChatTemplate> {
        let architecture = self.source.config().architecture;
        template_of(&self.template, Some(&self.source), architecture, &self.tokenizer, &self.name)
    }
}

pub(super) fn no_tokenizer(name: &str) -> Error {
    Error::input(format!("no tokenizer.json in this folder: text needs one, {TOKENS} work without"))
        .in_file(Path::new(name))
}

/// What `held` holds, else the model's own template, else the built-in one that fits it.
pub(super) fn template_of<'a>(
    held: &'a OnceLock<ChatTemplate>,
    source: Option<&ModelSource>,
    architecture: Architecture,
    tokenizer: &Tokenizer,
    name: &str,
) -> Result<&'a ChatTemplate> {
    if let Some(template) = held.get() {
        return Ok(template);
    }
    let own = source.and_then(|source| source.chat_template());
    let template = ChatTemplate::new(own.as_deref(), architecture, tokenizer);
    let template = template.map_err(|e| e.in_file(Path::new(name)))?;
    Ok(held.get_or_init(|| template))
}
