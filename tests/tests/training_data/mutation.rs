//! Damaged rows: no panic, and what is accepted keeps the promises of the module.

use lichen_tests::formats::corpus::TempDir;
use lichen_tests::formats::mutate_rows;
use lichen_tests::formats::random::{n_inputs, seed, Random};
use lichen_trainer::data::{DataOptions, LossOn, Truncation};

use crate::checks;
use crate::support::{Chat, VOCAB};

fn check(bytes: &[u8], random: &mut Random) -> bool {
    let chat = *random.pick(&Chat::ALL);
    let options = DataOptions {
        max_seq: 2 + random.below(100),
        truncation: *random.pick(&[Truncation::Cut, Truncation::Drop]),
        strict: random.below(4) == 0,
        loss_on: *random.pick(&[LossOn::Answers, LossOn::All]),
        parse_special: random.below(2) == 0,
        eval_split: *random.pick(&[0.0, 0.3]),
        seed: random.number(),
        shuffle: random.below(2) == 0,
    };
    let dir = TempDir::new();
    checks::rows(&dir.write("data.jsonl", bytes), chat.encoder(), VOCAB, &options)
}

#[test]
fn damaged_rows_are_refused_or_sound() {
    let seed = seed(20_260_301);
    let n = n_inputs(1500);
    let mut n_accepted = 0;
    for i in 0..n {
        // Each input has a seed of its own: a failure replays with LICHEN_SEED and its index.
        let random = &mut Random::new(seed.wrapping_add(i as u64));
        let bytes = mutate_rows::rows(random);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&bytes, random)));
        let replay = || format!("LICHEN_SEED={seed}, input {i}: {:?}", String::from_utf8_lossy(&bytes));
        n_accepted += outcome.unwrap_or_else(|_| panic!("{}", replay())) as usize;
    }
    println!("{n} inputs, {n_accepted} accepted");
    assert!(n_accepted > n / 10 && n - n_accepted > n / 10, "{n_accepted} of {n} accepted");
}
