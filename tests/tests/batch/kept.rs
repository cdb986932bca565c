//! A conversation to a file and back: out of a slot among others, into a slot or a ring, bit for bit and past the window.

use lichen_kernels::ops::attention::KvFormat;
use lichen_runtime::engine::request::{AdapterChoice, Request, SamplingOverrides};
use lichen_runtime::engine::Engine;
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::memory_plan::Limits;
use lichen_runtime::model::session_file::SavedState;
use lichen_tests::models::{limits, temp_dir};

use crate::subject::{Random, Subject};

fn turn(prompt: &[u32]) -> Request {
    Request {
        sampling: SamplingOverrides::greedy(),
        max_new_tokens: Some(9),
        ignore_eos: true,
        ..Request::tokens(prompt.to_vec())
    }
}

/// One turn, then its answer and more as the prompt of the next.
fn ask(engine: &mut Engine, said: &mut Vec<u32>, more: &[u32]) -> (lichen_runtime::engine::RequestId, usize) {
    said.extend_from_slice(more);
    let (id, answer) = engine.run(turn(said), &mut |_| {}, &mut || false).unwrap_or_else(|e| panic!("{e}"));
    said.extend_from_slice(&answer.token_ids);
    (id, answer.timings.reused_tokens)
}

pub fn check_kept(subject: &Subject, name: &str, formats: &[KvFormat]) {
    let dir = temp_dir(&format!("kept-{name}"));
    let path = dir.join("chat.session");
    let mut random = Random(8);
    let [first, second, other] = [50, 7, 33].map(|n| subject.prompt(&mut random, n));
    let slots = Some(BatchLimits { n_slots: 3, n_contexts: 3 });
    for kv_format in formats.iter().copied() {
        let limits = Limits { kv_format, ..limits(1) };
        let state = SavedState { sampler_seed: 3, sampler_step: 9, note: "n".into() };
        let mut engine = subject.engine(limits, slots);
        let mut said = Vec::new();
        let (id, _) = ask(&mut engine, &mut said, &first);
        ask(&mut engine, &mut Vec::new(), &other);
        engine.save(Some(id), &AdapterChoice::Default, &state, &path).unwrap_or_else(|e| panic!("{e}"));
        let held = said.len() - 1;
        let mut want = said.clone();
        ask(&mut engine, &mut want, &second);
        // A GPU's ring multiplies otherwise than its pages.
        let places = if subject.is_exact() { &[slots, None][..] } else { &[slots] };
        for place in places {
            let mut engine = subject.engine(limits, *place);
            ask(&mut engine, &mut Vec::new(), &other);
            let (_, restored) =
                engine.restore(&AdapterChoice::Default, 0, &path).unwrap_or_else(|e| panic!("{}: {e}", subject.name));
            assert_eq!(restored, state);
            let mut got = said.clone();
            let (_, reused) = ask(&mut engine, &mut got, &second);
            assert_eq!((reused, &got), (held, &want), "{} {}", subject.name, kv_format.name());
        }
        // What nobody holds any more is saved without keys and values, and computed again.
        engine.clear();
        engine.save(Some(id), &AdapterChoice::Default, &state, &path).unwrap();
        engine.restore(&AdapterChoice::Default, 0, &path).unwrap();
        let mut got = said.clone();
        let (_, reused) = ask(&mut engine, &mut got, &second);
        assert_eq!((reused, &got), (0, &want), "{}: evicted", subject.name);
    }
    std::fs::remove_dir_all(&dir).expect("a temporary folder");
}
