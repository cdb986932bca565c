//! What a session promises: the same bits however the work is cut, shared out or interrupted.

use std::sync::Arc;

use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::Isa;
use lichen_runtime::memory_plan::{Limits, MemoryPlan, ModelBytes};
use lichen_runtime::model::session_file::{self, SavedState};
use lichen_runtime::model::Model;
use lichen_runtime::setting::as_flag;
use lichen_tests::models::*;

const MODELS: [&str; 5] = [
    "tiny-gemma3",
    "tiny-gemma3/tiny-gemma3-q8_0.gguf",
    "tiny-gemma3-nf4",
    "tiny-qwen2-tied/tiny-qwen2-tied-q8_0.gguf",
    "tiny-qwen2-untied",
];

fn models() -> impl Iterator<Item = (&'static str, Arc<Model>)> {
    MODELS.iter().map(|name| (*name, load(&fixture(name))))
}

/// 90 tokens: several windows of 16 and several chunks.
fn tokens(model: &Model) -> Vec<u32> {
    (0..90u32).map(|i| (i * i * 7 + i * 13 + 5) % model.config.vocab_size as u32).collect()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn threads_chunks_instruction_sets_and_decode_give_the_same_bits() {
    for (name, model) in models() {
        let ids = tokens(&model);
        let want = bits(&logits(&mut session(&model, limits(1)), &ids));
        for n_threads in [2, 3, 4] {
            assert_eq!(
                bits(&logits(&mut session(&model, limits(n_threads)), &ids)),
                want,
                "{name}: {n_threads} threads"
            );
        }
        for chunk in [1, 2, 13, 128] {
            let limits = Limits { chunk, ..limits(2) };
            assert_eq!(bits(&logits(&mut session(&model, limits), &ids)), want, "{name}: chunks of {chunk}");
        }
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            assert_eq!(bits(&logits(&mut session_on(&model, limits(2), isa), &ids)), want, "{name}: {}", isa.name());
        }
        let mut session = session(&model, limits(2));
        let decoded: Vec<f32> = ids.iter().flat_map(|id| decode(&mut session, *id)).collect();
        assert_eq!(bits(&decoded), want, "{name}: one by one");
    }
}

#[test]
fn a_changed_ending_reuses_the_prefix_and_equals_a_fresh_session() {
    for (name, model) in models() {
        let ids = tokens(&model);
        for (keep, reused) in [(89, 89), (80, 80), (75, 75), (10, 0)] {
            let mut session = session(&model, limits(2));
            session.prompt(&ids, &mut always).unwrap();
            let mut changed = ids[..keep].to_vec();
            changed.extend([1, 2, 3]);
            let got = session.prompt(&changed, &mut always).unwrap();
            // Without a window nothing is ever forgotten.
            let want = if model.config.sliding_window.is_none() { keep } else { reused };
            assert_eq!(got, want, "{name}: reused after {keep} equal tokens");
            let logits = bits(session.last_logits().unwrap());
            let mut fresh = crate::session(&model, limits(2));
            fresh.prompt(&changed, &mut always).unwrap();
            assert_eq!(logits, bits(fresh.last_logits().unwrap()), "{name}: {keep}");
        }
    }
}

#[test]
fn a_later_turn_computes_only_what_is_new_also_past_the_window() {
    for (name, model) in models() {
        let ids = tokens(&model);
        let mut session = session(&model, limits(2));
        for (turn, end) in [20, 45, 70, 90].into_iter().enumerate() {
            let held = session.tokens().len();
            let reused = session.prompt(&ids[..end], &mut always).unwrap();
            assert_eq!(reused, held, "{name}: turn {turn}");
        }
    }
}

#[test]
fn the_same_prompt_again_computes_its_last_token_alone() {
    let model = load(&fixture("tiny-gemma3"));
    let ids = tokens(&model);
    let mut session = session(&model, limits(2));
    session.prompt(&ids, &mut always).unwrap();
    let first = bits(session.last_logits().unwrap());
    assert_eq!(session.prompt(&ids, &mut always).unwrap(), ids.len() - 1);
    assert_eq!(bits(session.last_logits().unwrap()), first);
}

#[test]
fn a_restored_session_continues_bit_for_bit() {
    let dir = temp_dir("restore");
    for (i, (name, model)) in models().enumerate() {
        let ids = tokens(&model);
        for kv_format in [KvFormat::F32, KvFormat::F16, KvFormat::I8] {
            let limits = Limits { kv_format, ..limits(2) };
            let path = dir.join(format!("{i}-{}.session", kv_format.name()));
            let mut whole = session(&model, limits);
            whole.prompt(&ids[..60], &mut always).unwrap();
            let state = SavedState { sampler_seed: 7, sampler_step: 60, note: "[\"ನಮಸ್ಕಾರ\"]".into() };
            session_file::save(&whole, "template", &state, &path).unwrap();
            let mut restored = session(&model, limits);
            assert_eq!(session_file::load(&mut restored, "template", &path).unwrap(), state);
            assert_eq!(restored.tokens(), whole.tokens());
            for session in [&mut whole, &mut restored] {
                assert_eq!(session.prompt(&ids[..60], &mut always).unwrap(), 59, "{name}");
            }
            for id in &ids[60..] {
                let want = bits(&decode(&mut whole, *id));
                assert_eq!(bits(&decode(&mut restored, *id)), want, "{name} {}", kv_format.name());
            }
        }
    }
}

#[test]
fn a_saved_session_of_another_model_template_or_cache_is_refused() {
    let dir = temp_dir("keys");
    let path = dir.join("s.session");
    let (gemma, nf4) = (load(&fixture("tiny-gemma3")), load(&fixture("tiny-gemma3-nf4")));
    let mut saved = session(&gemma, limits(1));
    saved.prompt(&[1, 2, 3], &mut always).unwrap();
    session_file::save(&saved, "template", &SavedState::default(), &path).unwrap();
    let refused = |model, limits: Limits, template: &str| {
        let mut other = session(model, limits);
        other.prompt(&[9, 8], &mut always).unwrap();
        let message = session_file::load(&mut other, template, &path).unwrap_err().spelled(&as_flag);
        assert_eq!(other.tokens(), [9, 8], "a refused file changes nothing");
        message
    };
    assert!(refused(&nf4, limits(1), "template").contains("was saved with another model"));
    assert!(refused(&gemma, limits(1), "other").contains("was saved with another chat template"));
    let int8 = Limits { kv_format: KvFormat::I8, ..limits(1) };
    assert!(refused(&gemma, int8, "template").contains("was saved with another cache (f32; here it is int8)"));
    let short = Limits { context: 2, ..limits(1) };
    assert!(refused(&gemma, short, "template").ends_with("holds 3 tokens; --context is 2"));
}

#[test]
fn every_flipped_byte_of_a_saved_session_is_noticed() {
    let dir = temp_dir("flips");
    let path = dir.join("s.session");
    let model = load(&fixture("tiny-qwen2-tied"));
    let limits = Limits { context: 4, chunk: 4, ..limits(1) };
    let mut saved = session(&model, limits);
    saved.prompt(&[1, 2], &mut always).unwrap();
    session_file::save(&saved, "template", &SavedState::default(), &path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut other = session(&model, limits);
    for i in 0..good.len() {
        let mut bad = good.clone();
        bad[i] ^= 1 << (i % 8);
        std::fs::write(&path, &bad).unwrap();
        let result = session_file::load(&mut other, "template", &path);
        // Padding of the header may change without a meaning; then what was loaded is what was saved.
        let unchanged = result.is_ok() && other.tokens() == [1, 2];
        assert!(result.is_err() || unchanged, "byte {i} of {}", good.len());
        if result.is_ok() {
            session_file::save(&other, "template", &SavedState::default(), &path).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), good, "byte {i}");
            other.reset();
        }
    }
}

#[test]
fn a_full_context_is_refused_with_the_numbers_and_loses_nothing() {
    let model = load(&fixture("tiny-gemma3"));
    let mut session = session(&model, Limits { context: 20, ..limits(1) });
    let ids = tokens(&model);
    session.prompt(&ids[..18], &mut always).unwrap();
    let message = session.append(&ids[18..22], &mut always).unwrap_err().spelled(&as_flag);
    let want = "4 tokens more do not fit: 18 of 20 positions are in use (raise --context, the model allows 512)";
    assert_eq!(message, want);
    assert_eq!(session.tokens().len(), 18);
    let message = session.decode(99_999).unwrap_err().to_string();
    assert_eq!(message, "token 99999 is outside the vocabulary of 320");
}

#[test]
fn a_plan_over_the_budget_is_refused_with_the_bill() {
    let config = lichen_runtime::model::presets::config("gemma-3-1b").unwrap();
    let heap = lichen_runtime::model::synthetic::weights_bytes(&config, lichen_kernels::Format::Q8_0).unwrap();
    let limits =
        Limits { context: 2048, chunk: 128, logit_rows: 1, kv_format: KvFormat::F16, n_threads: 2, max_rank: 0 };
    let plan = MemoryPlan::new(&config, ModelBytes { heap, ..ModelBytes::default() }, limits);
    assert!(plan.check(Some(2 << 30)).is_ok() && plan.check(None).is_ok());
    let message = plan.check(Some(1 << 30)).unwrap_err().to_string();
    assert!(message.contains("weights, heap 1013.0 MiB") && message.contains("the budget is 1024.0 MiB"), "{message}");
    // What peers take is the ceiling: 1126 MiB with the same context.
    assert!(plan.total_bytes() <= 1126 << 20, "{plan}");
}
