//! Dropout without state: whether an element is dropped is a function of (key, index), so a resumed or repeated pass drops
//! the same. `out = x / (1 - p)` where kept, 0 where dropped; the backward pass is the same product. Srivastava et al. 2014.

mod cuda;

use crate::device::Device;
use crate::ops::kernel_module::{KernelModule, Role};
use crate::pool::WORTH_SHARING;
use crate::simd::per_isa;
use crate::view::{View, ViewMut};

/// What the kernels of this folder are for.
pub(crate) const MODULES: &[KernelModule] = &[KernelModule::one("dropout", Role::Training)];

/// Elements per task.
const CHUNK: usize = 16 << 10;

/// What tells one mask from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// A key from whatever numbers place the mask: seed, step, sample, layer, target.
    pub fn new(parts: &[u64]) -> Key {
        Key(parts.iter().fold(0, |key, part| mix(key ^ part.wrapping_add(0x9e37_79b9_7f4a_7c15))))
    }
}

impl Key {
    /// The numbers of this key, in order: for what is drawn once, such as an initial weight.
    pub fn numbers(self) -> impl Iterator<Item = u64> {
        (0..).map(move |i| mix(self.0 ^ i))
    }
}

/// The finaliser of SplitMix64 (Steele et al. 2014): a bijection without visible structure.
#[inline(always)]
fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// `out` from `x`, any shape. `p` is the share that is dropped, at least 0 and below 1.
pub fn forward<const R: usize>(device: &Device, mut out: ViewMut<'_, f32, R>, x: View<'_, f32, R>, p: f32, key: Key) {
    assert!(out.shape() == x.shape() && (0.0..1.0).contains(&p));
    let rule = Rule::new(p, key);
    match device {
        Device::Cpu(cpu) => {
            let x = x.host();
            if x.len() < WORTH_SHARING / 8 {
                return drop_some(cpu.isa, out.host_mut(), x, rule, 0);
            }
            cpu.pool.for_chunks(out.host_mut(), CHUNK, &|i, out| {
                let start = i * CHUNK;
                drop_some(cpu.isa, out, &x[start..start + out.len()], rule, start);
            });
        }
        Device::Cuda(cuda) => cuda::forward(cuda, out.ptr(), x.ptr(), x.len(), rule),
    }
}

/// Which elements are kept, and what they are multiplied by.
#[derive(Clone, Copy)]
struct Rule {
    key: Key,
    /// Of the upper 32 bits of the hash, as many values lie below it as are dropped.
    threshold: u64,
    factor: f32,
}

impl Rule {
    fn new(p: f32, key: Key) -> Rule {
        Rule { key, threshold: (f64::from(p) * 4_294_967_296.0) as u64, factor: 1.0 / (1.0 - p) }
    }
}

per_isa! {
    fn drop_some(out: &mut [f32], x: &[f32], rule: Rule, first: usize) = drop_body;
}

#[inline(always)]
fn drop_body(out: &mut [f32], x: &[f32], rule: Rule, first: usize) {
    for (i, (y, x)) in out.iter_mut().zip(x).enumerate() {
        let kept = mix(rule.key.0 ^ (first + i) as u64) >> 32 >= rule.threshold;
        *y = if kept { x * rule.factor } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::assert_same_on_every_isa;

    #[test]
    fn drops_the_share_and_is_a_function_of_key_and_index() {
        let n = 100_000;
        let x = vec![1.0f32; n];
        for p in [0.0f32, 0.1, 0.5, 0.9] {
            let drop = |key| {
                assert_same_on_every_isa(|device| {
                    let mut out = vec![f32::NAN; n];
                    forward(device, ViewMut::new(&mut out, [n]), View::new(&x, [n]), p, key);
                    out
                })
            };
            let (a, b) = (drop(Key::new(&[1, 2])), drop(Key::new(&[2, 1])));
            let dropped = a.iter().filter(|v| **v == 0.0).count() as f64 / n as f64;
            // Four standard deviations of a binomial share.
            assert!((dropped - f64::from(p)).abs() <= 4.0 * (0.25 / n as f64).sqrt(), "{p}: {dropped}");
            assert!(a.iter().all(|v| *v == 0.0 || *v == 1.0 / (1.0 - p)));
            assert_eq!(a == b, p == 0.0, "another key drops others");
            let mut part = vec![0.0; 7];
            let device = Device::cpu(1).unwrap();
            forward(&device, ViewMut::new(&mut part, [7]), View::new(&x[..7], [7]), p, Key::new(&[1, 2]));
            assert_eq!(part, a[..7]);
        }
    }
}
