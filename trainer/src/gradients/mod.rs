//! Proof of the backward pass, in three steps: an oracle in f64 written from the model's formulas ([`oracle`]); four-point
//! differences of the oracle's own loss, which its gradients must equal ([`differences`]); and the trainer's gradients, every
//! entry of every tensor, against the oracle's ([`parity`], [`rounded`] over rounded weights, [`dropout`]). A proof is worth
//! what it refuses: [`mutations`] plants mistakes in each term of the pass and demands that the same check fails.

mod differences;
mod dropout;
mod models;
mod mutations;
mod not_finite;
mod oracle;
mod parity;
mod rounded;
mod tape;

use std::borrow::Cow;

use lichen_runtime::model::adapter::TARGETS;

use crate::data::Sample;
use crate::network::{Mode, Network, StepReport};
use oracle::{Half, Oracle, Tensor};

/// Of a tensor's largest entry. Sums have at most a few hundred terms, each rounded by 2^-24 = 6e-8, and some ten of them
/// stand between the loss and a weight of layer 0: 6e-8 * sqrt(200 * 10) = 3e-6. The worst seen is 2.9e-6, and it has the
/// same bits on every machine.
const F32_BOUND: f64 = 1e-5;
/// Of the loss.
const LOSS_BOUND: f64 = 1e-6;

/// What the oracle says of a batch.
struct Expected {
    loss: f64,
    gradients: Vec<(Tensor, Vec<f64>)>,
}

impl Expected {
    /// Of the tensors that `mode` trains.
    fn new(oracle: &Oracle, mode: &Mode, samples: &[Sample]) -> Expected {
        let (loss, all) = oracle.loss_and_gradients(samples);
        let is_trained = |tensor: &Tensor| match mode {
            Mode::Lora(_) => tensor.half != Half::Weight,
            Mode::Full(..) => tensor.half == Half::Weight,
        };
        let trained = oracle.tensors().iter().filter(|(tensor, _)| is_trained(tensor));
        Expected { loss, gradients: trained.map(|(tensor, range)| (*tensor, all[range.clone()].to_vec())).collect() }
    }
}

/// The largest difference, as a share of the largest entry of its tensor.
#[derive(Clone, Copy, Debug)]
struct Worst {
    off: f64,
    at: Tensor,
}

/// Compares every entry of every gradient of `network` with what is expected.
fn check(
    want: &Expected,
    network: &Network,
    report: &StepReport,
    bound: f64,
    loss_bound: f64,
) -> Result<Worst, String> {
    let off = (report.loss - want.loss).abs() / want.loss;
    if off.is_nan() || off > loss_bound {
        return Err(format!("the loss is {}, {} expected", report.loss, want.loss));
    }
    let (mut worst, mut n_compared): (Option<Worst>, usize) = (None, 0);
    for (tensor, want) in &want.gradients {
        let got = gradient(network, *tensor);
        assert_eq!(got.len(), want.len(), "{tensor:?}");
        let largest = want.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        // Nothing is proved by comparing zeros.
        assert!(largest > 1e-6, "{tensor:?}: the expected gradient is {largest} at most");
        let off = got.iter().zip(want).map(|(got, want)| (f64::from(*got) - want).abs() / largest);
        let off = off.fold(0.0f64, |m, v| if v.is_nan() { f64::INFINITY } else { m.max(v) });
        if worst.is_none_or(|worst| off > worst.off) {
            worst = Some(Worst { off, at: *tensor });
        }
        n_compared += got.len();
    }
    assert_eq!(n_compared, network.mode().n_parameters(), "every trained entry is compared");
    match worst {
        Some(worst) if worst.off <= bound => Ok(worst),
        Some(worst) => Err(format!("{:?} is off by {:.1e}", worst.at, worst.off)),
        None => Err("no tensor is trained".to_string()),
    }
}

/// The gradient that `network` has for a tensor.
fn gradient(network: &Network, tensor: Tensor) -> &[f32] {
    let gradients = on_cpu(network.gradients());
    match network.mode() {
        Mode::Lora(lora) => {
            let is_it = |layer: usize, i: usize| Some(layer) == tensor.layer && TARGETS[i] == tensor.part;
            let mut pairs = lora.pairs(gradients);
            let (_, _, a, b) = pairs.find(|(layer, i, ..)| is_it(*layer, *i)).expect("an adapted matrix");
            match tensor.half {
                Half::A => a,
                Half::B => b,
                Half::Weight => panic!("{tensor:?} is frozen"),
            }
        }
        Mode::Full(full, _) => {
            let place = full.place(tensor.part, tensor.layer);
            &gradients[place.start..place.start + place.len]
        }
    }
}

/// Values or gradients of a network of the CPU, which are where they are.
fn on_cpu(values: lichen_runtime::Result<Cow<'_, [f32]>>) -> &[f32] {
    match values {
        Ok(Cow::Borrowed(values)) => values,
        _ => panic!("these tests compute on the CPU"),
    }
}
