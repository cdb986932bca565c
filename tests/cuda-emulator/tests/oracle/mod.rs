//! What the tests of attention, norms and sampling share beside `common`: the CPU's side of a comparison.
#![allow(dead_code)]

use lichen_kernels::Device;

use crate::common::{opened, Random};

/// Every architecture's device, and its number.
pub fn for_each_arch(test: impl Fn(&Device, u32)) {
    for cuda in opened() {
        let device = Device::Cuda(cuda.clone());
        test(&device, cuda.arch());
        device.synchronize().unwrap_or_else(|e| panic!("{}: {e}", device.describe()));
    }
}

pub fn cpu() -> Device {
    Device::cpu(1).expect("threads")
}

/// Even numbers in -scale..scale.
pub fn random(n: usize, scale: f32, seed: u64) -> Vec<f32> {
    let mut draw = Random::new(seed);
    (0..n).map(|_| draw.unit() * scale).collect()
}

/// Panics at the first value whose bits differ; NaN equals NaN, whose payloads are the machine's business.
#[track_caller]
pub fn assert_same_bits(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g.to_bits() == w.to_bits() || (g.is_nan() && w.is_nan()), "{what}: [{i}] is {g}, {w} expected");
    }
}
