//! Batches against sessions: an answer is the same alone and in any company, and nobody is let down half-way.

mod equality;
mod pages;
mod subject;

use lichen_kernels::ops::attention::KvFormat;
use lichen_runtime::memory_plan::Limits;
use lichen_tests::models::limits;

use equality::{check_company, check_many};
use subject::{cpu, Subject, MODELS};

#[test]
fn company_changes_no_bit() {
    check_company(&Subject::demo(&cpu()), Limits { context: 128, chunk: 32, ..limits(2) }, &[3, 16, 64]);
    for name in MODELS {
        let subject = Subject::fixture(name, &cpu());
        for kv_format in [KvFormat::F32, KvFormat::F16, KvFormat::I8] {
            check_company(&subject, Limits { kv_format, ..limits(2) }, &[3, 16]);
        }
        check_company(&subject, limits(2), &[64]);
    }
}

#[test]
fn two_hundred_prompts_through_sixteen_slots_equal_one_by_one() {
    let limits = Limits { context: 192, chunk: 48, ..limits(2) };
    check_many(&Subject::demo(&cpu()), limits, 16, 200, [150, 60]);
}

#[test]
fn small_models_too() {
    for name in MODELS {
        check_many(&Subject::fixture(name, &cpu()), limits(2), 5, 40, [128, 30]);
    }
}
