//! One step: equal to the CPU's over rounded weights, to itself in every bit, and without a new allocation.

use std::sync::Arc;

use lichen_kernels::{Device, Format};
use lichen_tests::heap::measure;
use lichen_trainer::forward::Dropout;
use lichen_trainer::machine::prepare_kernels;
use lichen_trainer::network::{Network, StepReport};

use crate::networks::*;
use crate::{common, devices, two_devices};

const DROPOUT: Dropout = Dropout { share: 0.1, seed: 3, step: 1, micro_batch: 0 };

/// Of the length of the difference. Both sides round: the CPU the factors of its backward products, and where it has the
/// instruction of its forward ones, to bf16; a GPU those of its backward products to bf16 and the forward ones to f16. A
/// factor in bf16 is off by 2^-9 / sqrt(3) in the mean square, a product of two by 1.6e-3, and what has come through the seven
/// products of seven layers there and back, some hundred in all but a few on each path, by a few times that. 1.9e-2 was seen.
const DIFFERENCE_BOUND: f64 = 4e-2;
/// The same of a loss near its start, which moves little with its logits.
const LOSS_BOUND: f64 = 2e-3;

/// A network with a random adapter, neither of its halves zero.
fn adapted(path: &str, device: &Arc<Device>, setup: Setup) -> Network {
    let mut network = lora(device.clone(), open(path, device), setup);
    let layout = layout(&network).clone();
    let fill = |values: &mut [f32]| {
        layout.initialise(values, 1);
        // B too: a hash of the place, of the order of a hundredth.
        for (i, v) in values.iter_mut().enumerate().filter(|(_, v)| **v == 0.0) {
            *v = ((i as u32).wrapping_mul(2_654_435_761) >> 16) as f32 / 65_536.0 * 0.02 - 0.01;
        }
    };
    network.set_values(fill).unwrap();
    network
}

fn step(network: &mut Network, name: &str, has_dropout: bool) -> StepReport {
    network.step(&rows(name)[..BATCH], 1e-3, has_dropout.then_some(DROPOUT)).unwrap()
}

/// |got - want| / |want|; NaN counts as infinite.
fn difference(got: &[f32], want: &[f32]) -> f64 {
    let squares = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let off = squares(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - f64::from(*w)));
    let off = off / squares(&mut want.iter().map(|w| f64::from(*w)));
    if off.is_nan() {
        f64::INFINITY
    } else {
        off
    }
}

#[test]
fn a_step_over_rounded_weights_equals_the_cpus() {
    let cpu = Arc::new(Device::cpu(2).unwrap());
    for (path, rows, has_dropout) in [
        ("tiny-gemma3/tiny-gemma3-q8_0.gguf", MODELS[0], true),
        ("tiny-gemma3-nf4", MODELS[0], false),
        ("tiny-qwen2-untied/tiny-qwen2-untied-q8_0.gguf", MODELS[1], true),
    ] {
        let setup = Setup { has_dropout, ..Setup::default() };
        let mut want = adapted(path, &cpu, setup);
        let wanted = step(&mut want, rows, has_dropout);
        for device in devices() {
            let mut got = adapted(path, &device, setup);
            let report = step(&mut got, rows, has_dropout);
            let loss = (report.loss - wanted.loss).abs() / wanted.loss;
            let norm = (report.gradient_norm - wanted.gradient_norm).abs() / wanted.gradient_norm;
            let off = difference(&got.gradients().unwrap(), &want.gradients().unwrap());
            let case = format!("{} {path}", device.describe());
            println!("{case}: loss off by {loss:.1e}, norm {norm:.1e}, gradients {off:.1e}");
            assert!(loss <= LOSS_BOUND, "{case}: loss {} {}", report.loss, wanted.loss);
            assert!(norm <= DIFFERENCE_BOUND, "{case}: norm {} {}", report.gradient_norm, wanted.gradient_norm);
            assert!(off <= DIFFERENCE_BOUND, "{case}: gradients are off by {off}");
            // Other masks would show: a tenth of an adapter's inputs.
            if has_dropout {
                step(&mut got, rows, false);
                let other = difference(&got.gradients().unwrap(), &want.gradients().unwrap());
                assert!(other > DIFFERENCE_BOUND, "{case}: without dropout {other}");
            }
        }
    }
}

/// What a network holds after a step, in bits.
fn bits(network: &Network) -> [Vec<u32>; 2] {
    [network.gradients(), network.values()].map(|v| v.unwrap().iter().map(|v| v.to_bits()).collect())
}

#[test]
fn the_same_bits_again_and_whatever_is_recomputed() {
    for device in two_devices() {
        for (path, name) in [("tiny-gemma3/tiny-gemma3-q8_0.gguf", MODELS[0]), (MODELS[1], MODELS[1])] {
            let setup = Setup { has_dropout: true, ..Setup::default() };
            let run = |setup| {
                let mut network = adapted(path, &device, setup);
                let losses = [1, 2].map(|_| step(&mut network, name, true).loss.to_bits());
                (losses, bits(&network))
            };
            let first = run(setup);
            assert!(first == run(setup), "{} {path}: a second run", device.describe());
            let kept = run(Setup { recompute: false, ..setup });
            assert!(first == kept, "{} {path}: with every layer kept", device.describe());
        }
    }
}

/// The weights that the forward pass multiplies follow the values, and come from them again.
#[test]
fn full_training_in_bf16_goes_down_and_begins_where_it_was_set() {
    let host = Arc::new(Device::cpu(1).unwrap());
    let name = MODELS[1];
    for device in two_devices() {
        let samples = &rows(name)[..BATCH];
        let new = || full(device.clone(), open(name, &host), Format::BF16, Setup::default());
        let mut network = new();
        let before = network.evaluate(samples).unwrap();
        for _ in 0..3 {
            assert_eq!(network.step(samples, 1e-3, None).unwrap().skipped, None);
        }
        let after = network.evaluate(samples).unwrap();
        assert!(after < before, "{}: {before}, then {after}", device.describe());
        let values = network.values().unwrap().into_owned();
        let mut other = new();
        other.set_values(|v| v.copy_from_slice(&values)).unwrap();
        assert_eq!(other.evaluate(samples).unwrap().to_bits(), after.to_bits(), "{}", device.describe());
    }
}

#[test]
fn a_step_allocates_nothing() {
    for device in two_devices() {
        let cuda = common::cuda(&device);
        let mut network = start(MODELS[1], &device, Setup { has_dropout: true, ..Setup::default() });
        let samples = &rows(MODELS[1])[..BATCH];
        let take = |network: &mut Network| {
            let report = network.step(samples, 1e-3, Some(DROPOUT)).unwrap();
            assert_eq!(report.skipped, None);
        };
        take(&mut network);
        let free = cuda.free_bytes().unwrap();
        let ((), heap) = measure(|| (0..2).for_each(|_| take(&mut network)));
        assert_eq!(heap.n_allocations, 0, "{}: {heap:?}", device.describe());
        // Others may use a real device at the same time, and other tests the emulator: it can only be asked for less.
        if cuda.info().is_emulated() {
            println!("{}: {} bytes left before, {} after", device.describe(), free, cuda.free_bytes().unwrap());
        }
    }
}

/// Nothing is compiled between two steps.
#[test]
fn a_step_launches_what_was_prepared() {
    let cpu = Arc::new(Device::cpu(1).unwrap());
    for device in two_devices() {
        let prepared = |formats: &[Format]| {
            let device = Arc::new(Device::Cuda(common::reopen(common::cuda(&device))));
            prepare_kernels(&device, formats, None).unwrap();
            device
        };
        let check = |mut network: Network, device: &Device, what: &str| {
            network.step(&rows(MODELS[1])[..BATCH], 1e-3, None).unwrap();
            assert_eq!(common::cuda(device).n_late(), 0, "{} {what}", device.describe());
        };
        for format in [Format::F32, Format::BF16] {
            let device = prepared(&[format]);
            let network = full(device.clone(), open(MODELS[1], &cpu), format, Setup::default());
            check(network, &device, &format!("every weight, {format}"));
        }
        // Its matrices are F32.
        let device = prepared(&[Format::F32]);
        check(start(MODELS[1], &device, Setup::default()), &device, "an adapter");
    }
}

/// What is not a number is found where it lies, and nothing is changed by it.
#[test]
fn what_is_not_finite_is_named_and_never_applied() {
    for device in two_devices() {
        let mut network = start(MODELS[1], &device, Setup::default());
        network.set_values(|values| *values.last_mut().unwrap() = f32::NAN).unwrap();
        let before = network.values().unwrap().into_owned();
        let report = network.step(&rows(MODELS[1])[..BATCH], 1e-3, None).unwrap();
        let why = report.skipped.unwrap_or_else(|| panic!("{}: the step was taken", device.describe()));
        assert!(why.starts_with("the gradient of layer 0 AttnQ lora_A"), "{why}");
        let after = network.values().unwrap();
        assert!(after.iter().zip(&before).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", device.describe());
        assert_eq!(network.optimizer.t, 0);
    }
}

/// Weights in int8 meet activations in f16. What is skipped is counted, and nothing else is.
#[test]
fn what_halves_cannot_hold_is_counted() {
    let path = "tiny-gemma3/tiny-gemma3-q8_0.gguf";
    for device in two_devices() {
        let mut network = adapted(path, &device, Setup::default());
        let good = network.values().unwrap().into_owned();
        for (is_bad, last) in [(false, 0.5), (true, f32::INFINITY), (false, 0.5)] {
            let fill = |values: &mut [f32]| {
                values.copy_from_slice(&good);
                *values.last_mut().unwrap() = last;
            };
            network.set_values(fill).unwrap();
            let report = step(&mut network, MODELS[0], false);
            let case = format!("{}: {report:?}", device.describe());
            assert!(report.skipped.is_some() == is_bad && (report.overflows > Some(0)) == is_bad, "{case}");
        }
    }
}
