//! Training against PyTorch and PEFT, and against itself: batches, threads, precision.

mod parity;
mod support;
