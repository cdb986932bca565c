//! The same bits alone and in company.

use std::ops::ControlFlow;

use lichen_runtime::engine::request::{Prompt, Request};
use lichen_runtime::engine::Event;
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::memory_plan::Limits;
use lichen_runtime::model::session::Session;
use lichen_runtime::sampler::SamplerConfig;

use crate::subject::{request, run, sampling, Random, Subject};

/// The tokens of request 0 and the logits of each of them, in a batch with others that come and go.
fn watched(subject: &Subject, limits: Limits, n_slots: usize, requests: &[Request]) -> (Vec<u32>, Vec<Vec<u32>>) {
    let mut engine = subject.batch(limits, BatchLimits { n_slots, n_contexts: n_slots });
    // It joins while others are at work.
    let (joins, others) = requests.split_first().expect("the one that is watched");
    for other in others {
        engine.submit(other.clone()).unwrap();
    }
    let (mut watched, mut answer, mut logits) = (None, None, Vec::new());
    let mut n_steps = 0;
    loop {
        if watched.is_none() && (n_steps == 5 || others.is_empty()) {
            watched = Some(engine.submit(joins.clone()).unwrap());
        }
        n_steps += 1;
        let went_on = engine.step(&mut |event| match event {
            Event::Done { id, answer: done } if Some(id) == watched => answer = Some(done),
            Event::Failed { error, .. } => panic!("{error}"),
            _ => {}
        });
        assert!(went_on.unwrap(), "everybody is done, and one was never answered");
        if let Some(answer) = answer {
            return (answer.token_ids, logits);
        }
        let row = watched.map(|id| engine.logits(id).unwrap());
        if let Some(row) = row.flatten() {
            logits.push(row.iter().map(|v| v.to_bits()).collect());
        }
    }
}

/// The logits that a session has for the same tokens, all but the last.
fn of_session(subject: &Subject, limits: Limits, request: &Request, tokens: &[u32]) -> Vec<Vec<f32>> {
    let mut session = subject.session(limits);
    let Prompt::Tokens(prompt) = &request.prompt else { panic!("token ids") };
    session.prompt(prompt, &mut || ControlFlow::Continue(())).unwrap();
    let last = |session: &mut Session| session.last_logits().unwrap().to_vec();
    let mut logits = vec![last(&mut session)];
    for token in &tokens[..tokens.len() - 1] {
        session.decode(*token).unwrap();
        logits.push(last(&mut session));
    }
    logits
}

/// Against a session: its bits on the CPU; on a GPU, where attention cuts its sums elsewhere and products may round their
/// factors, what that leaves.
fn check_alone(subject: &Subject, limits: Limits, request: &Request, (tokens, logits): &(Vec<u32>, Vec<Vec<u32>>)) {
    let want = of_session(subject, limits, request, tokens);
    let bound = subject.deviation();
    // The last token ends the answer, and its logits are gone with it.
    assert!(logits.len() <= want.len() && logits.len() + 1 >= want.len());
    for (i, (got, want)) in logits.iter().zip(&want).enumerate() {
        let spread = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for (got, want) in got.iter().zip(want) {
            let (same, near) = (*got == want.to_bits(), (f32::from_bits(*got) - want).abs() <= bound * spread);
            assert!(same || (near && !subject.is_exact()), "{}: token {i} has {want} in a session", subject.name);
        }
    }
}

/// Alone and among some others.
pub fn check_company(subject: &Subject, limits: Limits, sizes: &[usize]) {
    let mut random = Random(7);
    let prompt = subject.prompt(&mut random, 41);
    let watched_one = request(prompt, 12, SamplerConfig::greedy());
    let alone = watched(subject, limits, 1, std::slice::from_ref(&watched_one));
    check_alone(subject, limits, &watched_one, &alone);
    for n_slots in sizes {
        let mut requests = vec![watched_one.clone()];
        for id in 1..n_slots + n_slots / 2 {
            let (n, n_new) = (1 + random.below(60), 1 + random.below(20));
            requests.push(request(subject.prompt(&mut random, n), n_new, sampling(id)));
        }
        let got = watched(subject, limits, *n_slots, &requests);
        assert_eq!(got.0, alone.0, "{}: tokens among {n_slots}", subject.name);
        assert!(got.1 == alone.1, "{}: logits among {n_slots}", subject.name);
    }
}

/// Random prompts, settings and stop strings through a few slots, each as if it were alone.
pub fn check_many(subject: &Subject, limits: Limits, n_slots: usize, n_requests: usize, longest: [usize; 2]) {
    let mut random = Random(11);
    let requests: Vec<Request> = (0..n_requests)
        .map(|id| {
            let (n, n_new) = (1 + random.below(longest[0]), random.below(longest[1] + 1));
            let mut request = request(subject.prompt(&mut random, n), n_new, sampling(id));
            if id % 3 == 0 {
                request.stop = Some(vec!["the".into(), "ನ".into()]);
            }
            request
        })
        .collect();
    let mut batch = subject.batch(limits, BatchLimits { n_slots, n_contexts: n_slots });
    let got = run(&mut batch, &requests);
    let want = subject.one_by_one(limits, &requests);
    let mut reasons = [0; 3];
    for ((got, want), request) in got.iter().zip(&want).zip(&requests) {
        let what = format!("{}: {request:?}", subject.name);
        assert_eq!(got.token_ids, want.token_ids, "{what}");
        assert_eq!((&got.text, got.finish_reason), (&want.text, want.finish_reason), "{what}");
        assert_eq!(got.timings.new_tokens, want.timings.new_tokens, "{what}");
        reasons[want.finish_reason as usize] += 1;
    }
    let shows_both = n_requests < 20 || (reasons[0] > 0 && reasons[1] > 0);
    assert!(shows_both, "answers that stop and answers that are cut: {reasons:?}");
}
