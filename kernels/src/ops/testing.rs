//! What the op tests share: seeded data, and the check that every instruction set gives the same bits.

use crate::device::Device;
use crate::simd::Isa;

/// Uniform numbers in -scale..scale, the same on every machine (SplitMix64).
pub fn random(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            ((z >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
        })
        .collect()
}

/// Runs `compute` on every available instruction set with 1 and 3 threads and returns the scalar result; panics when
/// any other differs in a single bit.
pub fn assert_same_on_every_isa(compute: impl Fn(&Device) -> Vec<f32>) -> Vec<f32> {
    let scalar = compute(&Device::cpu_with_isa(1, Isa::Scalar).expect("always there"));
    for isa in Isa::ALL {
        for n_threads in [1, 3] {
            let Some(device) = Device::cpu_with_isa(n_threads, isa) else { continue };
            let got = compute(&device);
            assert_eq!(got.len(), scalar.len());
            for (i, (g, w)) in got.iter().zip(&scalar).enumerate() {
                let same = g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan());
                assert!(same, "{} with {n_threads} threads: [{i}] is {g}, the oracle has {w}", isa.name());
            }
        }
    }
    scalar
}
