//! Training on the device itself: LoRA over a frozen base, and full fine-tuning, with hand-written backward passes, inside a
//! memory plan and safe against power cuts.
#![deny(unsafe_code)]

pub mod checkpoint;
pub mod data;
pub mod governor;
pub mod metrics;
pub mod report;
