//! Training against PyTorch and PEFT, and against itself: batches, threads, precision.

mod layers;
mod parity;
mod support;
