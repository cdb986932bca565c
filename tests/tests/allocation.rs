//! After warm-up, prefill and decode take nothing from the heap.

use std::sync::Arc;

use lichen_kernels::Device;
use lichen_runtime::engine::request::Request;
use lichen_runtime::engine::{Engine, LoadedModel};
use lichen_runtime::limits::BatchLimits;
use lichen_runtime::memory_plan::{MemoryPlan, ModelBytes};
use lichen_runtime::sampler::SamplerConfig;
use lichen_tests::heap::{measure, CountingAllocator};
use lichen_tests::models::{always, fixture, limits, load, session};

#[global_allocator]
static HEAP: CountingAllocator = CountingAllocator;

#[test]
fn decode_and_a_prefill_of_equal_length_allocate_nothing() {
    // With one thread every task runs where it is counted; with two, what the pool itself does is.
    for n_threads in [1, 2] {
        for name in ["tiny-gemma3", "tiny-gemma3/tiny-gemma3-q8_0.gguf", "tiny-gemma3-nf4", "tiny-qwen2-tied"] {
            let mut session = session(&load(&fixture(name)), limits(n_threads));
            let prompt: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 300).collect();
            let mut turn = |first: u32| {
                session.reset();
                session.append(&prompt, &mut always).unwrap();
                for token in first..first + 24 {
                    session.decode(token).unwrap();
                }
            };
            turn(10);
            let ((), heap) = measure(|| turn(50));
            assert_eq!(heap.n_allocations, 0, "{name}, {n_threads} threads: {heap:?}");
        }
    }
}

#[test]
fn the_count_sees_allocations() {
    let (v, heap) = measure(|| std::hint::black_box(vec![1u8; 1000]));
    assert!(heap.n_allocations == 1 && heap.peak_bytes >= v.len(), "{heap:?}");
}

#[test]
fn a_batch_allocates_nothing_between_admissions() {
    for name in ["tiny-gemma3", "tiny-gemma3/tiny-gemma3-q8_0.gguf", "tiny-qwen2-tied"] {
        let (model, device) = (load(&fixture(name)), Arc::new(Device::cpu(1).unwrap()));
        let batch_limits = Some(BatchLimits { n_slots: 6, n_contexts: 6 });
        let plan = MemoryPlan::on(&device, &model.config, ModelBytes::default(), limits(1), batch_limits);
        let mut batch = Engine::new(Arc::new(LoadedModel::of(model, device, plan))).unwrap();
        let turn = |batch: &mut Engine| {
            batch.clear();
            for id in 0..6u64 {
                let prompt: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 300).collect();
                let temperature = (id % 2) as f32;
                let sampling = SamplerConfig { temperature, repeat_penalty: 1.1, seed: id, ..Default::default() };
                let (max_new_tokens, sampling) = (Some(50), sampling.into());
                batch.submit(Request { max_new_tokens, sampling, ..Request::tokens(prompt) }).unwrap();
            }
            // Admission takes what a sequence needs.
            batch.prefill(&mut |_| {}).unwrap();
            let ((), heap) = measure(|| (0..40).for_each(|_| assert!(batch.step(&mut |_| {}).unwrap())));
            while batch.step(&mut |_| {}).unwrap() {}
            heap
        };
        turn(&mut batch);
        let heap = turn(&mut batch);
        assert_eq!(heap.n_allocations, 0, "{name}: {heap:?}");
    }
}
