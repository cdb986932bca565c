//! Pages run out, and requests wait.

use lichen_kernels::ops::attention::PAGE;
use lichen_runtime::engine::request::Request;
use lichen_runtime::engine::Event;
use lichen_runtime::error::Kind;
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::sampler::SamplerConfig;
use lichen_tests::models::limits;

use crate::subject::{self, cpu, run, Subject};

fn request(id: u64, n_prompt: usize, max_new_tokens: usize) -> Request {
    let prompt = (0..n_prompt as u32).map(|i| 3 + (i * 7 + id as u32) % 300).collect();
    subject::request(prompt, max_new_tokens, SamplerConfig::greedy())
}

/// Eight slots, and pages for one sequence of the full context: short requests share them, long ones wait for each other,
/// and every answer is the one of a batch with room.
#[test]
fn a_pool_that_is_too_small_makes_requests_wait() {
    // Three short requests at once, with one, one and two of four pages. A local layer's ring has two, so two of Gemma's.
    for (name, n_running) in [("tiny-gemma3", 2), ("tiny-qwen2-tied", 3)] {
        check_waiting(&Subject::fixture(name, &cpu()), n_running);
    }
}

fn check_waiting(subject: &Subject, n_running: usize) {
    let requests: Vec<Request> = (0..40u64)
        .map(|id| match id % 4 {
            0 => request(id, 100, 40),
            1 => request(id, 33, 3),
            _ => request(id, 5, 20),
        })
        .collect();
    let roomy = run(&mut subject.batch(limits(2), BatchLimits { n_slots: 8, n_contexts: 8 }), &requests);
    let mut tight = subject.batch(limits(2), BatchLimits { n_slots: 8, n_contexts: 1 });
    let (local, global) = tight.n_free_pages().unwrap();
    assert_eq!(global, 128 / PAGE);
    let ids: Vec<_> = requests.iter().map(|r| tight.submit(r.clone()).unwrap()).collect();
    let (mut most_running, mut answers) = (0, Vec::new());
    let mut on_event = |event: Event<'_>| match event {
        Event::Done { id, answer } => answers.push((ids.iter().position(|i| *i == id).unwrap() as u64, answer)),
        Event::Failed { error, .. } => panic!("{error}"),
        _ => {}
    };
    while tight.step(&mut on_event).unwrap() {
        most_running = tight.n_running().max(most_running);
        let (free_local, free_global) = tight.n_free_pages().unwrap();
        assert!(free_local <= local && free_global <= global);
    }
    assert_eq!(most_running, n_running, "{}", subject.name);
    tight.clear();
    assert_eq!(tight.n_free_pages().unwrap(), (local, global), "every page came back");
    assert_eq!(answers.len(), requests.len());
    for (id, answer) in &answers {
        assert_eq!(answer.token_ids, roomy[*id as usize].token_ids, "request {id}");
    }
    // Nobody overtakes a long request that waits: 4 is answered before any of 13 and later.
    let place = |id: u64| answers.iter().position(|(i, _)| *i == id).unwrap();
    assert!((13..40).all(|id| place(4) < place(id)));
}

/// What could never be answered is refused at once, and says why.
#[test]
fn requests_that_cannot_be_answered_are_refused() {
    let subject = Subject::fixture("tiny-gemma3", &cpu());
    let mut batch = subject.batch(limits(1), BatchLimits { n_slots: 2, n_contexts: 1 });
    let good = request(0, 4, 4);
    let bad_sampling = SamplerConfig { top_p: f32::NAN, ..SamplerConfig::default() }.into();
    let cases = [
        (Request { max_new_tokens: Some(4), ..Request::tokens(Vec::new()) }, Kind::Input, "the prompt is empty"),
        (Request::tokens(vec![3, 320]), Kind::Input, "token 320 is outside the vocabulary"),
        (request(0, 129, 4), Kind::Limit, "the prompt has 129 tokens, and the context 128 positions"),
        (Request { sampling: bad_sampling, ..good.clone() }, Kind::Usage, "top_p is NaN"),
        (Request { stop: Some(vec![String::new()]), ..good.clone() }, Kind::Usage, "stop is 0 bytes long"),
    ];
    for (request, kind, message) in cases {
        let error = batch.submit(request).unwrap_err();
        assert!(error.kind() == kind && error.message().contains(message), "{error}");
    }
    // The batch is none the worse, and the longest prompt fits to the last position.
    let answers = run(&mut batch, &[good, request(1, 128, 5), request(2, 127, 5), request(3, 9, 0)]);
    let lengths: Vec<usize> = answers.iter().map(|a| a.token_ids.len()).collect();
    assert_eq!(lengths, [4, 1, 2, 0]);
}
