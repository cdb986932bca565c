//! The tiny models against PyTorch and PEFT in f32: gradients of the first batch, losses of the first steps.

use std::sync::Arc;

use lichen_kernels::{Device, Format};
use lichen_runtime::files::model_source::Part;

use crate::networks::*;
use crate::{arch, devices, two_devices};

/// Of a tensor's largest entry. Weights in f32 are multiplied in f32, so before sm_80 it is what the CPU has. From there on
/// attention's backward multiplies bf16, each factor rounded by 2^-9 / sqrt(3) in the mean square, both by 1.6e-3, and a
/// gradient that has come through seven layers by sqrt(7) times that, 4.2e-3; the largest of many mistakes is a few times the
/// usual one. 4.3e-3 was seen.
fn gradient_bound(device: &Device) -> f64 {
    if arch(device) < 80 {
        1e-4
    } else {
        2e-2
    }
}

/// From sm_80 on attention's way forward splits each number in two bf16, 16 bits of 24, and adapters multiply tf32: 11 bits,
/// two factors off by 2^-11 / sqrt(3) of themselves each, 4e-4 of what an adapter adds. That is less than half of what it is
/// added to here, and a loss moves by less than its logits do. 1.3e-5 was seen.
fn loss_bound(device: &Device) -> f64 {
    if arch(device) < 80 {
        1e-5
    } else {
        1e-4
    }
}

/// Of the losses of later steps: Adam's first ones turn a small gradient's rounding into a share of the learning rate.
const LATER_LOSS_BOUND: f64 = 1e-3;

#[test]
fn gradients_of_an_adapter_equal_pefts() {
    for device in devices() {
        for (name, recompute, batch) in [(MODELS[0], true, BATCH), (MODELS[1], true, BATCH), (MODELS[1], false, 3)] {
            let golden = Golden::open(name);
            let mut network = start(name, &device, Setup { recompute, batch, ..Setup::default() });
            let report = network.step(&rows(name)[..BATCH], 0.0, None).unwrap();
            let want = golden.f64("loss")[0];
            let off = (report.loss - want).abs() / want;
            assert!(off <= loss_bound(&device), "{} {name}: loss {} {want}", device.describe(), report.loss);
            let config = network.model().config.clone();
            let mut worst_seen = 0.0f64;
            for (layer, target, da, db) in layout(&network).pairs(&network.gradients().unwrap()) {
                for (half, got) in [("A", da), ("B", db)] {
                    let tensor = peft_name(&config, layer, target, half);
                    let off = worst(got, &golden.f32(&tensor));
                    let case = format!("{} {name}, batch {batch}: {tensor}", device.describe());
                    assert!(off <= gradient_bound(&device), "{case} is off by {off:.1e}");
                    worst_seen = worst_seen.max(off);
                }
            }
            println!("{} {name}: loss off by {off:.1e}, gradients by {worst_seen:.1e}", device.describe());
        }
    }
}

#[test]
fn ten_steps_of_an_adapter_equal_pefts() {
    for device in two_devices() {
        for name in MODELS {
            let (golden, samples) = (Golden::open(name), rows(name));
            let mut network = start(name, &device, Setup::default());
            let losses = golden.f64("losses");
            assert_eq!(losses.len(), 10);
            let mut worst_seen = 0.0f64;
            for (step, want) in losses.iter().enumerate() {
                let report = network.step(&samples[step % 2 * BATCH..][..BATCH], 2e-3, None).unwrap();
                let off = (report.loss - want).abs() / want;
                let case = format!("{} {name}: step {step}", device.describe());
                assert!(off <= LATER_LOSS_BOUND, "{case}: {} {want}", report.loss);
                assert_eq!(report.skipped, None, "{case}");
                worst_seen = worst_seen.max(off);
            }
            println!("{} {name}: ten losses off by at most {worst_seen:.1e}", device.describe());
        }
    }
}

#[test]
fn gradients_and_five_steps_of_all_weights_equal_pytorchs() {
    // A model that is to change is on the host before.
    let host = Arc::new(Device::cpu(1).unwrap());
    for device in two_devices() {
        for name in MODELS {
            let (golden, samples) = (Golden::open(name), rows(name));
            let mut network = full(device.clone(), open(name, &host), Format::F32, Setup::default());
            let mut worst_seen = 0.0f64;
            for (step, want) in golden.f64("losses_full").iter().enumerate() {
                let report = network.step(&samples[step % 2 * BATCH..][..BATCH], 1e-3, None).unwrap();
                let off = (report.loss - want).abs() / want;
                let case = format!("{} {name}: step {step}", device.describe());
                assert!(off <= LATER_LOSS_BOUND, "{case}: {} {want}", report.loss);
                worst_seen = worst_seen.max(off);
                if step == 0 {
                    let parts = Part::of_model(&network.model().config).count();
                    assert_eq!(check_full_gradients(&case, &network, &golden, gradient_bound(&device)), parts);
                }
            }
            println!("{} {name}: five losses off by at most {worst_seen:.1e}", device.describe());
        }
    }
}
