//! Thousands of damaged files: no panic, no large allocation, no hang, and for safetensors the same verdict as the
//! reference implementation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lichen_runtime::files::formats::gguf::Gguf;
use lichen_runtime::files::formats::safetensors::SafeTensors;
use lichen_tests::formats::random::{n_inputs, seed, Random};
use lichen_tests::formats::{check, mutate};
use lichen_tests::heap;

/// Longest any input may take.
const MAX_TIME: Duration = Duration::from_secs(1);

/// Feeds `n` inputs to `check`; both verdicts must be common, or the damage says nothing.
fn run(name: &str, n: usize, make: impl Fn(&mut Random) -> Vec<u8>, check: impl Fn(&[u8]) -> bool) {
    let seed = seed(20_260_101);
    let mut n_accepted = 0;
    let n = n_inputs(n);
    for i in 0..n {
        // Each input has a seed of its own: a failure replays with LICHEN_SEED and its index.
        let input = make(&mut Random::new(seed.wrapping_add(i as u64)));
        let replay = format!("{name}: LICHEN_SEED={seed}, input {i} of {} bytes", input.len());
        let mut fastest = Duration::MAX;
        let mut accepted = false;
        // A busy machine may stall any one attempt.
        for _ in 0..3 {
            let start = Instant::now();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&input)));
            accepted = outcome.unwrap_or_else(|_| panic!("{replay}"));
            fastest = fastest.min(start.elapsed());
            if fastest < MAX_TIME {
                break;
            }
        }
        assert!(fastest < MAX_TIME, "{replay}: {fastest:?}");
        n_accepted += accepted as usize;
    }
    println!("{name}: {n} inputs, {n_accepted} accepted");
    assert!(n_accepted > n / 100 && n - n_accepted > n / 100, "{name}: {n_accepted} of {n} accepted");
}

fn within_bounds(what: &str, input: &[u8], work: impl FnOnce()) {
    let ((), used) = heap::measure(work);
    let max = 4 * input.len() + (1 << 20);
    assert!(used.peak_bytes <= max, "{what}: {} bytes of heap for {} of input", used.peak_bytes, input.len());
}

#[test]
fn gguf() {
    run("gguf", 20_000, mutate::gguf, |bytes| {
        let owner = Arc::new(bytes.to_vec());
        within_bounds("gguf", bytes, || drop(Gguf::parse(owner)));
        check::gguf(bytes)
    });
}

#[test]
fn gguf_split() {
    run("gguf split", 10_000, mutate::gguf_split, |bytes| {
        let mut accepted = false;
        within_bounds("gguf split", bytes, || accepted = check::gguf_split(bytes));
        accepted
    });
}

#[test]
fn part_names() {
    let name = |random: &mut Random| {
        let mut name = format!("m-{:05}-of-{:05}.gguf", 1 + random.below(4), 1 + random.below(4)).into_bytes();
        if random.below(2) == 0 {
            mutate::damage_bytes(&mut name, random, usize::MAX);
        }
        name
    };
    run("part names", 10_000, name, check::part_name);
}

#[test]
fn safetensors() {
    run("safetensors", 20_000, mutate::safetensors, |bytes| {
        let owner = Arc::new(bytes.to_vec());
        within_bounds("safetensors", bytes, || drop(SafeTensors::parse(owner)));
        let ours = SafeTensors::parse(Arc::new(bytes.to_vec()));
        let theirs = safetensors::SafeTensors::deserialize(bytes);
        match (&ours, &theirs) {
            (Ok(_), Err(error)) => panic!("accepted what the reference refuses: {error}"),
            (Err(error), Ok(_)) => assert!(is_stricter_on_purpose(&error.to_string()), "refused a sound file: {error}"),
            (Ok(ours), Ok(theirs)) => {
                for tensor in ours.tensors() {
                    let other = theirs.tensor(&tensor.name).expect("the same names");
                    assert_eq!(other.shape(), tensor.shape());
                    assert_eq!(other.data(), ours.tensor_slice(tensor));
                }
            }
            (Err(_), Err(_)) => {}
        }
        check::safetensors(bytes)
    });
}

/// What the reference takes and we do not: types no model here has, more than four dimensions, a key that appears
/// twice, and a bare array in place of an entry.
fn is_stricter_on_purpose(message: &str) -> bool {
    ["is not supported", "at most 4", "twice", "expected an object with", "expected a string"]
        .iter()
        .any(|reason| message.contains(reason))
}

#[test]
fn hf_config() {
    run("config.json", 20_000, mutate::hf_config, check::hf_config);
}

#[test]
fn adapter_config() {
    run("adapter_config.json", 20_000, mutate::adapter_config, check::adapter_config);
}

#[test]
fn peft_adapter() {
    run("PEFT adapter", 4_000, mutate::peft_adapter, |bytes| {
        // Halves are decoded, at most twice the file's f16; expressions are compiled one at a time.
        within_bounds("PEFT adapter", bytes, || _ = check::peft_adapter(bytes));
        check::peft_adapter(bytes)
    });
}

#[test]
fn gguf_adapter() {
    run("gguf adapter", 10_000, mutate::gguf_adapter, check::gguf_adapter);
}
