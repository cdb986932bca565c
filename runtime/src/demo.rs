//! The small model that ships: embedded by the feature `demo`, so that the first command needs no download.

use crate::error::Result;
use crate::model_source::ModelSource;

/// What messages call it.
pub const NAME: &str = "lichen-demo";

/// What the program says when it is used.
pub const DESCRIPTION: &str = "lichen-demo, a model of a few megabytes inside this program that knows a few hundred \
    facts in English, Hindi and Kannada; --model PATH uses another";

#[cfg(feature = "demo")]
static BYTES: &[u8] = include_bytes!("../demo/lichen-demo-q8_0.gguf");

/// Length of the embedded file.
#[cfg(feature = "demo")]
pub fn size_bytes() -> usize {
    BYTES.len()
}

/// Length of the embedded file: there is none.
#[cfg(not(feature = "demo"))]
pub fn size_bytes() -> usize {
    0
}

/// Opens the embedded file.
#[cfg(feature = "demo")]
pub fn source() -> Result<ModelSource> {
    ModelSource::from_bytes(NAME, std::sync::Arc::new(BYTES))
}

/// # Errors: this build has no embedded model.
#[cfg(not(feature = "demo"))]
pub fn source() -> Result<ModelSource> {
    Err(crate::error::Error::usage("this build has no demo model inside: --model PATH is needed"))
}
