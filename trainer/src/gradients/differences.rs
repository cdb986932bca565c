//! The oracle's gradients against differences of its own loss.

use std::ops::Range;
use std::sync::Arc;

use lichen_kernels::ops::dropout::Key;
use lichen_kernels::{Device, Format};

use super::models::{self, cases, samples, Case, Setup};
use super::oracle::Oracle;
use crate::data::Sample;

/// Of a tensor's largest entry.
const BOUND: f64 = 1e-6;
/// Weights are of the order of 0.2. Rounding disturbs a difference by about 2^-52 / STEP = 2e-13 for each unit of loss, and
/// the first term that four points leave out is of the order of STEP^4 = 1e-12.
const STEP: f64 = 1e-3;
/// Entries of a tensor that are compared, beside the one with the largest slope.
const ENTRIES: usize = 6;

#[test]
fn gradients_of_the_oracle_equal_four_point_differences() {
    for case in cases() {
        // One row, and more than the window of a local layer.
        let samples = samples(case.config.vocab_size, &[2, 6]);
        let worst = check(&case, &samples);
        println!("{}: four points differ by at most {worst:.1e}", case.name);
    }
}

/// The worst difference over a sample of each tensor, of the base and of the adapter.
fn check(case: &Case, samples: &[Sample]) -> f64 {
    let device = Arc::new(Device::cpu(1).unwrap());
    let model = || models::model(&case.config, Format::F32, &device);
    let setup = Setup { recompute: false, max_samples: samples.len(), dropout: None };
    let network = models::lora(&device, model(), samples, setup);
    let mut oracle = Oracle::new(&model(), models::adapter(&network));
    let (_, gradients) = oracle.loss_and_gradients(samples);
    let (tensors, mut worst, mut n_compared) = (oracle.tensors().to_vec(), 0.0f64, 0);
    for (n, (tensor, range)) in tensors.iter().enumerate() {
        let largest = range.clone().max_by(|a, b| gradients[*a].abs().total_cmp(&gradients[*b].abs()));
        let largest = largest.expect("a tensor has entries");
        let unit = gradients[largest].abs();
        assert!(unit > 1e-6, "{}: the gradient of {tensor:?} is {unit} at most", case.name);
        for i in entries(n, range.clone()).into_iter().chain([largest]) {
            let want = four_points(&mut oracle, samples, i);
            let off = (gradients[i] - want).abs() / unit;
            let at = i - range.start;
            assert!(off <= BOUND, "{}: {tensor:?}[{at}] is {}, four points say {want}", case.name, gradients[i]);
            worst = worst.max(off);
            n_compared += 1;
        }
    }
    assert_eq!(n_compared, tensors.len() * (ENTRIES + 1));
    worst
}

/// Entries of a tensor, each once.
fn entries(seed: usize, range: Range<usize>) -> Vec<usize> {
    let mut found = Vec::new();
    for bits in Key::new(&[seed as u64]).numbers() {
        let i = range.start + (bits % range.len() as u64) as usize;
        if !found.contains(&i) {
            found.push(i);
        }
        if found.len() == ENTRIES {
            break;
        }
    }
    found
}

/// The slope of the loss by `values[i]`: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h.
fn four_points(oracle: &mut Oracle, samples: &[Sample], i: usize) -> f64 {
    let value = oracle.values[i];
    let mut at = |steps: f64| {
        oracle.values[i] = value + steps * STEP;
        oracle.loss(samples)
    };
    let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * STEP);
    oracle.values[i] = value;
    slope
}
