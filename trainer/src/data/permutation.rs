//! An order of n things as a function of a key: no list to keep, no state to save.
//!
//! A Feistel network permutes the 4^h numbers below the smallest such power that is at least n; a number that lands at n
//! or above is permuted again until it lands below (cycle walking, three times on average at worst). Both steps can be
//! undone, so what is left is a permutation of 0..n.

/// Rounds of the network. Four mix; the halves of a short list have one bit, and twelve cost 30 ns.
const N_ROUNDS: usize = 12;
/// 2^64 over the golden ratio: consecutive multiples of it are far apart.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// What an order is for: orders of one seed for different purposes are unrelated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The order of an epoch's samples.
    Epoch(u64),
    /// Which rows are kept for evaluation.
    EvalSplit,
}

/// A permutation of 0..n.
#[derive(Clone, Debug)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; N_ROUNDS],
}

impl Permutation {
    pub fn new(n: usize, seed: u64, purpose: Purpose) -> Self {
        let n = n as u64;
        let n_bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        let (tag, number) = match purpose {
            Purpose::Epoch(epoch) => (*b"epoch   ", epoch),
            Purpose::EvalSplit => (*b"eval    ", 0),
        };
        let key = mix(mix(seed ^ u64::from_le_bytes(tag)).wrapping_add(number));
        let keys = std::array::from_fn(|round| mix(key.wrapping_add(GAMMA.wrapping_mul(round as u64 + 1))));
        Permutation { n, half_bits: n_bits.div_ceil(2).max(1), keys }
    }

    /// What stands at place `i`.
    pub fn at(&self, i: usize) -> usize {
        let mut place = i as u64;
        assert!(place < self.n, "place {i} of {}", self.n);
        loop {
            place = self.shuffled(place);
            if place < self.n {
                return place as usize;
            }
        }
    }

    /// The network over 2 * half_bits bits.
    fn shuffled(&self, place: u64) -> u64 {
        let mask = (1u64 << self.half_bits) - 1;
        let (mut left, mut right) = (place >> self.half_bits, place & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(key ^ right) & mask));
        }
        left << self.half_bits | right
    }
}

/// Every bit of the result depends on every bit of `x`, and no two `x` have the same (the last step of SplitMix64).
fn mix(x: u64) -> u64 {
    let mut z = x;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(n: usize, seed: u64, purpose: Purpose) -> Vec<usize> {
        let permutation = Permutation::new(n, seed, purpose);
        (0..n).map(|i| permutation.at(i)).collect()
    }

    #[test]
    fn every_number_stands_once() {
        for n in (1..=300).chain([1023, 1024, 1025, 4096, 4097, 52_002, 65_536, 65_537]) {
            for (seed, purpose) in [(0, Purpose::Epoch(0)), (u64::MAX, Purpose::Epoch(7)), (42, Purpose::EvalSplit)] {
                let mut order = order(n, seed, purpose);
                order.sort_unstable();
                assert!(order.iter().copied().eq(0..n), "n = {n}, seed {seed}, {purpose:?}");
            }
        }
    }

    #[test]
    fn huge_lists_work_place_by_place() {
        for n in [u32::MAX as usize, (1 << 40) + 1, usize::MAX >> 1] {
            let permutation = Permutation::new(n, 1, Purpose::Epoch(0));
            let mut seen: Vec<usize> = (0..1000).map(|i| permutation.at(i)).collect();
            assert!(seen.iter().all(|&place| place < n));
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 1000, "n = {n}");
        }
    }

    #[test]
    fn seeds_epochs_and_purposes_differ() {
        let base = order(100, 1, Purpose::Epoch(0));
        assert_ne!(base, (0..100).collect::<Vec<_>>());
        assert_ne!(base, order(100, 2, Purpose::Epoch(0)));
        assert_ne!(base, order(100, 1, Purpose::Epoch(1)));
        assert_ne!(base, order(100, 1, Purpose::EvalSplit));
        assert_eq!(base, order(100, 1, Purpose::Epoch(0)));
    }

    /// Each number must come first, and last, about equally often. 2,000 epochs: a share of 2,000 / n has a standard
    /// deviation below its square root, and six of them are allowed.
    #[test]
    fn no_number_is_preferred() {
        for n in [2, 3, 5, 8, 17, 100] {
            for place in [0, n - 1] {
                let mut counts = vec![0u32; n];
                for epoch in 0..2000 {
                    counts[Permutation::new(n, 3, Purpose::Epoch(epoch)).at(place)] += 1;
                }
                let mean = 2000.0 / n as f64;
                let worst = counts.iter().map(|&c| (f64::from(c) - mean).abs()).fold(0.0, f64::max);
                assert!(worst <= 6.0 * mean.sqrt(), "n = {n}, place {place}: {counts:?}");
            }
        }
    }

    /// A run that goes on after an update of the program must see the same order.
    #[test]
    fn orders_stay_what_they_are() {
        assert_eq!(order(10, 0, Purpose::Epoch(0)), GOLDEN_EPOCH_0);
        assert_eq!(order(10, 0, Purpose::Epoch(1)), GOLDEN_EPOCH_1);
        assert_eq!(order(10, 0, Purpose::EvalSplit), GOLDEN_EVAL);
        let large = Permutation::new(52_002, 1234, Purpose::Epoch(3));
        assert_eq!([0, 1, 52_001].map(|i| large.at(i)), GOLDEN_LARGE);
    }

    // The definition once more, in Python 3, from which these come: at(10, 0, "epoch", 0, i) and so on.
    //     M = 2**64 - 1
    //     def mix(z):
    //         z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & M
    //         z = (z ^ z >> 27) * 0x94D049BB133111EB & M
    //         return z ^ z >> 31
    //     def at(n, seed, tag, number, i):
    //         key = mix(mix(seed ^ int.from_bytes(tag.ljust(8).encode(), "little")) + number & M)
    //         h = max(1, ((n - 1).bit_length() + 1) // 2)
    //         while True:
    //             l, r = i >> h, i % 2**h
    //             for k in range(1, 13):
    //                 l, r = r, l ^ mix(mix(key + k * 0x9E3779B97F4A7C15 & M) ^ r) % 2**h
    //             i = l << h | r
    //             if i < n: return i
    const GOLDEN_EPOCH_0: [usize; 10] = [9, 0, 5, 8, 2, 3, 7, 1, 4, 6];
    const GOLDEN_EPOCH_1: [usize; 10] = [8, 9, 5, 1, 4, 3, 2, 6, 0, 7];
    const GOLDEN_EVAL: [usize; 10] = [3, 0, 7, 8, 2, 9, 1, 4, 5, 6];
    const GOLDEN_LARGE: [usize; 3] = [7106, 45361, 5448];
}
