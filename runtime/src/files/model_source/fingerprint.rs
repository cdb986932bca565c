//! The identity of a model, from samples of its weights.

use sha2::{Digest, Sha256};

use super::{Backing, ModelSource, Part};

const SAMPLE_BYTES: usize = 4096;

pub(super) fn of(source: &ModelSource) -> [u8; 32] {
    let mut hash = Sha256::new();
    // Debug output of the config names every field; a new field changes the fingerprint, which is what is wanted.
    hash.update(format!("{:?}\n", source.config()));
    for (part, layer) in Part::of_model(source.config()) {
        let planes = match &source.backing {
            Backing::Gguf(model) => model.planes(part, layer),
            Backing::HuggingFace(model) => model.planes(part, layer),
        };
        for (name, kind, bytes) in planes {
            let bytes = bytes.as_slice();
            hash.update(format!("{name} {kind} {}\n", bytes.len()));
            let n = SAMPLE_BYTES.min(bytes.len());
            let middle = (bytes.len() - n) / 2;
            for start in [0, middle, bytes.len() - n] {
                hash.update(&bytes[start..start + n]);
            }
        }
    }
    hash.finalize().into()
}
