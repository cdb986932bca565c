//! One engine for many: an answer is the same alone and in any batch, and nobody is let down half-way.

mod chats;
mod constrained;
mod equality;
mod kept;
mod pages;
mod per_request;
mod requests;
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

#[test]
fn four_chats_past_the_window_compute_only_what_is_new() {
    chats::check_demo(&Subject::demo(&cpu()), Limits { context: 512, chunk: 64, ..limits(2) }, 8, 24);
}

#[test]
fn chats_of_small_models_equal_those_alone_whoever_gives_way() {
    for name in MODELS {
        for n_contexts in [4, 2, 1] {
            chats::check_random(&Subject::fixture(name, &cpu()), limits(2), n_contexts);
        }
    }
}

#[test]
fn one_step_holds_rows_of_several_adapters() {
    for name in MODELS {
        let subject = Subject::fixture(name, &cpu());
        per_request::check_adapters(&subject, limits(2), 8);
        per_request::check_reuse(&subject, limits(2));
    }
}

#[test]
fn a_conversation_goes_to_a_file_from_a_slot_and_back_to_any_place() {
    for (i, name) in MODELS.into_iter().enumerate() {
        let formats = [KvFormat::F32, KvFormat::F16, KvFormat::I8];
        kept::check_kept(&Subject::fixture(name, &cpu()), &format!("cpu-{i}"), &formats);
    }
}

#[test]
fn an_engine_can_be_sent_to_a_thread() {
    fn is_send<T: Send + 'static>() {}
    is_send::<lichen_runtime::engine::Engine>();
}
