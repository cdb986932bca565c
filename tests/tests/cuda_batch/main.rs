//! Batches on a CUDA device, each architecture's kernels: an answer is the same alone and in any company. The emulator
//! stands in where the machine has no GPU.

#[path = "../batch/chats.rs"]
mod chats;
#[path = "../../cuda-emulator/tests/common/mod.rs"]
mod common;
#[path = "../batch/equality.rs"]
mod equality;
#[path = "../batch/kept.rs"]
mod kept;
#[path = "../batch/per_request.rs"]
mod per_request;
#[path = "../batch/subject.rs"]
mod subject;

use std::sync::Arc;

use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::Device;
use lichen_runtime::memory_plan::Limits;
use lichen_runtime::text::stop::StopIds;
use lichen_tests::models::limits;

use equality::{check_company, check_many};
use lichen_runtime::engine::request::Request;
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::sampler::SamplerConfig;
use subject::{Subject, MODELS};

/// The devices of this machine, the emulator built first where cargo is there to build it.
fn devices() -> Vec<Arc<Device>> {
    if std::env::var_os(lichen_tests::programs::PROGRAMS).is_none() {
        lichen_tests::programs::cuda_emulator();
    }
    common::devices().into_iter().map(Arc::new).collect()
}

/// The oldest architecture and the newest with all, those between them with what they have of their own.
#[test]
fn company_changes_no_bit() {
    for device in devices() {
        let is_end = matches!(common::cuda(&device).arch(), 53 | 90);
        for (i, name) in MODELS.into_iter().enumerate().filter(|(i, _)| is_end || *i == 2) {
            let kv_format = [KvFormat::F32, KvFormat::F16, KvFormat::I8][i % 3];
            let sizes = if i == 1 { &[3, 16][..] } else { &[3] };
            check_company(&Subject::fixture(name, &device), Limits { kv_format, ..limits(1) }, sizes);
        }
    }
}

#[test]
fn sixty_four_at_once_change_no_bit() {
    for device in devices().iter().take(1) {
        check_company(&Subject::fixture(MODELS[1], device), Limits { chunk: 64, ..limits(1) }, &[64]);
    }
}

#[test]
fn two_hundred_prompts_through_sixteen_slots_equal_one_by_one() {
    for device in devices().iter().filter(|d| common::cuda(d).arch() == 80) {
        check_many(&Subject::fixture(MODELS[1], device), limits(1), 16, 200, [40, 6]);
    }
}

#[test]
fn many_prompts_through_a_few_slots_equal_one_by_one() {
    for device in devices().iter().filter(|d| common::cuda(d).arch() == 53) {
        check_many(&Subject::fixture(MODELS[1], device), limits(1), 5, 24, [60, 10]);
        check_many(&Subject::demo(device), Limits { chunk: 64, ..limits(1) }, 3, 6, [20, 8]);
    }
}

/// A step is waited for once, and once more where logits have to be copied after it is known that candidates do not decide.
#[test]
fn a_step_waits_as_often_for_many_sequences_as_for_one() {
    let all = SamplerConfig { temperature: 0.9, ..SamplerConfig::default() };
    let few = SamplerConfig { top_k: 20, ..all };
    for device in devices() {
        // Opened for itself: other tests wait for theirs at the same time.
        let device = Arc::new(Device::Cuda(common::reopen(common::cuda(&device))));
        let mut subject = Subject::fixture(MODELS[3], &device);
        subject.stop_ids = StopIds::default();
        for (samplings, n_waits) in
            [(&[all][..], 1), (&[all; 5], 1), (&[few; 5], 1), (&[few, all, SamplerConfig::greedy(), all, few], 2)]
        {
            let n = samplings.len();
            let is_shared = common::cuda(&device).info().is_integrated;
            let n_waits = if is_shared { 1 } else { n_waits };
            let mut batch = subject.batch(limits(1), BatchLimits { n_slots: n, n_contexts: n });
            for (id, sampling) in (0..).zip(samplings) {
                let request = Request::tokens(vec![3 + id, 1, 4]);
                let sampling = (*sampling).into();
                batch.submit(Request { max_new_tokens: Some(20), sampling, ..request }).unwrap();
            }
            while batch.prefill(&mut |_| {}).unwrap() {}
            // The first steps are recorded.
            for step in 0..4 {
                let before = common::cuda(&device).n_waits();
                assert!(batch.decode(&mut |_| {}).unwrap());
                let waits = common::cuda(&device).n_waits() - before;
                assert!(step < 3 || waits == n_waits, "{}: {waits} waits for {n} rows", device.describe());
            }
        }
    }
}

/// The oldest kernels, and those of tensor cores.
fn old_and_new() -> impl Iterator<Item = Arc<Device>> {
    devices().into_iter().filter(|d| matches!(common::cuda(d).arch(), 53 | 80))
}

#[test]
fn four_chats_past_the_window_compute_only_what_is_new() {
    for device in old_and_new() {
        let is_old = common::cuda(&device).arch() == 53;
        chats::check_random(&Subject::fixture(MODELS[if is_old { 1 } else { 2 }], &device), limits(1), 1);
        chats::check_demo(&Subject::demo(&device), Limits { context: 192, chunk: 64, ..limits(1) }, 5, 4);
    }
}

#[test]
fn one_step_holds_rows_of_several_adapters() {
    for device in old_and_new() {
        let is_old = common::cuda(&device).arch() == 53;
        let subject = Subject::fixture(MODELS[if is_old { 1 } else { 3 }], &device);
        per_request::check_adapters(&subject, limits(1), 3);
        if is_old {
            per_request::check_reuse(&subject, limits(1));
        }
    }
}

#[test]
fn a_conversation_goes_to_a_file_from_a_slot_and_back() {
    for device in old_and_new() {
        let arch = common::cuda(&device).arch();
        let format = if arch == 53 { KvFormat::I8 } else { KvFormat::F16 };
        kept::check_kept(&Subject::fixture(MODELS[1], &device), &format!("cuda-{arch}"), &[format]);
    }
}
