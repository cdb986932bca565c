//! What becomes of a request: its adapter goes, it is cancelled, a limit holds it.

use std::time::Duration;

use lichen_runtime::engine::answer::{Answer, Clamped, FinishReason};
use lichen_runtime::engine::conversation::Conversation;
use lichen_runtime::engine::request::{AdapterChoice, Request, RequestLimits, SamplingOverrides};
use lichen_runtime::engine::{Engine, Event, RequestId};
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::loader::demo;
use lichen_runtime::memory_plan::Limits;
use lichen_runtime::setting::MAX_NEW_TOKENS;
use lichen_tests::models::{limits, temp_dir};

use crate::per_request::add_all;
use crate::subject::{cpu, Random, Subject};

/// Adapters come and go while others are at work, by name.
#[test]
fn adapters_are_loaded_and_unloaded_by_name() {
    let subject = Subject::fixture("tiny-gemma3", &cpu());
    let mut engine = subject.batch(limits(2), BatchLimits { n_slots: 2, n_contexts: 2 });
    let named = |name: &str| Request {
        adapter: AdapterChoice::Named(name.to_string()),
        sampling: SamplingOverrides::greedy(),
        max_new_tokens: Some(12),
        ignore_eos: true,
        ..Request::tokens(vec![3, 1, 4, 1, 5])
    };
    let error = engine.submit(named("attentoin")).unwrap_err();
    assert_eq!(error.message(), "adapter \"attentoin\" is not loaded");
    add_all(&mut engine, &subject);
    let error = engine.submit(named("attentoin")).unwrap_err();
    assert_eq!(error.message(), "adapter \"attentoin\" is not loaded (did you mean \"attention\"?)");
    let alone = engine.run(named("attention"), &mut |_| {}, &mut || false).unwrap().1;
    engine.clear();
    let id = engine.submit(named("attention")).unwrap();
    for _ in 0..4 {
        engine.step(&mut |_| {}).unwrap();
    }
    // What it answers, it answers to the end.
    assert!(engine.unload_adapter("attention") && !engine.unload_adapter("attention"));
    assert!(engine.submit(named("attention")).is_err());
    let mut answer = None;
    let mut on_event = |event: Event<'_>| {
        if let Event::Done { id: of, answer: done } = event {
            answer = (of == id).then_some(done);
        }
    };
    while engine.step(&mut on_event).unwrap() {}
    assert_eq!(answer.expect("answered").token_ids, alone.token_ids);
}

/// Cancelled in the queue, in its prompt and in its answer, each before anything more of it is computed; nobody else notices.
#[test]
fn a_cancelled_request_ends_at_once_and_alone() {
    let subject = Subject::fixture("tiny-gemma3", &cpu());
    let mut random = Random(2);
    let ask = |prompt: Vec<u32>| Request {
        sampling: SamplingOverrides::greedy(),
        max_new_tokens: Some(20),
        ignore_eos: true,
        ..Request::tokens(prompt)
    };
    let (kept, other) = (ask(subject.prompt(&mut random, 40)), ask(subject.prompt(&mut random, 60)));
    let want = subject.engine(limits(2), None).run(kept.clone(), &mut |_| {}, &mut || false).unwrap().1;
    for n_steps in 0..12 {
        let mut engine = subject.batch(limits(2), BatchLimits { n_slots: 2, n_contexts: 2 });
        let ids: Vec<RequestId> =
            [&other, &kept, &other].map(|request| engine.submit(request.clone()).unwrap()).to_vec();
        let mut ended: Vec<(RequestId, Answer)> = Vec::new();
        for _ in 0..n_steps {
            let mut on_event = |event: Event<'_>| {
                if let Event::Done { id, answer } = event {
                    ended.push((id, answer));
                }
            };
            engine.step(&mut on_event).unwrap();
        }
        for id in [ids[0], ids[2]] {
            let mut reason = None;
            let known = engine.cancel(id, &mut |event| {
                if let Event::Done { answer, .. } = event {
                    reason = Some(answer.finish_reason);
                }
            });
            assert!(known && reason == Some(FinishReason::Cancel), "after {n_steps} steps");
            assert!(!engine.cancel(id, &mut |_| panic!("an event of a request that is gone")));
        }
        assert_eq!((engine.n_running() + engine.n_waiting()) as i32, 1);
        let mut on_event = |event: Event<'_>| {
            if let Event::Done { id, answer } = event {
                ended.push((id, answer));
            }
        };
        while engine.step(&mut on_event).unwrap() {}
        assert_eq!(ended.len(), 1);
        assert_eq!((ended[0].0, &ended[0].1.token_ids), (ids[1], &want.token_ids), "after {n_steps} steps");
    }
}

/// Limits of the program clamp a request, and the answer says so; a time limit ends it.
#[test]
fn limits_clamp_and_say_so() {
    let subject = Subject::fixture("tiny-gemma3", &cpu());
    let mut engine = subject.engine(limits(1), None);
    let ask = |max_new_tokens, n_prompt: u32| Request {
        max_new_tokens,
        ignore_eos: true,
        sampling: SamplingOverrides::greedy(),
        ..Request::tokens((3..3 + n_prompt).collect::<Vec<u32>>())
    };
    let run = |engine: &mut Engine, request| engine.run(request, &mut |_| {}, &mut || false).unwrap().1;
    // The context has 128 positions, and the last token needs none.
    let answer = run(&mut engine, ask(Some(1000), 100));
    let clamped = |asked, given| vec![Clamped { setting: MAX_NEW_TOKENS, asked, given }];
    assert_eq!((answer.token_ids.len(), answer.clamped), (29, clamped(1000, 29)));
    assert_eq!(run(&mut engine, ask(None, 100)).clamped, Vec::new());
    engine.set_request_limits(RequestLimits { max_new_tokens: Some(4), time_limit: None });
    let answer = run(&mut engine, ask(Some(5), 10));
    assert_eq!((answer.token_ids.len(), answer.clamped), (4, clamped(5, 4)));
    engine.set_request_limits(RequestLimits { max_new_tokens: None, time_limit: Some(Duration::ZERO) });
    let answer = run(&mut engine, ask(Some(50), 10));
    // The chunk that was under way gives one.
    assert_eq!((answer.finish_reason, answer.token_ids.len()), (FinishReason::Length, 1));
}

/// What was forgotten is in no file.
#[test]
fn a_conversation_that_was_reset_saves_nothing_of_what_was_said() {
    let subject = Subject::demo(&cpu());
    let mut model = subject.loaded(Limits { context: 128, ..limits(1) }, None);
    model.source = Some(demo::source().unwrap());
    let mut engine = Subject::start(model);
    let options = Request { sampling: SamplingOverrides::greedy(), max_new_tokens: Some(8), ..Request::default() };
    let mut conversation = Conversation::new(options);
    let dir = temp_dir("reset");
    let path = dir.join("chat.session");
    conversation.ask(&mut engine, "Hello!", &mut |_| {}, &mut || false).unwrap();
    conversation.save(&mut engine, &path).unwrap();
    let said = std::fs::metadata(&path).unwrap().len();
    assert!(conversation.n_tokens() > 0);
    conversation.reset();
    conversation.save(&mut engine, &path).unwrap();
    let left = std::fs::metadata(&path).unwrap().len();
    assert!(left < said / 2, "{left} bytes after a reset, {said} before");
    conversation.load(&mut engine, &path).unwrap();
    assert_eq!((conversation.n_tokens(), conversation.messages().len()), (0, 0));
    std::fs::remove_dir_all(&dir).expect("a temporary folder");
}

/// An adapter that is replaced under its name answers the requests that come, whatever steps were recorded with the other.
#[test]
fn an_adapter_is_replaced_under_its_name() {
    let subject = Subject::fixture("tiny-gemma3", &cpu());
    let mut engine = subject.batch(limits(1), BatchLimits { n_slots: 2, n_contexts: 2 });
    add_all(&mut engine, &subject);
    let ask = |name: &str| Request {
        adapter: AdapterChoice::Named(name.to_string()),
        sampling: SamplingOverrides::greedy(),
        max_new_tokens: Some(6),
        ignore_eos: true,
        ..Request::tokens(vec![3, 1, 4, 1, 5])
    };
    let run = |engine: &mut Engine, name: &str| engine.run(ask(name), &mut |_| {}, &mut || false).unwrap().1.token_ids;
    let [all, attention] = ["all", "attention"].map(|name| run(&mut engine, name));
    let other = engine.adapters().iter().find(|a| a.name == "attention").unwrap().adapter.clone();
    engine.add_adapter("all", other).unwrap();
    assert_eq!(engine.adapters().len(), 5);
    assert_eq!(run(&mut engine, "all"), attention);
    assert_ne!(all, attention);
    // Of another model, it is refused and nothing changes.
    let stranger = Subject::fixture("tiny-qwen2-tied", &cpu());
    let adapter = crate::per_request::any_adapter(&stranger);
    let error = engine.add_adapter("all", adapter).unwrap_err();
    assert_eq!(error.message(), "adapter \"all\" was made for a model of another shape");
    assert_eq!(run(&mut engine, "all"), attention);
}
