//! The small model that ships: embedded by the feature `demo`, so that the first command needs no download.

use crate::error::Result;
use crate::files::model_source::ModelSource;

/// What messages call it.
pub const NAME: &str = "lichen-demo";

/// What the program says when it is used.
pub const DESCRIPTION: &str = "lichen-demo, a model of a few megabytes inside this program that knows a few hundred \
    facts in English, Hindi and Kannada; --model PATH uses another";

/// Q8_0, made from a folder trained by host-tools/demo with `lichen-host quantize`.
#[cfg(feature = "demo")]
static FILE: &[u8] = include_bytes!("../../demo/lichen-demo-q8_0.gguf");
#[cfg(not(feature = "demo"))]
static FILE: &[u8] = &[];

/// Length of the embedded file; 0 without one.
pub fn size_bytes() -> usize {
    FILE.len()
}

/// Opens the embedded file.
///
/// # Errors: this build has no embedded model.
pub fn source() -> Result<ModelSource> {
    if FILE.is_empty() {
        return Err(crate::error::Error::usage(format!(
            "this build has no demo model inside: {} is needed",
            crate::setting::MODEL
        )));
    }
    ModelSource::from_bytes(NAME, std::sync::Arc::new(FILE))
}
