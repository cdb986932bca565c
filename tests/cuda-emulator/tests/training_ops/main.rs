//! What training alone launches, beside its version on the CPU, on every architecture. Attention and products have tests of
//! their own.

#[path = "../common/mod.rs"]
mod common;
#[path = "../oracle/mod.rs"]
mod oracle;
mod support;

mod elements;
mod loss;
mod norms;
mod optimiser;
mod recording;
mod weights;
