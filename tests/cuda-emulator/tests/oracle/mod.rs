//! What the tests of attention, norms and sampling share: devices and seeded numbers.
#![allow(dead_code)]

use lichen_kernels::cuda::{Cuda, CudaOptions, NOT_COMPILED};
use lichen_kernels::Device;

/// A device for each architecture there is one for; LICHEN_TEST_ARCH takes one alone.
pub fn for_each_arch(test: impl Fn(&Device, u32)) {
    if std::env::var_os("LICHEN_EMULATOR_DEVICES").is_none() {
        std::env::set_var("LICHEN_EMULATOR_DEVICES", "53,72,80,87,90");
    }
    if let Some(why) = NOT_COMPILED {
        assert!(std::env::var_os("LICHEN_REQUIRE_CUDA").is_none(), "{why}");
        return eprintln!("{why}");
    }
    let devices = Cuda::list().expect("a driver");
    let only: Option<u32> = std::env::var("LICHEN_TEST_ARCH").ok().map(|a| a.parse().expect("a number"));
    for arch in [53, 72, 80, 87, 90].into_iter().filter(|a| only.is_none_or(|o| o == *a)) {
        let fits = devices.iter().filter(|d| d.capability >= arch).min_by_key(|d| d.capability);
        let Some(info) = fits else { continue };
        let options = CudaOptions { ordinal: info.ordinal, arch: Some(arch), cache_dir: None };
        let device = Device::Cuda(Cuda::open(&options).expect("a device"));
        test(&device, arch);
        device.synchronize().expect("no failure");
    }
}

pub fn cpu() -> Device {
    Device::cpu(1).expect("threads")
}

/// Uniform numbers in -scale..scale (SplitMix64).
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

/// Panics at the first value whose bits differ; NaN equals NaN.
pub fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan()), "{what}: [{i}] is {g}, {w} expected");
    }
}
