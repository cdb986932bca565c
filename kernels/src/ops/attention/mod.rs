//! Causal attention with grouped query heads: over keys and values that are stored ([`forward`], in `cache`), and of whole
//! sequences for training ([`train`]), where nothing is stored.

pub(crate) mod cache;
pub mod train;

pub use cache::{forward, Attention, KvFormat, KvStore, PageTable, QkNorm, Scratch, PAGE};

use crate::math;
use crate::simd::{fold_lanes, LANES};

/// Replaces scores by `exp(score - max)` and returns their sum.
#[inline(always)]
fn exponentials(scores: &mut [f32], max: f32) -> f32 {
    let mut acc = [0.0f32; LANES];
    let mut chunks = scores.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (s, a) in chunk.iter_mut().zip(&mut acc) {
            *s = math::exp(*s - max);
            *a += *s;
        }
    }
    for (s, a) in chunks.into_remainder().iter_mut().zip(&mut acc) {
        *s = math::exp(*s - max);
        *a += *s;
    }
    fold_lanes(acc)
}
