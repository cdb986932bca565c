//! Gradients through dropout: the oracle is given the masks, and multiplies by them.

use std::sync::Arc;

use lichen_kernels::ops::dropout;
use lichen_kernels::{Device, View, ViewMut};
use lichen_runtime::files::model_source::PartShape;
use lichen_runtime::model::adapter::TARGETS;
use lichen_runtime::ModelConfig;

use super::models::{self, cases, samples, Setup};
use super::oracle::Mask;
use super::parity::{self, Kind, LENGTHS};
use super::{check, Expected, F32_BOUND, LOSS_BOUND};
use crate::data::Sample;
use crate::forward::Dropout;

const DROPOUT: Dropout = Dropout { share: 0.3, seed: 7, step: 5, micro_batch: 0 };

#[test]
fn gradients_equal_the_oracles_with_the_same_masks() {
    for case in cases() {
        let samples = samples(case.config.vocab_size, &LENGTHS);
        for (recompute, max_samples) in [(true, 3), (false, 3), (true, 2)] {
            let setup = Setup { recompute, max_samples, dropout: Some(DROPOUT) };
            let (mut network, mut oracle) = parity::network(&case, Kind::Lora, &LENGTHS, setup);
            let undropped = Expected::new(&oracle, network.mode(), &samples);
            oracle.masks = masks(&case.config, &samples, max_samples);
            let want = Expected::new(&oracle, network.mode(), &samples);
            let report = models::step(&mut network, &samples, setup);
            match check(&want, &network, &report, F32_BOUND, LOSS_BOUND) {
                Ok(worst) => println!("{}, {setup:?}: {worst:?}", case.name),
                Err(why) => panic!("{}, {setup:?}: {why}", case.name),
            }
            let without = check(&undropped, &network, &report, F32_BOUND, LOSS_BOUND);
            assert!(without.is_err(), "{}: the masks have no effect: {without:?}", case.name);
        }
    }
}

/// What the adapters' inputs are multiplied by: the kernel's own pass over ones, for the rows of each micro-batch.
fn masks(config: &ModelConfig, samples: &[Sample], max_samples: usize) -> Vec<Mask> {
    let device = Arc::new(Device::cpu(1).unwrap());
    let mut masks = Vec::new();
    for (layer, target) in (0..config.n_layers).flat_map(|layer| (0..TARGETS.len()).map(move |i| (layer, i))) {
        let PartShape::Matrix(_, inputs) = TARGETS[target].shape(config) else { panic!("targets are matrices") };
        let mut factors = Vec::new();
        for (i, samples) in samples.chunks(max_samples).enumerate() {
            let n = inputs * samples.iter().map(|s| s.ids.len() - 1).sum::<usize>();
            let (ones, mut kept) = (vec![1.0f32; n], vec![0.0f32; n]);
            let key = Dropout { micro_batch: i as u64, ..DROPOUT }.key(layer, target);
            dropout::forward(&device, ViewMut::new(&mut kept, [n]), View::new(&ones, [n]), DROPOUT.share, key);
            factors.extend(kept.into_iter().map(f64::from));
        }
        masks.push(Mask { part: TARGETS[target], layer, factors });
    }
    let all = masks.iter().flat_map(|m| &m.factors);
    let (n_dropped, n) = (all.clone().filter(|f| **f == 0.0).count(), all.count());
    let share = n_dropped as f64 / n as f64;
    assert!((share - f64::from(DROPOUT.share)).abs() < 0.05, "a share of {share} is dropped");
    masks
}
