//! What a session promises holds on a device too.

use std::sync::Arc;

use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::Device;
use lichen_runtime::memory_plan::Limits;
use lichen_runtime::model::session_file::{self, SavedState};
use lichen_tests::models::*;

use super::{decoded, devices, on, session_of};

/// Longer than window and chunk together.
fn some_tokens(n: u32) -> Vec<u32> {
    (0..n).map(|i| 3 + i * i * 7 % 300).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_reset_session_gives_the_same_bits_again() {
    let tokens = some_tokens(45);
    for device in devices() {
        let (model, mut session) = on(&device, "tiny-gemma3/tiny-gemma3-q8_0.gguf", limits(1));
        let first = (decoded(&mut session, &tokens), {
            session.reset();
            logits(&mut session, &tokens)
        });
        session.reset();
        let again = (decoded(&mut session, &tokens), {
            session.reset();
            logits(&mut session, &tokens)
        });
        assert_eq!(bits(&first.0), bits(&again.0), "{}: decode", device.describe());
        assert_eq!(bits(&first.1), bits(&again.1), "{}: prefill", device.describe());
        let mut other = session_of(&device, &model, limits(1));
        assert_eq!(bits(&decoded(&mut other, &tokens)), bits(&first.0), "{}: another session", device.describe());
    }
}

#[test]
fn a_changed_ending_keeps_the_prefix_and_equals_a_fresh_session() {
    let tokens = some_tokens(40);
    for device in devices() {
        let (model, mut session) = on(&device, "tiny-gemma3/tiny-gemma3-q8_0.gguf", limits(1));
        decoded(&mut session, &tokens);
        for keep in [39, 33, 20] {
            let changed: Vec<u32> = tokens[..keep].iter().copied().chain([7, 8]).collect();
            let kept = session.rewind(keep);
            let got: Vec<f32> = decoded(&mut session, &changed[kept..]).split_off((changed.len() - kept - 1) * 320);
            let mut fresh = session_of(&device, &model, limits(1));
            let want = decoded(&mut fresh, &changed).split_off((changed.len() - 1) * 320);
            assert_eq!(bits(&got), bits(&want), "{}: {keep} kept", device.describe());
        }
    }
}

#[test]
fn a_saved_session_continues_bit_for_bit_and_goes_over_to_the_cpu() {
    let tokens = some_tokens(43);
    let dir = temp_dir("cuda-sessions");
    let path = dir.join("session.lichen");
    let cpu = Arc::new(Device::cpu(1).expect("a thread"));
    for device in devices() {
        for kv_format in [KvFormat::F32, KvFormat::F16, KvFormat::I8] {
            let limits = Limits { kv_format, ..limits(1) };
            let name = "tiny-gemma3/tiny-gemma3-q8_0.gguf";
            let (model, mut whole) = on(&device, name, limits);
            decoded(&mut whole, &tokens);
            session_file::save(&whole, "template", &SavedState::default(), &path).unwrap_or_else(|e| panic!("{e}"));
            let mut restored = session_of(&device, &model, limits);
            session_file::load(&mut restored, "template", &path).unwrap_or_else(|e| panic!("{e}"));
            let want = decoded(&mut whole, &[5, 6, 7, 8]);
            let got = decoded(&mut restored, &[5, 6, 7, 8]);
            assert_eq!(bits(&got), bits(&want), "{} {}", device.describe(), kv_format.name());
            let (_, mut on_cpu) = on(&cpu, name, limits);
            session_file::load(&mut on_cpu, "template", &path).unwrap_or_else(|e| panic!("{e}"));
            let difference = max_difference(&decoded(&mut on_cpu, &[5, 6, 7, 8]), &want);
            assert!(difference <= 2e-3, "{} {}: {difference}", device.describe(), kv_format.name());
        }
    }
    std::fs::remove_dir_all(&dir).expect("a temporary folder");
}

#[test]
fn the_best_candidates_are_those_of_the_logits() {
    for device in devices() {
        let (_, mut session) = on(&device, "tiny-gemma3", limits(1));
        decoded(&mut session, &some_tokens(3));
        let all = session.last_logits().unwrap().to_vec();
        let mut want: Vec<(u32, f32)> = (0..).zip(all).collect();
        want.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        for k in [1, 5, 64] {
            assert_eq!(session.top_logits(k).unwrap(), &want[..k], "{}: top {k}", device.describe());
        }
    }
}
