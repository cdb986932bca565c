//! Masks and log-probabilities.

use std::sync::{Arc, Mutex};

use lichen_runtime::engine::request::{Request, SamplingOverrides};
use lichen_runtime::engine::{Engine, Event, TokenMask};
use lichen_runtime::limits::BatchLimits;
use lichen_tests::models::limits;

use crate::subject::{cpu, sampling, Random, Subject};

/// Allows one token in three, and another third after each token.
struct Thirds {
    turn: u32,
    accepted: Arc<Mutex<Vec<u32>>>,
}

impl TokenMask for Thirds {
    fn allows(&mut self, token: u32) -> bool {
        token % 3 == self.turn % 3
    }

    fn apply(&mut self, logits: &mut [f32]) {
        for (token, logit) in (0..).zip(logits) {
            if !self.allows(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn accept(&mut self, token: u32) {
        self.turn += 1;
        self.accepted.lock().unwrap().push(token);
    }
}

fn masked(engine: &mut Engine, request: Request) -> Vec<u32> {
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let id = engine.submit_masked(request, Box::new(Thirds { turn: 0, accepted: accepted.clone() })).unwrap();
    let mut tokens = None;
    let mut on_event = |event: Event<'_>| match event {
        Event::Done { id: of, answer } if of == id => tokens = Some(answer.token_ids),
        Event::Failed { error, .. } => panic!("{error}"),
        _ => {}
    };
    while engine.step(&mut on_event).unwrap() {}
    let tokens = tokens.expect("answered");
    assert_eq!(tokens, *accepted.lock().unwrap());
    tokens
}

#[test]
fn a_masked_answer_holds_only_what_the_mask_allows_in_any_company() {
    for name in ["tiny-gemma3", "tiny-qwen2-tied"] {
        let subject = Subject::fixture(name, &cpu());
        for i in 0..5 {
            let request = Request {
                sampling: sampling(i).into(),
                max_new_tokens: Some(24),
                ignore_eos: true,
                ..Request::tokens(subject.prompt(&mut Random(i as u64), 12))
            };
            let alone = masked(&mut subject.engine(limits(2), None), request.clone());
            assert!((0..).zip(&alone).all(|(turn, token)| token % 3 == turn % 3), "{name}, sampler {i}: {alone:?}");
            let mut engine = subject.batch(limits(2), BatchLimits { n_slots: 3, n_contexts: 3 });
            engine.submit(Request { max_new_tokens: Some(40), ..request.clone() }).unwrap();
            assert_eq!(masked(&mut engine, request), alone, "{name}, sampler {i}");
        }
    }
}

/// Of a plain softmax the accepted draws keep their probabilities, and a rejected one is drawn again among what is allowed:
/// over many seeds the first token has the distribution of the masked softmax.
#[test]
fn masked_draws_have_the_masked_distribution() {
    let subject = Subject::fixture("tiny-gemma3", &cpu());
    let mut engine = subject.engine(limits(1), None);
    let prompt = subject.prompt(&mut Random(4), 8);
    let mut counts = vec![0u32; subject.model.config.vocab_size];
    const N: u32 = 4000;
    for seed in 0..N {
        let sampling = SamplingOverrides { seed: Some(u64::from(seed)), temperature: Some(1.0), ..plain() };
        let request =
            Request { sampling, max_new_tokens: Some(1), ignore_eos: true, ..Request::tokens(prompt.clone()) };
        counts[masked(&mut engine, request)[0] as usize] += 1;
    }
    let mut session = subject.session(limits(1));
    session.prompt(&prompt, &mut lichen_tests::models::always).unwrap();
    let logits = session.last_logits().unwrap().to_vec();
    let weights: Vec<f64> =
        logits.iter().enumerate().map(|(i, l)| if i % 3 == 0 { f64::from(*l).exp() } else { 0.0 }).collect();
    let total: f64 = weights.iter().sum();
    for (token, (count, weight)) in counts.iter().zip(&weights).enumerate() {
        let p = weight / total;
        // Five standard deviations, and three draws for what hardly ever comes.
        let (want, bound) = (p * f64::from(N), 5.0 * (p * f64::from(N)).sqrt() + 3.0);
        assert!((f64::from(*count) - want).abs() <= bound, "token {token}: {count} of {N}, {want:.1} expected");
    }
}

fn plain() -> SamplingOverrides {
    SamplingOverrides {
        top_k: Some(0),
        top_p: Some(1.0),
        min_p: Some(0.0),
        repeat_penalty: Some(1.0),
        ..Default::default()
    }
}

#[test]
fn log_probabilities_are_the_models_own_and_change_no_token() {
    let subject = Subject::fixture("tiny-gemma3", &cpu());
    let prompt = subject.prompt(&mut Random(6), 10);
    for i in 0..5 {
        let request = Request {
            sampling: sampling(i).into(),
            max_new_tokens: Some(10),
            ignore_eos: true,
            ..Request::tokens(prompt.clone())
        };
        let run = |request| subject.engine(limits(1), None).run(request, &mut |_| {}, &mut || false).unwrap().1;
        let (plain, told) = (run(request.clone()), run(Request { logprobs: Some(5), ..request }));
        assert_eq!(told.token_ids, plain.token_ids, "sampler {i}");
        assert!(plain.logprobs.is_empty() && told.logprobs.len() == told.token_ids.len());
        let mut session = subject.session(limits(1));
        session.prompt(&prompt, &mut lichen_tests::models::always).unwrap();
        for (token, entry) in told.token_ids.iter().zip(&told.logprobs) {
            let logits = session.last_logits().unwrap().to_vec();
            let sum: f64 = logits.iter().map(|l| f64::from(*l).exp()).sum();
            let want = |id: u32| f64::from(logits[id as usize]) - sum.ln();
            assert_eq!((entry.chosen.token, entry.top.len()), (*token, 5));
            assert!((f64::from(entry.chosen.logprob) - want(*token)).abs() < 1e-5);
            for pair in entry.top.windows(2) {
                assert!(pair[0].logprob >= pair[1].logprob);
            }
            assert!(entry.top.iter().all(|t| (f64::from(t.logprob) - want(t.token)).abs() < 1e-5));
            session.decode(*token).unwrap();
        }
    }
}
