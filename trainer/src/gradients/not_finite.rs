//! What is not a number reaches neither the values nor the moments, and the report names where it was seen.

use super::models::{self, cases, samples, uniform, Case, Setup};
use super::on_cpu;
use super::parity::{self, Kind, LENGTHS};
use crate::data::Sample;
use crate::mutation::active::{self, Mutation};
use crate::mutation::Term;
use crate::network::{Network, StepReport};

const SETUP: Setup = Setup { recompute: true, max_samples: 2, dropout: None };

/// The bits of all that a step may change.
fn state(network: &Network) -> (Vec<u32>, [Vec<u8>; 2], u64) {
    let moments = [false, true].map(|second| {
        let mut bytes = Vec::new();
        network.optimizer.write_moments(second, &mut bytes).unwrap();
        bytes
    });
    (on_cpu(network.values()).iter().map(|v| v.to_bits()).collect(), moments, network.optimizer.t)
}

/// A network that has made one step.
fn trained(case: &Case, kind: Kind) -> (Network, Vec<Sample>) {
    let samples = samples(case.config.vocab_size, &LENGTHS);
    let (mut network, _) = parity::network(case, kind, &LENGTHS, SETUP);
    let before = state(&network);
    let report = network.step(&samples, 1e-3, None).unwrap();
    assert_eq!(report.skipped, None);
    let (values, moments, t) = state(&network);
    assert!(values != before.0 && moments[0] != before.1[0] && moments[1] != before.1[1] && t == 1);
    (network, samples)
}

/// Takes a step that must be skipped for `reason`, and change nothing.
fn check_skipped(network: &mut Network, step: impl FnOnce(&mut Network) -> StepReport, reason: &str) {
    let before = state(network);
    let report = step(network);
    assert_eq!(report.skipped.as_deref(), Some(reason));
    assert!(state(network) == before, "{reason}: the skipped step has changed something");
}

#[test]
fn an_infinite_gradient_changes_nothing() {
    for case in cases() {
        let (mut network, samples) = trained(&case, Kind::Lora);
        // (layer, place, the first tensor in the flat vector that it reaches): behind o of layer 0 lie its q, k and v.
        let tensors = [(1, 0, "layer 0 AttnQ lora_A"), (0, 3, "layer 0 AttnQ lora_A"), (0, 1, "layer 0 AttnQ lora_A")];
        for (layer, place, tensor) in tensors {
            let mutation = Mutation { term: Term::LowRank, layer, place, factor: f32::INFINITY };
            let step = |network: &mut Network| active::with(mutation, || network.step(&samples, 1e-3, None).unwrap()).0;
            check_skipped(&mut network, step, &format!("the gradient of {tensor} is not finite"));
        }
        let report = network.step(&samples, 1e-3, None).unwrap();
        assert_eq!((report.skipped, network.optimizer.t), (None, 2), "the next step is made");
    }
}

#[test]
fn a_value_that_is_no_number_changes_no_other() {
    // In B of down in the last layer of an adapter, and in the last weight of the flat vector.
    for (case, kind) in cases().iter().flat_map(|case| [(case, Kind::Lora), (case, Kind::Full)]) {
        let (mut network, samples) = trained(case, kind);
        network.set_values(|values| *values.last_mut().unwrap() = f32::NAN).unwrap();
        let first = network.mode().name_of(0);
        let step = |network: &mut Network| network.step(&samples, 1e-3, None).unwrap();
        check_skipped(&mut network, step, &format!("the gradient of {first} is not finite"));
        let last = network.mode().name_of(network.mode().n_parameters() - 1);
        assert_eq!(network.first_bad_value(on_cpu(network.values())), Some(last));
    }
}

#[test]
fn a_base_weight_that_is_no_number_changes_nothing() {
    use lichen_kernels::{Device, Format};
    use std::sync::Arc;
    for case in cases() {
        let device = Arc::new(Device::cpu(2).unwrap());
        let samples = samples(case.config.vocab_size, &LENGTHS);
        let mut model = models::model(&case.config, Format::F32, &device);
        let bytes = model.layers[1].up.bytes_mut().unwrap();
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
        let mut network = models::lora(&device, model, &samples, SETUP);
        let n = network.mode().n_parameters();
        for second in [false, true] {
            let moments: Vec<u8> = uniform(5, n, 0.1, 0.2).iter().flat_map(|v| v.to_le_bytes()).collect();
            network.optimizer.read_moments(second, &moments).unwrap();
        }
        let step = |network: &mut Network| network.step(&samples, 1e-3, None).unwrap();
        check_skipped(&mut network, step, "the gradient of layer 0 AttnQ lora_A is not finite");
    }
}
