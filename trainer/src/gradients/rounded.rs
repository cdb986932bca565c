//! Gradients over rounded weights against the oracle's over the same weights decoded: the mistake of rounding a weight is
//! the model's, not the gradient's.

use std::sync::Arc;

use lichen_kernels::{Device, Format};

use super::models::{self, cases_of_64, samples, Case, Setup};
use super::mutations::places;
use super::oracle::Oracle;
use super::parity::{Kind, LENGTHS};
use super::{check, Expected, F32_BOUND, LOSS_BOUND};
use crate::mutation::active::{self, Mutation};
use crate::mutation::Term;

/// Of a tensor's largest entry. A gradient comes back through a matrix that is neither F32 nor F16 as bf16 times bf16, and
/// where the CPU has the instruction the activations went forward so too. Each factor is rounded by at most 2^-9 of it, by
/// 2^-9 / sqrt(3) = 1.1e-3 in the mean square, both by 1.6e-3. These mistakes are independent, so a sum whose terms are too is
/// off by the same share of its size, and what has come through n products in a row by sqrt(n) times it. There are at most
/// eight forward and eight back: q, k or v, o, gate or up, and down of two layers, and the head. That is 6.4e-3 of a usual
/// entry. The largest of thousands of mistakes is four times the usual one, but so is the largest entry. Sums for queries and
/// keys cancel (over what a query sees the slopes of its scores add up to zero), which costs the rest.
const BF16_BOUND: f64 = 5e-2;
/// Of the loss. Where the CPU multiplies pairs of bf16, the forward products are rounded so too, about as many in a row;
/// elsewhere integers round activations to 1.5e-5 of the largest in a block. A loss near its start moves little with its
/// logits: the worst seen is 6e-4.
const ROUNDED_LOSS_BOUND: f64 = 2e-3;

#[test]
fn gradients_over_rounded_weights_equal_the_oracles_over_those_decoded() {
    for case in cases_of_64() {
        for format in [Format::BF16, Format::F16, Format::Q8_0, Format::Q4_0, Format::NF4] {
            check_case(&case, Kind::Lora, format);
        }
        check_case(&case, Kind::Full, Format::BF16);
    }
}

fn check_case(case: &Case, kind: Kind, format: Format) {
    let device = Arc::new(Device::cpu(2).unwrap());
    let samples = samples(case.config.vocab_size, &LENGTHS);
    let setup = Setup { recompute: true, max_samples: LENGTHS.len(), dropout: None };
    let model = |format| models::model(&case.config, format, &device);
    let mut network = match kind {
        Kind::Lora => models::lora(&device, model(format), &samples, setup),
        // Its weights are f32, and rounded to what it multiplies.
        Kind::Full => models::full(&device, model(Format::F32), format, &samples, setup),
    };
    assert_eq!(network.model().layers[1].down.format(), format);
    let oracle = Oracle::new(network.model(), models::adapter(&network));
    let want = Expected::new(&oracle, network.mode(), &samples);
    let report = models::step(&mut network, &samples, setup);
    let (bound, loss_bound) = match format {
        Format::F32 | Format::F16 => (F32_BOUND, LOSS_BOUND),
        _ => (BF16_BOUND, ROUNDED_LOSS_BOUND),
    };
    match check(&want, &network, &report, bound, loss_bound) {
        Ok(worst) => println!("{}, {kind:?} over {format}: off by at most {worst:?}", case.name),
        Err(why) => panic!("{}, {kind:?} over {format}: {why}", case.name),
    }
    // The bound is wide: terms that are dropped, or have the other sign, still pass it by far.
    let terms = Term::ALL.iter().flat_map(|term| [(*term, 0), (*term, 1)]);
    for (term, layer) in terms.filter(|(term, layer)| places(*term, kind, *layer) > 0) {
        for factor in [0.0, -1.0] {
            let mutation = Mutation { term, layer, place: 0, factor };
            let (report, _) = active::with(mutation, || models::step(&mut network, &samples, setup));
            let found = check(&want, &network, &report, bound, loss_bound);
            assert!(found.is_err(), "{}, {kind:?} over {format}: {mutation:?} goes unseen: {found:?}", case.name);
        }
    }
}
