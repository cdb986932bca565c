//! Checkpoints: generations of a run that survive a crash at any point.
