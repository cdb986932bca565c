//! The trainer's gradients in f32 against the oracle's.

use std::sync::Arc;

use lichen_kernels::{Device, Format};
use lichen_runtime::ModelConfig;

use super::models::{self, cases, samples, Case, Setup};
use super::oracle::Oracle;
use super::{check, Expected, F32_BOUND, LOSS_BOUND};
use crate::layers::Layers;
use crate::machine::LOSS_ROWS;
use crate::network::Network;

/// Ragged: one that is a single row, and two that are longer than a local layer sees.
pub const LENGTHS: [usize; 3] = [7, 2, 9];

/// What a test trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lora,
    Full,
}

/// A network over F32 weights, and what the oracle makes of its weights.
pub fn network(case: &Case, kind: Kind, lengths: &[usize], setup: Setup) -> (Network, Oracle) {
    let device = Arc::new(Device::cpu(2).unwrap());
    let (model, samples) =
        (|| models::model(&case.config, Format::F32, &device), samples(case.config.vocab_size, lengths));
    let network = match kind {
        Kind::Lora => models::lora(&device, model(), &samples, setup),
        Kind::Full => models::full(&device, model(), Format::F32, &samples, setup),
    };
    let oracle = Oracle::new(&model(), models::adapter(&network));
    (network, oracle)
}

#[test]
fn every_entry_of_every_gradient_equals_the_oracles() {
    for case in cases() {
        check_case(&case, &LENGTHS);
    }
}

#[test]
fn more_targets_than_a_chunk_of_logits_holds() {
    let lengths = [3, LOSS_ROWS + 48];
    let case = &cases()[3];
    let targets: usize = samples(case.config.vocab_size, &lengths).iter().map(crate::batch::n_targets).sum();
    assert!(targets > LOSS_ROWS, "{targets} targets");
    check_case(case, &lengths);
}

/// Pairs on some layers alone: the same gradients, and none of the layers before them is walked back.
#[test]
fn gradients_of_some_layers_equal_the_oracles() {
    for case in cases() {
        let is_global =
            if case.config.sliding_window.is_some() { vec![false, true, false, false, true] } else { vec![true; 5] };
        let case = Case { config: ModelConfig { n_layers: 5, is_global, ..case.config }, ..case };
        let samples = samples(case.config.vocab_size, &LENGTHS);
        for (layers, first_layer) in [("3-4", 3), ("4", 4), ("1,3", 1), ("2,4", 2), ("0", 0)] {
            let layers = Layers::parse(layers).unwrap();
            for recompute in [false, true] {
                let device = Arc::new(Device::cpu(2).unwrap());
                let setup = Setup { recompute, max_samples: 2, dropout: None };
                let model = || models::model(&case.config, Format::F32, &device);
                let mut network = models::lora_of(&device, model(), &layers, &samples, setup);
                assert_eq!(network.mode().first_layer(), first_layer);
                let oracle = Oracle::new(&model(), models::adapter(&network));
                let want = Expected::new(&oracle, network.mode(), &samples);
                let report = models::step(&mut network, &samples, setup);
                if let Err(why) = check(&want, &network, &report, F32_BOUND, LOSS_BOUND) {
                    panic!("{}, layers {layers}, {setup:?}: {why}", case.name);
                }
            }
        }
    }
}

fn check_case(case: &Case, lengths: &[usize]) {
    let samples = samples(case.config.vocab_size, lengths);
    for kind in [Kind::Lora, Kind::Full] {
        let mut expected = None;
        // Alone and together, with everything kept and with layers recomputed.
        for (recompute, max_samples) in [(false, 3), (true, 3), (true, 1), (false, 2)] {
            let setup = Setup { recompute, max_samples, dropout: None };
            let (mut network, oracle) = network(case, kind, lengths, setup);
            let want = expected.get_or_insert_with(|| Expected::new(&oracle, network.mode(), &samples));
            let report = models::step(&mut network, &samples, setup);
            match check(want, &network, &report, F32_BOUND, LOSS_BOUND) {
                Ok(worst) => println!("{}, {kind:?}, {setup:?}: off by at most {worst:?}", case.name),
                Err(why) => panic!("{}, {kind:?}, {setup:?}: {why}", case.name),
            }
        }
    }
}
