//! Batches on a CUDA device, each architecture's kernels: an answer is the same alone and in any company. The emulator
//! stands in where the machine has no GPU.

#[path = "../../cuda-emulator/tests/common/mod.rs"]
mod common;
#[path = "../batch/equality.rs"]
mod equality;
#[path = "../batch/subject.rs"]
mod subject;

use std::sync::Arc;

use lichen_kernels::ops::attention::KvFormat;
use lichen_kernels::Device;
use lichen_runtime::memory_plan::Limits;
use lichen_tests::models::limits;

use equality::{check_company, check_many};
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
