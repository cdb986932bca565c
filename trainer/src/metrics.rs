//! One line per optimiser step, `metrics.jsonl`: what reports are made of.
