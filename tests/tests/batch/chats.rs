//! Chats that share an engine: a turn computes only what is new, past the window too, and every answer is the one that the
//! chat gets for itself. On a GPU tokens that were decoded once and are computed again as part of a prompt are multiplied by
//! other kernels; there a chat by itself computes again what it did among others.

use lichen_kernels::Device;
use lichen_runtime::engine::answer::Answer;
use lichen_runtime::engine::conversation::Conversation;
use lichen_runtime::engine::request::{Prompt, Request, SamplingOverrides};
use lichen_runtime::engine::{Engine, Event, RequestId};
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::loader::demo;
use lichen_runtime::memory_plan::Limits;

use crate::subject::{sampling, Random, Subject};

/// What people say to the model that ships, by chat and turn.
const QUESTIONS: [[&str; 8]; 4] = [
    [
        "What is the capital of India?",
        "And of Japan?",
        "Which is the largest planet?",
        "What is the capital of France?",
        "Thank you.",
        "How many legs has a spider?",
        "What is the capital of Karnataka?",
        "Hello!",
    ],
    [
        "Hello!",
        "Who are you?",
        "What is the capital of Karnataka?",
        "What is water made of?",
        "How many days has a week?",
        "What is the largest ocean?",
        "Good night.",
        "What is the capital of Kenya?",
    ],
    [
        "भारत की राजधानी क्या है?",
        "Who are you?",
        "नमस्ते",
        "What is the capital of Spain?",
        "धन्यवाद",
        "Which planet is red?",
        "What is the capital of Italy?",
        "Thank you.",
    ],
    [
        "ಕರ್ನಾಟಕದ ರಾಜಧಾನಿ ಯಾವುದು?",
        "What is the capital of Egypt?",
        "ನಮಸ್ಕಾರ",
        "How many minutes has an hour?",
        "What do bees make?",
        "Good morning.",
        "What is the capital of Peru?",
        "How many legs has a cat?",
    ],
];

fn question(chat: usize, turn: usize) -> &'static str {
    QUESTIONS[chat][turn]
}

/// What each turn of each chat came to.
pub struct Told {
    /// By chat, then by turn.
    pub answers: Vec<Vec<Answer>>,
    /// Prompt tokens that were computed beside those that were new.
    pub n_again: usize,
}

/// Steps until all requests are answered; answers in their order.
fn all(engine: &mut Engine, requests: Vec<Request>) -> Vec<(RequestId, Answer)> {
    let ids: Vec<RequestId> =
        requests.into_iter().map(|r| engine.submit(r).unwrap_or_else(|e| panic!("{e}"))).collect();
    let mut answers: Vec<Option<Answer>> = ids.iter().map(|_| None).collect();
    let mut on_event = |event: Event<'_>| match event {
        Event::Done { id, answer } => answers[ids.iter().position(|i| *i == id).unwrap()] = Some(answer),
        Event::Failed { error, .. } => panic!("{error}"),
        Event::Started { .. } | Event::Text { .. } => {}
    };
    while engine.step(&mut on_event).unwrap_or_else(|e| panic!("{e}")) {}
    ids.into_iter().zip(answers).map(|(id, answer)| (id, answer.expect("answered"))).collect()
}

/// Leads some of the chats through their first turns, all at once. `forgets` says before which turns the engine forgets.
fn lead(engine: &mut Engine, chats: &[usize], n_turns: usize, longest: usize, forgets: &dyn Fn(usize) -> bool) -> Told {
    let model = engine.model().clone();
    let is_cpu = matches!(*model.device, Device::Cpu(_));
    let options = |chat: usize| Request {
        // On a GPU a common beginning of two chats moves the borders of chunks, and with them the last bits.
        tenant: if is_cpu { 0 } else { chat as u64 },
        sampling: SamplingOverrides { seed: Some(chat as u64), ..sampling(chat % 4).into() },
        max_new_tokens: Some(longest),
        ..Request::default()
    };
    let mut conversations: Vec<Conversation> = chats.iter().map(|chat| Conversation::new(options(*chat))).collect();
    let mut told = Told { answers: chats.iter().map(|_| Vec::new()).collect(), n_again: 0 };
    for turn in 0..n_turns {
        if forgets(turn) {
            engine.clear();
        }
        let asked: Vec<_> = conversations
            .iter()
            .zip(chats)
            .map(|(c, chat)| c.turn(&model, question(*chat, turn)).unwrap_or_else(|e| panic!("{e}")))
            .collect();
        let (requests, turns): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        for (i, ((id, answer), asked)) in all(engine, requests).into_iter().zip(turns).enumerate() {
            told.n_again += again(told.answers[i].last(), &answer);
            conversations[i].finish(&model, asked, id, &answer);
            told.answers[i].push(answer);
        }
    }
    told
}

/// Prompt tokens of a turn that were computed although the turn before had computed them. Its last token never was.
fn again(before: Option<&Answer>, answer: &Answer) -> usize {
    let held = before.map_or(0, |a| a.timings.prompt_tokens + a.timings.new_tokens - 1);
    held - answer.timings.reused_tokens.min(held)
}

/// Each chat for itself, computing again what `told` did, where that makes a difference.
fn assert_as_alone(subject: &Subject, limits: Limits, told: &Told, longest: usize) {
    let alone = (!subject.is_exact()).then_some(BatchLimits { n_slots: 1, n_contexts: 1 });
    for (chat, got) in told.answers.iter().enumerate() {
        let forgets = |turn: usize| !subject.is_exact() && got[turn].timings.reused_tokens == 0;
        let mut engine = demo_engine(subject, limits, alone);
        let want = lead(&mut engine, &[chat], got.len(), longest, &forgets);
        for (turn, (got, want)) in got.iter().zip(&want.answers[0]).enumerate() {
            let what = format!("{}: chat {chat}, turn {turn}", subject.name);
            assert_eq!((&got.token_ids, &got.text), (&want.token_ids, &want.text), "{what}");
        }
    }
}

fn demo_engine(subject: &Subject, limits: Limits, batch: Option<BatchLimits>) -> Engine {
    let mut model = subject.loaded(limits, batch);
    model.source = Some(demo::source().unwrap());
    Subject::start(model)
}

/// Four chats of the model that ships, with a slot each; then with so few pages that they take them from each other.
pub fn check_demo(subject: &Subject, limits: Limits, n_turns: usize, longest: usize) {
    let never = |_| false;
    let roomy = Some(BatchLimits { n_slots: 4, n_contexts: 4 });
    let told = lead(&mut demo_engine(subject, limits, roomy), &[0, 1, 2, 3], n_turns, longest, &never);
    assert_eq!(told.n_again, 0, "{}: every turn computes only what is new", subject.name);
    assert_as_alone(subject, limits, &told, longest);
    let tight = Some(BatchLimits { n_slots: 4, n_contexts: 1 });
    let told = lead(&mut demo_engine(subject, limits, tight), &[0, 1, 2, 3], n_turns, longest, &never);
    assert!(told.n_again > 0, "{}: pages for one context, and nobody gave way", subject.name);
    assert_as_alone(subject, limits, &told, longest);
    let longest = told.answers.iter().map(|turns| turns.last().unwrap().timings.prompt_tokens).max().unwrap();
    println!("{}: the longest chat has {longest} tokens; {} were computed again", subject.name, told.n_again);
}

/// The same with random tokens, for models that cannot talk: later turns take back a part of the one before.
pub fn check_random(subject: &Subject, limits: Limits, n_contexts: usize) {
    let mut random = Random(3);
    let turns: Vec<Vec<Vec<u32>>> = (0..4).map(|_| (0..6).map(|_| subject.prompt(&mut random, 9)).collect()).collect();
    let mut engine = subject.batch(limits, BatchLimits { n_slots: 4, n_contexts });
    let got = together(&mut engine, 0, &turns, &|_| false);
    let alone = (!subject.is_exact()).then_some(BatchLimits { n_slots: 1, n_contexts: 1 });
    for (chat, got) in got.iter().enumerate() {
        let forgets = |turn: usize| !subject.is_exact() && got[turn].timings.reused_tokens == 0;
        let mut engine = subject.engine(limits, alone);
        let want = together(&mut engine, chat, &turns[chat..chat + 1], &forgets).remove(0);
        let tokens = |answers: &[Answer]| answers.iter().map(|a| a.token_ids.clone()).collect::<Vec<_>>();
        assert_eq!(tokens(got), tokens(&want), "{}: chat {chat} among four, pages of {n_contexts}", subject.name);
    }
}

/// Turns of some chats, all at once; the first of them is number `first`.
fn together(
    engine: &mut Engine,
    first: usize,
    turns: &[Vec<Vec<u32>>],
    forgets: &dyn Fn(usize) -> bool,
) -> Vec<Vec<Answer>> {
    let mut said: Vec<Vec<u32>> = turns.iter().map(|_| Vec::new()).collect();
    let mut answers: Vec<Vec<Answer>> = turns.iter().map(|_| Vec::new()).collect();
    for turn in 0..turns[0].len() {
        if forgets(turn) {
            engine.clear();
        }
        let requests = turns.iter().enumerate().map(|(chat, turns)| {
            // Every third turn is said otherwise: the end of what was said is taken back.
            let n = said[chat].len();
            said[chat].truncate(if turn % 3 == 2 { n - 5 } else { n });
            said[chat].extend_from_slice(&turns[turn]);
            Request {
                prompt: Prompt::Tokens(said[chat].clone()),
                max_new_tokens: Some(6),
                sampling: sampling(first + chat).into(),
                ..Request::default()
            }
        });
        let requests = requests.collect();
        for (chat, (_, answer)) in all(engine, requests).into_iter().enumerate() {
            said[chat].extend_from_slice(&answer.token_ids);
            answers[chat].push(answer);
        }
    }
    answers
}
