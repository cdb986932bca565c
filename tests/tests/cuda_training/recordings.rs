//! Micro-batches of a shape that was there before: replayed, and to the same bits.

use std::sync::Arc;

use lichen_kernels::{Device, Format};
use lichen_tests::heap::measure;
use lichen_trainer::data::Sample;
use lichen_trainer::network::Network;

use crate::networks::*;
use crate::two_devices;

fn networks(device: &Arc<Device>) -> [(&'static str, Network); 2] {
    let host = Arc::new(Device::cpu(1).unwrap());
    let full = full(device.clone(), open(MODELS[1], &host), Format::BF16, Setup::default());
    [("lora", start(MODELS[0], device, Setup::default())), ("full", full)]
}

/// The same lengths and labelled places, other tokens.
fn other_tokens(samples: &[Sample]) -> Vec<Sample> {
    let mut others = samples.to_vec();
    for sample in &mut others {
        sample.ids.iter_mut().for_each(|id| *id = (*id * 7 + 3) % 90);
        sample.labels.iter_mut().filter(|l| **l >= 0).for_each(|l| *l = (*l * 5 + 1) % 90);
    }
    others
}

/// Losses of four steps and the values after them, in bits. With `forgetting`, each step finds that shapes have been there
/// in between which no step shares, and is launched kernel by kernel.
fn train(network: &mut Network, name: &str, forgetting: bool) -> (Vec<u64>, Vec<u32>) {
    let samples = rows(name)[..BATCH].to_vec();
    let data = [samples.clone(), other_tokens(&samples)];
    let mut losses = Vec::new();
    for i in 0..4 {
        losses.push(network.step(&data[i % 2], 1e-3, None).unwrap().loss.to_bits());
        if forgetting {
            for sample in &samples {
                network.evaluate(std::slice::from_ref(sample)).unwrap();
            }
        }
    }
    let values = network.values().unwrap().iter().map(|v| v.to_bits()).collect();
    (losses, values)
}

#[test]
fn steps_of_one_shape_are_recorded_and_have_the_bits_of_those_that_are_not() {
    for device in two_devices() {
        for ((what, mut replayed), (_, mut launched)) in networks(&device).into_iter().zip(networks(&device)) {
            let name = if what == "lora" { MODELS[0] } else { MODELS[1] };
            let got = train(&mut replayed, name, false);
            assert_eq!(replayed.n_recorded(), 1, "{} {what}", device.describe());
            let want = train(&mut launched, name, true);
            assert!(got == want, "{} {what}: {:?} {:?}", device.describe(), got.0, want.0);
            assert!(got.0[0] != got.0[1], "other tokens, other losses");
        }
    }
}

#[test]
fn a_replayed_step_allocates_nothing_and_old_shapes_are_forgotten() {
    for device in two_devices() {
        let mut network = start(MODELS[1], &device, Setup { batch: 1, ..Setup::default() });
        let samples = rows(MODELS[1]);
        let mut take = |samples: &[Sample]| {
            assert_eq!(network.step(samples, 1e-3, None).unwrap().skipped, None);
            network.n_recorded()
        };
        assert_eq!((0..3).map(|_| take(&samples[..1])).collect::<Vec<_>>(), [0, 1, 1]);
        let (n_recorded, heap) = measure(|| take(&samples[..1]));
        assert_eq!((n_recorded, heap.n_allocations), (1, 0), "{}: {heap:?}", device.describe());
        // Four others: a scale is part of a shape.
        for n in 2..6 {
            take(&samples[..n]);
        }
        assert_eq!(take(&samples[..1]), 0, "{}", device.describe());
    }
}
