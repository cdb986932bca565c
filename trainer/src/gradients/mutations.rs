//! Mistakes that the check must see: every term of the backward pass in every place, slightly wrong, of the other sign,
//! dropped, and not a number.

use super::models::{self, cases, samples, Case, Setup};
use super::parity::{self, Kind, LENGTHS};
use super::{check, Expected, F32_BOUND, LOSS_BOUND};
use crate::mutation::active::{self, Mutation};
use crate::mutation::Term;

const FACTORS: [f32; 4] = [1.01, -1.0, 0.0, f32::NAN];
const SETUP: Setup = Setup { recompute: true, max_samples: LENGTHS.len(), dropout: None };

/// In how many places of a layer a term stands: with an adapter, nothing lies behind layer 0 but the embedding, which is
/// frozen, and what reaches that alone is not computed.
pub fn places(term: Term, kind: Kind, layer: usize) -> usize {
    let (is_first, is_lora) = (layer == 0, kind == Kind::Lora);
    let reach_the_embedding_alone = match term {
        Term::Norm | Term::Residual => 1,
        // q, k and v.
        Term::LowRank => 3,
        _ => 0,
    };
    let n = match term {
        Term::Head => usize::from(is_first),
        Term::Embedding => usize::from(is_first && !is_lora),
        Term::GatedProduct | Term::Gate | Term::Up | Term::Heads | Term::Queries | Term::Keys | Term::Values => 1,
        // Of the feed-forward layer, then of attention.
        Term::SubLayer | Term::Norm | Term::Residual => 2,
        // down, gate, up, o, q, k, v.
        Term::LowRank => 7 * usize::from(is_lora),
    };
    if is_lora && is_first {
        n - reach_the_embedding_alone
    } else {
        n
    }
}

#[test]
fn every_mistake_in_the_gradients_of_an_adapter_is_seen() {
    for case in cases() {
        // 16 places of layer 0 and 20 of layer 1.
        check_terms(&case, Kind::Lora, 36);
    }
}

#[test]
fn every_mistake_in_the_gradients_of_all_weights_is_seen() {
    for case in cases() {
        // 15 places of layer 0 and 13 of layer 1.
        check_terms(&case, Kind::Full, 28);
    }
}

/// Plants each mistake, in `n_places`.
fn check_terms(case: &Case, kind: Kind, n_places: usize) {
    let samples = samples(case.config.vocab_size, &LENGTHS);
    let (mut network, oracle) = parity::network(case, kind, &LENGTHS, SETUP);
    let want = Expected::new(&oracle, network.mode(), &samples);
    let report = models::step(&mut network, &samples, SETUP);
    check(&want, &network, &report, F32_BOUND, LOSS_BOUND).unwrap();
    let mut n_seen = 0;
    for (term, layer) in Term::ALL.iter().flat_map(|term| [(*term, 0), (*term, 1)]) {
        let n = places(term, kind, layer);
        for (place, factor) in (0..n).flat_map(|place| FACTORS.map(|factor| (place, factor))) {
            let mutation = Mutation { term, layer, place, factor };
            let step = || models::step(&mut network, &samples, SETUP);
            let (report, n_passed) = active::with(mutation, step);
            assert_eq!(n_passed, n, "{}, {kind:?}: places of {mutation:?}", case.name);
            let found = check(&want, &network, &report, F32_BOUND, LOSS_BOUND);
            assert!(found.is_err(), "{}, {kind:?}: {mutation:?} goes unseen: {found:?}", case.name);
            n_seen += 1;
        }
    }
    assert_eq!(n_seen, n_places * FACTORS.len(), "{}, {kind:?}: mistakes", case.name);
    println!("{}, {kind:?}: {n_seen} mistakes seen", case.name);
}

/// The comparison itself: one wrong entry of any tensor is seen, and named.
#[test]
fn a_wrong_entry_of_any_tensor_is_seen() {
    for (case, kind) in cases().iter().flat_map(|case| [(case, Kind::Lora), (case, Kind::Full)]) {
        let samples = samples(case.config.vocab_size, &LENGTHS);
        let (mut network, oracle) = parity::network(case, kind, &LENGTHS, SETUP);
        let mut want = Expected::new(&oracle, network.mode(), &samples);
        let report = models::step(&mut network, &samples, SETUP);
        for i in 0..want.gradients.len() {
            let (tensor, values) = &want.gradients[i];
            let (name, right) = (format!("{tensor:?}"), values.clone());
            let largest = (0..right.len()).max_by(|a, b| right[*a].abs().total_cmp(&right[*b].abs())).unwrap();
            for factor in [1.01, -1.0, f64::NAN] {
                want.gradients[i].1[largest] *= factor;
                let found = check(&want, &network, &report, F32_BOUND, LOSS_BOUND).map_err(|why| why.contains(&name));
                assert!(matches!(found, Err(true)), "{}: {name} times {factor}: {found:?}", case.name);
                want.gradients[i].1[largest] = right[largest];
            }
        }
        let wrong = Expected { loss: want.loss * 1.01, ..want };
        assert!(check(&wrong, &network, &report, F32_BOUND, LOSS_BOUND).is_err());
    }
}
