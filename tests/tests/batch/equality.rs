//! The same bits alone and in company.

use lichen_kernels::ops::attention::KvFormat;
use lichen_tests::models::limits;

use super::*;

const MODELS: [&str; 5] = [
    "tiny-gemma3",
    "tiny-gemma3/tiny-gemma3-q8_0.gguf",
    "tiny-gemma3-nf4",
    "tiny-qwen2-tied",
    "tiny-qwen2-untied/tiny-qwen2-untied-q8_0.gguf",
];

fn request(id: usize, prompt: Vec<u32>, max_new_tokens: usize, sampling: SamplerConfig) -> BatchRequest {
    BatchRequest { id: id as u64, prompt, max_new_tokens, sampling, stop: Vec::new() }
}

/// The tokens of request 0 and the logits of each of them, in a batch with others that come and go.
fn watched(subject: &Subject, limits: Limits, n_slots: usize, requests: &[BatchRequest]) -> (Vec<u32>, Vec<Vec<u32>>) {
    let mut batch = subject.batch(limits, BatchLimits { n_slots, n_contexts: n_slots });
    // It joins while others are at work.
    let (joins, others) = requests.split_first().expect("the one that is watched");
    others.iter().cloned().for_each(|r| batch.submit(r).unwrap());
    let (mut answer, mut logits) = (None, Vec::new());
    let mut n_steps = 0;
    loop {
        if n_steps == 5 || (n_steps < 5 && others.is_empty()) {
            batch.submit(joins.clone()).unwrap();
            n_steps = 5;
        }
        n_steps += 1;
        let went_on = batch.step(&mut |a| {
            if a.id == joins.id {
                answer = Some(a.result.unwrap());
            }
        });
        if !went_on.unwrap() {
            return (answer.expect("an answer").token_ids, logits);
        }
        if let Some(row) = batch.logits(joins.id).unwrap() {
            logits.push(row.iter().map(|v| v.to_bits()).collect());
        }
    }
}

/// What a session computes for the same tokens; the logits of all but the last.
fn of_session(subject: &Subject, limits: Limits, request: &BatchRequest) -> (Vec<u32>, Vec<Vec<u32>>) {
    let mut session = subject.session(limits);
    let tokens = subject.alone(&mut session, request).token_ids;
    session.reset();
    session.prompt(&request.prompt, &mut || ControlFlow::Continue(())).unwrap();
    let bits = |session: &mut Session| session.last_logits().unwrap().iter().map(|v| v.to_bits()).collect();
    let mut logits = vec![bits(&mut session)];
    for token in &tokens[..tokens.len() - 1] {
        session.decode(*token).unwrap();
        logits.push(bits(&mut session));
    }
    (tokens, logits)
}

/// Alone and among 3, 16 and 64; `is_exact`: with the bits of a session.
pub fn check_company(subject: &Subject, limits: Limits, sizes: &[usize], is_exact: bool) {
    let mut random = Random(7);
    let prompt = subject.prompt(&mut random, 41);
    let watched_one = request(0, prompt, 12, SamplerConfig::greedy());
    let alone = watched(subject, limits, 1, std::slice::from_ref(&watched_one));
    if is_exact {
        let want = of_session(subject, limits, &watched_one);
        assert_eq!(alone.0, want.0, "{}: tokens of a session", subject.name);
        // The last token ends the answer, and its logits are gone with it.
        assert!(alone.1[..] == want.1[..alone.1.len()], "{}: logits of a session", subject.name);
        assert!(alone.1.len() + 1 >= want.1.len());
    }
    for n_slots in sizes {
        let mut requests = vec![watched_one.clone()];
        for id in 1..n_slots + n_slots / 2 {
            let (n, n_new) = (1 + random.below(60), 1 + random.below(20));
            requests.push(request(id, subject.prompt(&mut random, n), n_new, sampling(id)));
        }
        let got = watched(subject, limits, *n_slots, &requests);
        assert_eq!(got.0, alone.0, "{}: tokens among {n_slots}", subject.name);
        assert!(got.1 == alone.1, "{}: logits among {n_slots}", subject.name);
    }
}

#[test]
fn company_changes_no_bit() {
    check_company(&Subject::demo(), Limits { context: 128, chunk: 32, ..limits(2) }, &[3, 16, 64], true);
    for name in MODELS {
        let subject = Subject::fixture(name, &cpu());
        for kv_format in [KvFormat::F32, KvFormat::F16, KvFormat::I8] {
            check_company(&subject, Limits { kv_format, ..limits(2) }, &[3, 16], true);
        }
        check_company(&subject, limits(2), &[64], true);
    }
}

/// Random prompts, settings and stop strings through a few slots, each as if it were alone.
pub fn check_many(subject: &Subject, limits: Limits, n_slots: usize, n_requests: usize, longest: [usize; 2]) {
    let mut random = Random(11);
    let requests: Vec<BatchRequest> = (0..n_requests)
        .map(|id| {
            let (n, n_new) = (1 + random.below(longest[0]), random.below(longest[1] + 1));
            let mut request = request(id, subject.prompt(&mut random, n), n_new, sampling(id));
            if id % 3 == 0 {
                request.stop = vec!["the".into(), "ನ".into()];
            }
            request
        })
        .collect();
    let mut batch = subject.batch(limits, BatchLimits { n_slots, n_contexts: n_slots });
    let got = run(&mut batch, &requests);
    let mut session = subject.session(limits);
    let mut reasons = [0; 3];
    for (got, request) in got.iter().zip(&requests) {
        let want = subject.alone(&mut session, request);
        let what = format!("{}: {request:?}", subject.name);
        assert_eq!(got.token_ids, want.token_ids, "{what}");
        assert_eq!((&got.text, got.finish_reason), (&want.text, want.finish_reason), "{what}");
        assert_eq!(got.timings.new_tokens, want.timings.new_tokens, "{what}");
        reasons[want.finish_reason as usize] += 1;
    }
    assert!(reasons[0] > 0 && reasons[1] > 0, "answers that stop and answers that are cut: {reasons:?}");
}

#[test]
fn two_hundred_prompts_through_sixteen_slots_equal_one_by_one() {
    check_many(&Subject::demo(), Limits { context: 192, chunk: 48, ..limits(2) }, 16, 200, [150, 60]);
}

#[test]
fn small_models_too() {
    for name in MODELS {
        check_many(&Subject::fixture(name, &cpu()), limits(2), 5, 40, [128, 30]);
    }
}
