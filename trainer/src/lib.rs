//! Training on the device itself: LoRA over a frozen base, and full fine-tuning, with hand-written backward passes, inside a
//! memory plan and safe against power cuts.
#![deny(unsafe_code)]

pub mod activations;
pub mod backward;
pub mod batch;
pub mod checkpoint;
pub mod data;
pub mod forward;
pub mod full;
pub mod governor;
#[cfg(test)]
mod gradients;
pub mod job;
mod journal;
pub mod layers;
pub mod lora;
pub mod loss;
pub mod machine;
pub mod metrics;
mod mutation;
pub mod network;
mod note;
pub mod optimizer;
pub mod plan;
#[cfg(feature = "cli")]
pub mod progress;
mod recordings;
pub mod report;
pub mod schedule;
pub mod setting;

pub use job::Job;

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
