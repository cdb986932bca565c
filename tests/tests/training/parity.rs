//! The tiny models against PyTorch and PEFT in f32: gradients of the first batch, losses of the first steps.

use std::sync::Arc;

use lichen_kernels::{Device, Format};
use lichen_runtime::files::model_source::Part;

use crate::support::*;

/// Of a tensor's largest entry. The peers' own two kinds of attention differ by 5e-6.
const GRADIENT_BOUND: f64 = 1e-4;
const LOSS_BOUND: f64 = 1e-5;

#[test]
fn gradients_of_an_adapter_equal_pefts() {
    for name in MODELS {
        let golden = Golden::open(name);
        for (recompute, batch) in [(true, BATCH), (false, BATCH), (true, 1), (false, 3)] {
            let device = Arc::new(Device::cpu(2).unwrap());
            let mut network = start(name, &device, Setup { recompute, batch, ..Setup::default() });
            let samples = &rows(name)[..BATCH];
            let report = network.step(samples, 0.0, None).unwrap();
            let want = golden.f64("loss")[0];
            assert!((report.loss - want).abs() <= LOSS_BOUND * want, "{name}: loss {} {want}", report.loss);
            let config = network.model().config.clone();
            let mut worst_seen = 0.0f64;
            for (layer, target, da, db) in layout(&network).pairs(&network.gradients().unwrap()) {
                for (half, got) in [("A", da), ("B", db)] {
                    let tensor = peft_name(&config, layer, target, half);
                    let off = worst(got, &golden.f32(&tensor));
                    assert!(off <= GRADIENT_BOUND, "{name}, {recompute} {batch}: {tensor} is off by {off:.1e}");
                    worst_seen = worst_seen.max(off);
                }
            }
            println!("{name}, recompute {recompute}, batch {batch}: gradients off by at most {worst_seen:.1e}");
        }
    }
}

#[test]
fn ten_steps_of_an_adapter_equal_pefts() {
    for name in MODELS {
        let (golden, samples) = (Golden::open(name), rows(name));
        let device = Arc::new(Device::cpu(2).unwrap());
        let mut network = start(name, &device, Setup::default());
        let losses = golden.f64("losses");
        assert_eq!(losses.len(), 10);
        let mut worst_seen = 0.0f64;
        for (step, want) in losses.iter().enumerate() {
            let batch = &samples[step % 2 * BATCH..][..BATCH];
            let report = network.step(batch, 2e-3, None).unwrap();
            let off = (report.loss - want).abs() / want;
            assert!(off <= LOSS_BOUND, "{name}: step {step}: {} {want}", report.loss);
            worst_seen = worst_seen.max(off);
        }
        println!("{name}: ten losses off by at most {worst_seen:.1e}");
        let config = network.model().config.clone();
        for (layer, target, a, b) in layout(&network).pairs(&network.values().unwrap()) {
            for (half, got) in [("A", a), ("B", b)] {
                let tensor = format!("final.{}", peft_name(&config, layer, target, half));
                // Adam's first steps turn a small gradient's rounding into a share of the learning rate.
                let off = worst(got, &golden.f32(&tensor));
                assert!(off <= 2e-3, "{name}: {tensor} is off by {off:.1e}");
            }
        }
    }
}

#[test]
fn gradients_and_five_steps_of_all_weights_equal_pytorchs() {
    for name in MODELS {
        let (golden, samples) = (Golden::open(name), rows(name));
        for recompute in [true, false] {
            let device = Arc::new(Device::cpu(2).unwrap());
            let setup = Setup { recompute, ..Setup::default() };
            let mut network = full(device.clone(), open(name, &device), Format::F32, setup);
            let mut checked = 0;
            for (step, want) in golden.f64("losses_full").iter().enumerate() {
                let report = network.step(&samples[step % 2 * BATCH..][..BATCH], 1e-3, None).unwrap();
                let off = (report.loss - want).abs() / want;
                assert!(off <= LOSS_BOUND, "{name}: step {step}: {} {want}", report.loss);
                if step == 0 {
                    checked = check_full_gradients(name, &network, &golden, GRADIENT_BOUND);
                }
            }
            let parts = Part::of_model(&network.model().config).count();
            assert_eq!(checked, parts, "{name}: every weight has a gradient in the fixture");
        }
    }
}
