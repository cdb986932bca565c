//! The base that an adapter was made for, as the adapter records it: the fingerprint of its bytes, and what it is whatever
//! its format.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::files::model_source::{hex, ModelIdentity, ModelSource, SameModel};
use crate::text::tokenizer::Tokenizer;

/// Where the record stands: `__metadata__` of safetensors, the metadata of a GGUF file.
pub(super) const SHA256_KEY: &str = "lichen.base_sha256";
pub(super) const IDENTITY_KEY: &str = "lichen.base_identity";
/// Longest record that is read; one is about 17,000 bytes.
const MAX_BYTES: usize = 1 << 18;

/// What an adapter says of its base; nothing where another program wrote it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BaseRecord {
    /// Of the bytes, as [`ModelSource::fingerprint`] gives it.
    pub sha256: Option<String>,
    pub identity: Option<ModelIdentity>,
}

/// How an adapter's base and a model compare.
#[derive(Clone, Debug, PartialEq)]
pub enum BaseCheck {
    /// The same bytes, or the adapter says nothing.
    Fits,
    /// The same model in another format.
    OtherFormat,
    /// Another file, and no more is recorded.
    OtherFile,
    /// Another model of the same shape; why, as the end of a sentence.
    OtherModel(String),
}

impl BaseRecord {
    /// # Errors
    /// A weight or the tokenizer cannot be read.
    pub fn of(source: &ModelSource, tokenizer: Option<&Tokenizer>) -> Result<BaseRecord> {
        let identity = ModelIdentity::of(source, tokenizer)?;
        Ok(BaseRecord { sha256: Some(hex(&source.fingerprint())), identity: Some(identity) })
    }

    /// What stands under the keys of a file; and a note where it cannot be used.
    pub(super) fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> (BaseRecord, Option<String>) {
        let sha256 = get(SHA256_KEY).filter(|text| text.len() == 64).map(str::to_string);
        let identity = get(IDENTITY_KEY).map(|text| match text.len() <= MAX_BYTES {
            true => ModelIdentity::parse(text),
            false => Err(Error::input("the record of the base model is too long")),
        });
        match identity.transpose() {
            Ok(identity) => (BaseRecord { sha256, identity }, None),
            Err(e) => (BaseRecord { sha256, identity: None }, Some(e.message().to_string())),
        }
    }

    /// The entries of a file that it is read back from.
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let sha256 = self.sha256.iter().map(|text| (SHA256_KEY, text.clone()));
        sha256.chain(self.identity.iter().map(|identity| (IDENTITY_KEY, identity.to_text()))).collect()
    }

    /// Compares with a model. Its weights are sampled, and its tokenizer asked for, where the bytes differ.
    ///
    /// # Errors
    /// The model is of another shape, or cannot be read.
    pub fn check<T: Borrow<Arc<Tokenizer>>>(
        &self,
        source: &ModelSource,
        tokenizer: impl FnOnce() -> Result<Option<T>>,
    ) -> Result<BaseCheck> {
        let Some(sha256) = &self.sha256 else { return Ok(BaseCheck::Fits) };
        if *sha256 == hex(&source.fingerprint()) {
            return Ok(BaseCheck::Fits);
        }
        let Some(identity) = &self.identity else { return Ok(BaseCheck::OtherFile) };
        let tokenizer = tokenizer()?;
        let here = ModelIdentity::of(source, tokenizer.as_ref().map(|t| &**t.borrow()))?;
        match identity.compare(&here) {
            SameModel::Yes => Ok(BaseCheck::OtherFormat),
            SameModel::Other(why) => Ok(BaseCheck::OtherModel(why)),
            SameModel::OtherShape(shapes) => {
                Err(Error::input(format!("the adapter was made for a model of another shape: {shapes}")))
            }
        }
    }
}
