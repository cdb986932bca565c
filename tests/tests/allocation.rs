//! After warm-up, prefill and decode take nothing from the heap.

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
