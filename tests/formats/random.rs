//! A seeded random source, the same on every platform.

/// SplitMix64 (Steele, Lea, Flood 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in `0..n`; 0 for an empty range.
    pub fn below(&mut self, n: usize) -> usize {
        match n {
            0 => 0,
            _ => (self.number() % n as u64) as usize,
        }
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// The seed of a random test: `LICHEN_SEED`, or the given default; printed, so that a failure can be replayed.
pub fn seed(default: u64) -> u64 {
    let seed = std::env::var("LICHEN_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(default);
    println!("LICHEN_SEED={seed}");
    seed
}

/// How many inputs a random test tries: `default` times `LICHEN_FUZZ_SCALE` (1 when unset).
pub fn n_inputs(default: usize) -> usize {
    let scale: f64 = std::env::var("LICHEN_FUZZ_SCALE").ok().and_then(|s| s.parse().ok()).unwrap_or(1.0);
    (default as f64 * scale) as usize
}
